"""Trainings on several datasets, and on one to evaluate on: counted, recorded, refused by the place in the request."""

from pathlib import Path

import openai
import pytest
from support.attempt_files import model_in
from support.running_server import RECORDS, RunningServer

PREFERENCES = b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def body(folder: Path, module_server: RunningServer) -> dict[str, object]:
    for name, content in (("a.jsonl", RECORDS), ("b.jsonl", RECORDS[: RECORDS.index(b"\n", 300) + 1])):
        module_server.upload(content, name).raise_for_status()
    module_server.upload(PREFERENCES, "p.jsonl").raise_for_status()
    return {"task": "text-generation", "model_name": str(model_in(folder)), "output_name": "completes"}


def refused(server: RunningServer, body: dict[str, object]) -> list[tuple[str, str]]:
    told = server.post("/api/preflight", body).json()
    answer = server.post("/api/start_training", body)
    assert answer.status_code in {400, 404}, answer.text
    return [(problem["field"], problem["message"] + problem["remedy"]) for problem in told["problems"]]


def test_a_mixture_is_told_before_it_starts_and_stands_in_the_job(
    module_server: RunningServer, body: dict[str, object], folder: Path
) -> None:
    small = folder / "pairs.csv"
    small.write_text("frage,antwort\n" + "a,b\n" * 10)
    datasets = [
        {"dataset": "a.jsonl", "weight": 1.5},
        {"dataset": "b.jsonl", "max_samples": 4},
        {"dataset": str(small), "columns": {"input": "frage", "output": "antwort"}},
    ]
    asked = {**body, "dataset": datasets, "eval_split": 0.25}
    told = module_server.post("/api/preflight", asked).json()
    assert told["problems"] == []
    assert [one["taken"] for one in told["records"]["datasets"]] == [30, 4, 10]
    assert told["records"]["evaluation"] == 5 + 1 + 2
    assert told["records"]["train"] == 15 + 8 + 3 + 8
    job_id = module_server.post("/api/start_training", asked).json()["job_id"]
    details = module_server.wait_for(job_id, "completed")
    dataset = details["dataset"]
    assert isinstance(dataset, dict)
    assert dataset["filename"] == "a.jsonl + b.jsonl + pairs.csv"
    assert dataset["num_examples"] == 44
    assert [(one["dataset"]["revision"], one["weight"], one["taken"]) for one in dataset["parts"]] == [
        (1, 1.5, 30), (1, 1.0, 4), (None, 1.0, 10)
    ]  # fmt: skip
    assert job_id in module_server.get("/api/datasets/b.jsonl").json()["jobs"]
    again = module_server.post(f"/api/jobs/{job_id}/rerun")
    assert again.status_code == 202, again.text
    assert again.json()["dataset"] == dataset
    module_server.wait_for(again.json()["job_id"], "completed")


def test_a_dataset_of_several_that_does_not_fit_is_named_by_its_place(
    module_server: RunningServer, body: dict[str, object], folder: Path
) -> None:
    broken = folder / "broken.jsonl"
    broken.write_bytes(RECORDS + b'{"input": "x"}\n')

    def with_second(**second: object) -> list[tuple[str, str]]:
        return refused(module_server, {**body, "dataset": [{"dataset": "a.jsonl"}, second]})

    for second, field, said in (
        ({"dataset": "none.jsonl"}, "dataset[1]", "none.jsonl"),
        ({"dataset": "p.jsonl"}, "dataset[1]", "preferences"),
        ({"dataset": str(broken)}, "dataset[1]", ""),
        ({"dataset": "b.jsonl", "encoding": "latin-1"}, "dataset[1].encoding", "encoding"),
    ):
        found = with_second(**second)
        assert [one for one, _ in found] == [field], found
        assert said in found[0][1]
    answer = module_server.post("/api/start_training", {**body, "dataset": [{"dataset": str(broken)}]})
    assert answer.json()["validation"]["errors"][0]["line"] == 21
    (beside,) = refused(module_server, {**body, "dataset": [{"dataset": "a.jsonl"}], "encoding": "latin-1"})
    assert beside[0] == "encoding"


@pytest.mark.parametrize(
    ("datasets", "field"),
    [
        ([], "dataset"),
        ([{"dataset": "a.jsonl", "weight": 0}], "dataset[0].weight"),
        ([{"dataset": "a.jsonl", "max_samples": 0}], "dataset[0].max_samples"),
        ([{"dataset": "a.jsonl", "share": 2}], "dataset[0].share"),
        ([{"dataset": "a.jsonl"}, "b.jsonl"], "dataset[1]"),
    ],
)
def test_an_entry_that_says_nothing_is_refused_by_its_place(
    module_server: RunningServer, body: dict[str, object], datasets: list[object], field: str
) -> None:
    answer = module_server.post("/api/start_training", {**body, "dataset": datasets})
    assert answer.status_code == 400
    assert field in answer.text


def test_records_to_evaluate_on_stand_in_place_of_a_split(
    module_server: RunningServer, body: dict[str, object]
) -> None:
    asked = {**body, "dataset": "a.jsonl", "validation_dataset": "b.jsonl", "early_stopping_patience": 2}
    told = module_server.post("/api/preflight", asked).json()
    assert told["problems"] == []
    judged = told["records"]["evaluation"]
    assert told["records"]["train"] == 20
    assert judged == module_server.get("/api/datasets/b.jsonl").json()["num_examples"]
    job_id = module_server.post("/api/start_training", asked).json()["job_id"]
    details = module_server.wait_for(job_id, "completed")
    assert details["validation_dataset"]["filename"] == "b.jsonl"  # type: ignore[index]
    for wrong, said in (({"eval_split": 0.1}, "eval_split"), ({"validation_dataset": "p.jsonl"}, "preferences")):
        ((field, words),) = refused(module_server, {**asked, **wrong})
        assert field == "validation_dataset"
        assert said in words


def test_a_validation_file_of_openais_client_is_the_validation_dataset(
    module_server: RunningServer, body: dict[str, object]
) -> None:
    with openai.OpenAI(base_url=f"{module_server.url}/v1", api_key="none", max_retries=0) as client:
        train, judge = (
            client.files.create(file=(name, RECORDS), purpose="fine-tune").id for name in ("t.jsonl", "v.jsonl")
        )
        made = client.fine_tuning.jobs.create(
            model=str(body["model_name"]), training_file=train, validation_file=judge, suffix="completes"
        )
        assert made.validation_file == judge
        with pytest.raises(openai.BadRequestError) as found:
            client.fine_tuning.jobs.create(
                model=str(body["model_name"]),
                training_file=train,
                validation_file=judge,
                extra_body={"modelforge": {"eval_split": 0.1}},
            )
        assert found.value.param == "validation_file"
        module_server.wait_for(made.id.replace("ftjob-", "train_"), "completed")
