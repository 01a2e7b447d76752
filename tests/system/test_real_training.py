"""Real trainings of a tiny model: through a killed server, and stopped and resumed."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.attempt_files import processes_of, shim_of, steps_of, until_step
from support.running_server import RECORDS, real_server
from support.tiny_model import build_tiny_model

from trainer_entry.runtime.proc import count_oom_kills

pytestmark = [pytest.mark.training, pytest.mark.timeout(300)]


class Trainings:
    """A real server, and jobs on a tiny model."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self.model = build_tiny_model(folder / "model")
        self.server = real_server(folder)
        self.server.upload(RECORDS).raise_for_status()

    def start(self, **parameters: object) -> str:
        body = {"task": "text-generation", "model_name": str(self.model), "dataset": "data.jsonl", **parameters}
        answer = self.server.post("/api/start_training", body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job_id"])

    def losses(self, job_id: str) -> list[float]:
        metrics = self.server.get(f"/api/jobs/{job_id}/metrics?limit=100000").json()["metrics"]
        return [metric["loss"] for metric in metrics]


@pytest.fixture
def trainings(tmp_path: Path) -> Iterator[Trainings]:
    trainings = Trainings(tmp_path)
    yield trainings
    if trainings.server.get("/api/training_status").json()["status"] in {"starting", "training"}:
        trainings.server.post("/api/stop_training")
    trainings.server.end()


def test_the_same_trainer_goes_on_and_every_step_is_in_the_log_once(trainings: Trainings) -> None:
    server = trainings.server
    job_id = trainings.start(max_steps=150)
    until_step(server, job_id, 10)
    token = shim_of(trainings.data_dir, job_id)["token"]
    before = set(processes_of(token))
    assert len(before) >= 3  # shim, launcher, trainer
    server.end(signal.SIGKILL)
    server.start()
    assert set(processes_of(token)) == before
    job = server.wait_for(job_id)
    assert (job["status"], job["attempt"]) == ("completed", 1), job["error"]
    assert steps_of(server, job_id) == list(range(1, 151))
    assert processes_of(token) == []


def test_a_stopped_job_goes_on_as_if_it_had_never_stopped(trainings: Trainings) -> None:
    server = trainings.server
    whole = trainings.start(max_steps=60)
    server.wait_for(whole)
    job_id = trainings.start(max_steps=60)
    for attempt, step in ((1, 5), (2, 25)):
        until_step(server, job_id, step)
        assert server.post("/api/stop_training").json()["status"] == "stopped"
        resumed = server.post(f"/api/jobs/{job_id}/resume")
        assert (resumed.status_code, resumed.json()["attempt"]) == (202, attempt + 1)
    job = server.wait_for(job_id)
    assert (job["status"], job["attempt"]) == ("completed", 3), job["error"]
    assert steps_of(server, job_id) == list(range(1, 61))
    assert trainings.losses(job_id) == pytest.approx(trainings.losses(whole), rel=1e-5)


def test_a_killed_trainer_is_resumed_from_its_newest_whole_checkpoint(trainings: Trainings) -> None:
    server = trainings.server
    job_id = trainings.start(max_steps=3000, save_steps=10, save_total_limit=3)
    until_step(server, job_id, 45)
    (trainer,) = [
        pid
        for pid in processes_of(shim_of(trainings.data_dir, job_id)["token"])
        if b"-m\0trainer_entry.train\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
        and b"accelerate" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    killed_before = count_oom_kills()
    os.kill(trainer, signal.SIGKILL)
    job = server.wait_for(job_id)
    # What the kernel kills is counted for the whole machine: another test may have had it kill something just then.
    kinds = {"Killed"} if count_oom_kills() == killed_before else {"Killed", "OutOfMemory"}
    assert job["status"] == "failed"
    assert job["error"]["kind"] in kinds  # type: ignore[index]
    *_, newest = [
        checkpoint
        for checkpoint in server.get(f"/api/jobs/{job_id}/checkpoints").json()["checkpoints"]
        if checkpoint["valid"]
    ]
    # when a later one is torn
    torn = Path(newest["path"]).with_name("checkpoint-2000")
    shutil.copytree(newest["path"], torn)
    with (torn / "optimizer.pt").open("r+b") as file:
        file.truncate(100)
    listed = server.get(f"/api/jobs/{job_id}/checkpoints").json()["checkpoints"]
    assert [one["valid"] for one in listed if one["step"] == 2000] == [False]
    server.post(f"/api/jobs/{job_id}/resume").raise_for_status()
    until_step(server, job_id, newest["step"] + 30)
    server.post("/api/stop_training")
    steps = steps_of(server, job_id)
    assert steps == list(range(1, len(steps) + 1))
    started = server.get(f"/api/events?stream={job_id}&type=TrainingStarted").json()["events"]
    assert [event["data"]["report"]["resumed_step"] for event in started] == [0, newest["step"]]


def test_a_rerun_trains_as_the_first_run_did(trainings: Trainings) -> None:
    server = trainings.server
    first = trainings.start(strategy="qlora", max_steps=5, eval_split=0.2, save_steps=5)
    assert server.wait_for(first)["status"] == "completed"
    again = server.post(f"/api/jobs/{first}/rerun").json()["job_id"]
    job = server.wait_for(again)
    assert job["status"] == "completed", job["error"]
    assert trainings.losses(again) == trainings.losses(first)
    assert job["config"] == server.get(f"/api/jobs/{first}").json()["config"]
