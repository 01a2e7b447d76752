"""Fine-tuning jobs as OpenAI's own client sees them, on scripted trainers."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from support.attempt_files import model_in
from support.running_server import RECORDS, RunningServer, scripted_server

from modelforge.domain.job import JobStatus
from modelforge.http.openai.fine_tuning_job import STATUSES

PREFERENCES = b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = scripted_server(tmp_path_factory.mktemp("jobs") / "data")
    yield server
    server.end()


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, server: RunningServer) -> str:
    return str(model_in(Path(server._data_dir()).parent))  # noqa: SLF001 - within its roots


@pytest.fixture(scope="module")
def file(client: openai.OpenAI) -> str:
    return client.files.create(file=("a.jsonl", RECORDS), purpose="fine-tune").id


def test_a_job_is_created_followed_and_leaves_a_model(
    client: openai.OpenAI, server: RunningServer, model: str, file: str
) -> None:
    made = client.fine_tuning.jobs.create(
        model=model,
        training_file=file,
        suffix="completes",
        seed=7,
        metadata={"who": "me"},
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 3, "learning_rate_multiplier": 0.5}},
        },
        extra_body={"modelforge": {"lora_r": 4, "max_restarts": 1}},
    )
    assert made.status in {"queued", "running"}
    assert made.id.replace("ftjob-", "train_") == made.modelforge["job_id"]  # type: ignore[attr-defined]
    details = server.wait_for(made.id.replace("ftjob-", "train_"), "completed")
    asked = client.fine_tuning.jobs.retrieve(made.id)
    assert (asked.status, asked.seed, asked.metadata, asked.training_file) == ("succeeded", 7, {"who": "me"}, file)
    assert (asked.hyperparameters.n_epochs, asked.hyperparameters.batch_size) == (2, 3)
    assert details["config"]["lora_r"] == 4  # type: ignore[index]
    assert asked.fine_tuned_model is not None
    assert client.models.retrieve(asked.fine_tuned_model).owned_by == "modelforge"


def test_the_multiplier_multiplies_the_default_of_the_strategy(
    client: openai.OpenAI, server: RunningServer, model: str, file: str
) -> None:
    made = client.fine_tuning.jobs.create(
        model=model, training_file=file, suffix="completes", hyperparameters={"learning_rate_multiplier": 0.25}
    )
    job_id = made.id.replace("ftjob-", "train_")
    server.wait_for(job_id)
    specs = [one["data"]["spec"] for one in server.get("/api/events?type=TrainingRequested").json()["events"]]
    (spec,) = [spec for spec in specs if spec["job_id"] == job_id]
    assert spec["parameters"]["learning_rate"] == 5e-5


def test_preferences_are_trained_on_with_their_beta(client: openai.OpenAI, server: RunningServer, model: str) -> None:
    prefers = client.files.create(file=("p.jsonl", PREFERENCES), purpose="fine-tune").id
    made = client.fine_tuning.jobs.create(
        model=model,
        training_file=prefers,
        suffix="completes",
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": "auto"}}},
    )
    assert made.method is not None
    assert made.method.type == "dpo"
    assert made.method.dpo.hyperparameters.beta == 0.2  # type: ignore[union-attr]
    server.wait_for(made.id.replace("ftjob-", "train_"))


def test_a_job_is_paused_resumed_and_cancelled(
    client: openai.OpenAI, server: RunningServer, model: str, file: str
) -> None:
    long = {"modelforge": {"max_steps": 100_000}}
    made = client.fine_tuning.jobs.create(model=model, training_file=file, suffix="waits", extra_body=long)
    server.wait_for(made.id.replace("ftjob-", "train_"), "training")
    waiting = client.fine_tuning.jobs.create(model=model, training_file=file, suffix="waits", extra_body=long)
    assert waiting.status == "queued"
    assert client.fine_tuning.jobs.cancel(waiting.id).status == "cancelled"
    assert client.fine_tuning.jobs.pause(made.id).status == "cancelled"
    assert client.fine_tuning.jobs.resume(made.id).status in {"queued", "running"}
    server.wait_for(made.id.replace("ftjob-", "train_"), "training")
    assert client.fine_tuning.jobs.cancel(made.id).status == "cancelled"
    with pytest.raises(openai.ConflictError):
        client.fine_tuning.jobs.cancel(made.id)
    events = list(client.fine_tuning.jobs.list_events(made.id, limit=7))
    assert len({event.id for event in events}) == len(events) > 7
    whole = client.fine_tuning.jobs.list_events(made.id, limit=1000).data
    assert [event.id for event in events] == [event.id for event in whole]
    for unknown in (f"{events[-1].id}0", "ftevent-0", "ftevent-999999999999999999", "ftevent-x", waiting.id):
        with pytest.raises(openai.BadRequestError, match="the id of one in this list"):
            client.fine_tuning.jobs.list_events(made.id, after=unknown)
    assert events[-1].message == "The job was created"
    assert {event.type for event in events} == {"message", "metrics"}
    assert list(client.fine_tuning.jobs.checkpoints.list(made.id)) == []
    assert [one.id for one in client.fine_tuning.jobs.list(limit=1)][:2] == [waiting.id, made.id]


def test_what_is_not_there_is_not_found(client: openai.OpenAI) -> None:
    for ask in (client.fine_tuning.jobs.retrieve, client.fine_tuning.jobs.cancel, client.fine_tuning.jobs.list_events):
        with pytest.raises(openai.NotFoundError):
            ask("ftjob-999999")  # type: ignore[operator]


def test_jobs_are_listed_by_their_words(client: openai.OpenAI, model: str, file: str) -> None:
    words = {"team": "red", "round[1]": "1"}
    made = client.fine_tuning.jobs.create(model=model, training_file=file, suffix="completes", metadata=words)
    bare = client.fine_tuning.jobs.create(model=model, training_file=file, suffix="completes")
    jobs = client.fine_tuning.jobs
    assert [one.id for one in jobs.list(metadata={"team": "red"})] == [made.id]
    assert [one.id for one in jobs.list(metadata=words)] == [made.id]
    assert list(jobs.list(metadata={"team": "blue"})) == list(jobs.list(metadata={"team": "red", "x": "y"})) == []
    without = [one.id for one in jobs.list(extra_query={"metadata": "null"})]
    assert bare.id in without
    assert made.id not in without
    for query in ({"metadata": "red"}, {"metadata[a]": "b" * 513}, {"metadata[a][b]": "c"}, {"other[a]": "b"}):
        with pytest.raises(openai.BadRequestError):
            jobs.list(extra_query=query)


def test_a_refusal_names_jobs_models_and_fields_as_openai_s_client_has_them(
    client: openai.OpenAI, server: RunningServer, model: str, file: str
) -> None:
    made = client.fine_tuning.jobs.create(model=model, training_file=file, suffix="completes")
    server.wait_for(made.id.replace("ftjob-", "train_"), "completed")
    for ask in (client.fine_tuning.jobs.cancel, client.fine_tuning.jobs.resume):
        with pytest.raises(openai.ConflictError, match=made.id):
            ask(made.id)
    with pytest.raises(openai.NotFoundError) as none:
        client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=file)
    assert (none.value.code, none.value.param) == ("model_not_found", "model")
    assert "model_name" not in none.value.message
    with pytest.raises(openai.BadRequestError) as unrewarded:
        client.fine_tuning.jobs.create(
            model=model,
            training_file=file,
            method={"type": "reinforcement", "reinforcement": {}},  # type: ignore[typeddict-item]
        )
    assert unrewarded.value.param == "method.reinforcement.grader"


def reinforcement(**grader: object) -> dict[str, object]:
    return {"method": {"type": "reinforcement", "reinforcement": {"grader": {"name": "g", **grader}}}}


CHECK = {"type": "string_check", "input": "{{sample.output_text}}", "reference": "{{item.answer}}", "operation": "eq"}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"training_file": "file-none"}, "training_file"),
        ({"validation_file": "file-none"}, "validation_file"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations"),
        ({"suffix": "no name"}, "suffix"),
        ({"extra_body": {"modelforge": {"lora_rank": 4}}}, "modelforge.lora_rank"),
        (
            {"extra_body": {"modelforge": {"num_train_epochs": 4}}, "hyperparameters": {"n_epochs": 2}},
            "hyperparameters.n_epochs",
        ),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"extra_body": {"modelforge": {"strategy": "dpo"}}, "method": {"type": "supervised"}}, "modelforge.strategy"),
        (reinforcement(type="python", source="def grade(a, b): return 1"), "method.reinforcement.grader.type"),
        (reinforcement(type="score_model", model="x", input=[]), "method.reinforcement.grader.type"),
        (reinforcement(**{**CHECK, "operation": "like"}), "method.reinforcement.grader.operation"),
        (reinforcement(**{**CHECK, "reference": "4"}), "method.reinforcement.grader.reference"),
        ({"method": {"type": "dpo"}}, "training_file"),
    ],
)
def test_what_a_job_cannot_have_is_refused_by_its_name(
    client: openai.OpenAI, model: str, file: str, asked: dict[str, object], param: str
) -> None:
    before = len(list(client.fine_tuning.jobs.list()))
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.create(**{"model": model, "training_file": file, **asked})  # type: ignore[arg-type]
    assert refused.value.param == param
    assert len(list(client.fine_tuning.jobs.list())) == before


def test_a_grader_becomes_the_reward_function_that_it_is(
    client: openai.OpenAI, server: RunningServer, model: str, file: str
) -> None:
    made = client.fine_tuning.jobs.create(
        model=model,
        training_file=file,
        suffix="completes",
        **reinforcement(**CHECK),  # type: ignore[arg-type]
    )
    details = server.wait_for(made.id.replace("ftjob-", "train_"))
    (reward,) = details["config"]["reward_functions"]  # type: ignore[index]
    assert (reward["name"], reward["field"]) == ("exact_match", "answer")


def test_every_state_of_a_job_has_its_status() -> None:
    assert set(STATUSES) == set(JobStatus.__args__)  # type: ignore[attr-defined]
