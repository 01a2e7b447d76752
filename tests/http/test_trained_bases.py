"""A training that names one that was trained here: by its id, name or folder, with what its adapter is."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.attempt_files import model_in, training, until_step
from support.running_server import RECORDS, RunningServer

pytestmark = pytest.mark.slow

Start = Callable[..., str]
LAYERS = ["down_proj", "up_proj"]


def train_first(server: RunningServer, start: Start) -> RunningServer:
    """Let it have model 1, an adapter of rank 8."""
    job = server.wait_for(start(server, "completes"))
    config = {"r": 8, "lora_alpha": 24, "target_modules": LAYERS}
    (Path(model(server, job["model_id"])["path"]) / "adapter_config.json").write_text(json.dumps(config))
    return server


@pytest.fixture(scope="module")
def first(module_server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> RunningServer:
    """A server with model 1, for tests that leave that alone."""
    folder = model_in(tmp_path_factory.mktemp("models"))

    def start(server: RunningServer, behaviour: str) -> str:
        server.upload(RECORDS).raise_for_status()
        return str(server.post("/api/start_training", training(folder, behaviour)).json()["job_id"])

    return train_first(module_server, start)


@pytest.fixture
def trained(server: RunningServer, start: Start) -> RunningServer:
    return train_first(server, start)


def model(server: RunningServer, model_id: int) -> dict[str, Any]:
    found: dict[str, Any] = server.get(f"/api/models/{model_id}").json()
    return found


def body(name: str, **fields: object) -> dict[str, object]:
    return {"task": "text-generation", "model_name": name, "dataset": "data.jsonl", "max_steps": 5, **fields}


def spec_of(server: RunningServer, job_id: str) -> dict[str, Any]:
    events = server.get(f"/api/events?type=TrainingRequested&stream={job_id}").json()["events"]
    found: dict[str, Any] = events[0]["data"]["spec"]
    return found


@pytest.mark.parametrize("by", ["id", "name", "path"])
def test_it_is_trained_further_on_its_own_base_as_what_it_is(first: RunningServer, by: str) -> None:
    trained, earlier = first, model(first, 1)
    named = {"id": "1", "name": "completes", "path": earlier["path"]}[by]
    answer = trained.post("/api/start_training", body(named, learning_rate=0.001))
    assert answer.status_code == 200, answer.text
    job_id = answer.json()["job_id"]
    spec = spec_of(trained, job_id)
    assert (spec["model_name"], spec["model_path"]) == (earlier["base_model"], earlier["base_path"])
    assert spec["adapter"]["path"] == earlier["path"]
    assert (spec["parameters"]["lora_r"], spec["parameters"]["lora_alpha"]) == (8, 24)
    assert sorted(spec["parameters"]["target_modules"]) == LAYERS
    lineage = [{"model_id": 1, "name": "completes", "job_id": earlier["job_id"], "base_model": earlier["base_model"]}]
    assert trained.get(f"/api/jobs/{job_id}").json()["lineage"] == spec["lineage"] == lineage
    # when
    trained.wait_for(job_id)
    # then
    second = model(trained, 2)
    assert (second["base_model"], second["lineage"]) == (earlier["base_model"], lineage)
    assert second["name"] == "my-completes-finetuned"


def test_the_adapter_that_a_job_goes_on_from_is_not_deleted_under_it_and_a_rerun_misses_it(
    trained: RunningServer,
) -> None:
    answer = trained.post("/api/start_training", body("1", output_name="waits", max_steps=100_000))
    job_id = answer.json()["job_id"]
    until_step(trained, job_id, 1)
    assert trained.delete("/api/models/1").status_code == 409
    trained.post("/api/stop_training")
    trained.wait_for(job_id)
    assert trained.delete("/api/models/1").status_code == 200
    again = trained.post(f"/api/jobs/{job_id}/rerun")
    assert (again.status_code, "adapter" in again.text) == (404, True)
    # what came of it is on its base, and needs it no more; and where it came from is still told
    assert trained.get(f"/api/jobs/{job_id}").json()["lineage"][0]["name"] == "completes"


@pytest.mark.parametrize(
    ("asked", "status", "field", "says"),
    [
        ({"model_name": "7"}, 404, None, "GET /api/models"),
        ({"lora_r": 32}, 400, "lora_r", "leave lora_r out"),
        ({"lora_alpha": 64}, 400, "lora_alpha", "/api/models/1/merge"),
        ({"target_modules": ["k_proj"]}, 400, "target_modules", "down_proj, up_proj"),
        ({"task": "extractive-question-answering"}, 400, "model_name", "another task"),
    ],
)
def test_what_the_adapter_is_not_is_refused_with_what_would_work(
    first: RunningServer, asked: dict[str, object], status: int, field: str | None, says: str
) -> None:
    answer = first.post("/api/start_training", {**body("1"), **asked})
    refused = [answer.json(), *answer.json().get("problems", [])]
    assert answer.status_code == status, answer.text
    assert any(says in one["error"] + one["detail"] and one.get("field") == field for one in refused), answer.text


@pytest.mark.parametrize("asked", [{"lora_r": 8}, {"target_modules": [*reversed(LAYERS)]}, {"use_lora": False}])
def test_what_it_is_may_be_said_and_all_weights_may_be_trained_with_it_merged(
    first: RunningServer, asked: dict[str, object]
) -> None:
    answer = first.post("/api/start_training", {**body("1"), **asked})
    assert answer.status_code == 200, answer.text
    assert spec_of(first, answer.json()["job_id"])["adapter"]["path"] == model(first, 1)["path"]
    first.wait_for(answer.json()["job_id"])


def test_what_does_not_go_with_what_the_adapter_is_is_refused_though_nobody_asked_for_that(
    server: RunningServer, start: Start
) -> None:
    train_first(server, functools.partial(start, use_dora=True))
    answer = server.post("/api/preflight", body("1", strategy="qlora", use_8bit=True))
    refused = answer.json()["problems"]
    assert [one["message"] for one in refused if one["field"] == "model_name"] == [
        "use_dora and use_8bit do not go together"
    ]
    assert "/api/models/1/merge" in refused[0]["remedy"]
    assert server.post("/api/preflight", body("1")).json()["problems"] == []


def test_a_name_that_two_models_have_is_no_name(trained: RunningServer, start: Start) -> None:
    trained.wait_for(start(trained, "completes"))
    answer = trained.post("/api/start_training", body("completes"))
    assert (answer.status_code, answer.json()["field"]) == (400, "model_name")
    assert "1, 2" in answer.json()["detail"]


def test_an_adapter_that_cannot_be_read_is_refused(trained: RunningServer) -> None:
    (Path(model(trained, 1)["path"]) / "adapter_config.json").write_text("{")
    answer = trained.post("/api/start_training", body("1"))
    assert (answer.status_code, answer.json()["field"]) == (400, "model_name")
