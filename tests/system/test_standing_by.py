"""Real trainers and workers that were started ahead."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.attempt_files import processes_of, shim_of
from support.running_server import RECORDS, RunningServer, real_server
from support.tiny_model import build_tiny_model

pytestmark = [pytest.mark.training, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("standing")
    build_tiny_model(folder / "model")
    server = real_server(folder, MODELFORGE_COLD="false")
    server.upload(RECORDS).raise_for_status()
    yield server
    server.end()


def data_dir(server: RunningServer) -> Path:
    return Path(server._data_dir())  # noqa: SLF001 - where its files lie


def ready(server: RunningServer) -> str:
    """The token of the trainer that stands by, once its libraries are imported."""
    deadline = time.monotonic() + 120
    while (said := server.said()).rfind("trainer_stands_ready") <= said.rfind("trainer_stood_ready"):
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
    (folder,) = (data_dir(server) / "standby").iterdir()
    return folder.name


def train(server: RunningServer, **parameters: object) -> dict[str, Any]:
    model = data_dir(server).parent / "model"
    body = {"task": "text-generation", "model_name": str(model), "dataset": "data.jsonl", "max_steps": 3, **parameters}
    answer = server.post("/api/start_training", body)
    assert answer.status_code == 200, answer.text
    return server.wait_for(answer.json()["job_id"])


def losses(server: RunningServer, job_id: str) -> list[float]:
    return [metric["loss"] for metric in server.get(f"/api/jobs/{job_id}/metrics").json()["metrics"]]


def test_a_trainer_that_stood_by_learns_what_one_learns_that_is_started(server: RunningServer) -> None:
    token = ready(server)
    warm = train(server)
    assert warm["status"] == "completed", warm["error"]
    assert shim_of(data_dir(server), warm["job_id"])["token"] == token
    assert processes_of(token) == []
    # of the next, whose libraries are not imported yet, or which is not there, the same is asked
    cold = train(server)
    assert losses(server, cold["job_id"]) == losses(server, warm["job_id"])


def test_what_the_imports_have_settled_otherwise_is_imported_anew_by_the_same_process(server: RunningServer) -> None:
    token = ready(server)
    job = train(server, gradient_checkpointing=True)
    assert job["status"] == "completed", job["error"]
    assert shim_of(data_dir(server), job["job_id"])["token"] == token


def test_a_worker_of_the_playground_stands_by_once_there_is_a_model(server: RunningServer) -> None:
    if server.get("/api/models").json()["models"] == []:
        train(server)
    ready(server)
    while "playground_started" not in server.said():
        time.sleep(0.1)
    asked = {
        "model_id": server.get("/api/models").json()["models"][0]["id"],
        "prompt": "question 1",
        "max_new_tokens": 2,
    }
    server.post("/api/playground/generate", asked).raise_for_status()
    assert server.said().count("playground_started") == 1
