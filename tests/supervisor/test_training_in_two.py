"""A real job in two processes: it completes, is stopped and goes on, and one of the two is killed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.attempt_files import processes_of, shim_of, steps_of, until_step
from support.running_server import RECORDS, RunningServer, real_server
from support.tiny_model import build_tiny_model

pytestmark = [pytest.mark.training, pytest.mark.timeout(300)]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[RunningServer]:
    """A server that may read a tiny model, and has a dataset."""
    build_tiny_model(tmp_path / "model")
    server = real_server(tmp_path)
    server.upload(RECORDS).raise_for_status()
    yield server
    if server.get("/api/training_status").json()["status"] in {"starting", "training"}:
        server.post("/api/stop_training")
    server.end()


def start(server: RunningServer, model: Path, **parameters: object) -> str:
    body = {"task": "text-generation", "model_name": str(model), "dataset": "data.jsonl", **parameters}
    answer = server.post("/api/start_training", body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job_id"])


def rank_of(pid: int) -> int | None:
    """None: a shim, or a launcher."""
    ranks = [one for one in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if one.startswith(b"RANK=")]
    return int(ranks[0].removeprefix(b"RANK=")) if ranks else None


def test_a_job_in_two_processes_is_stopped_and_goes_on_to_its_end(two: RunningServer, tmp_path: Path) -> None:
    job_id = start(two, tmp_path / "model", num_processes=2, max_steps=60)
    until_step(two, job_id, 10)
    token = shim_of(tmp_path / "data", job_id)["token"]
    assert {rank_of(pid) for pid in processes_of(token)} == {None, 0, 1}
    assert two.post("/api/stop_training").json()["status"] == "stopped"
    assert processes_of(token) == []
    stopped_at = steps_of(two, job_id)[-1]
    two.post(f"/api/jobs/{job_id}/resume").raise_for_status()
    job = two.wait_for(job_id)
    assert (job["status"], job["attempt"]) == ("completed", 2), job["error"]
    assert steps_of(two, job_id) == list(range(1, 61))
    started = two.get(f"/api/events?stream={job_id}&type=TrainingStarted").json()["events"]
    assert [event["data"]["report"]["resumed_step"] for event in started] == [0, stopped_at]
    assert [event["data"]["report"]["environment"]["world_size"] for event in started] == [2, 2]


def test_when_one_of_two_is_killed_the_attempt_fails_and_the_machine_is_free(
    two: RunningServer, tmp_path: Path
) -> None:
    job_id = start(two, tmp_path / "model", num_processes=2, max_steps=100_000)
    until_step(two, job_id, 5)
    token = shim_of(tmp_path / "data", job_id)["token"]
    (second,) = [pid for pid in processes_of(token) if rank_of(pid) == 1]
    os.kill(second, signal.SIGKILL)
    job = two.wait_for(job_id)
    assert (job["status"], job["error"]["kind"]) == ("failed", "Killed"), job["error"]  # type: ignore[index]
    assert processes_of(token) == []
    following = two.wait_for(start(two, tmp_path / "model", max_steps=2))
    assert following["status"] == "completed", following["error"]
