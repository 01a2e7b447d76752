"""Real trainers on a real cluster: what Slurm ends goes on as if it had not been, to the same losses."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.attempt_files import until_step
from support.running_server import RECORDS, RunningServer, real_server
from support.slurm_cluster import SlurmCluster
from support.tiny_model import build_tiny_model

STEPS = 500
pytestmark = [pytest.mark.training, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def server(cluster: SlurmCluster, tmp_path: Path) -> Iterator[RunningServer]:
    """A server on the cluster that may read a tiny model, and has a dataset."""
    build_tiny_model(tmp_path / "model")
    (tmp_path / "shared").mkdir()
    server = real_server(
        tmp_path,
        MODELFORGE_LAUNCHER="slurm",
        MODELFORGE_SHARED_ROOT=str(tmp_path / "shared"),
        SLURM_CONF=str(cluster.conf),
    )
    server.upload(RECORDS).raise_for_status()
    yield server
    server.end()
    cluster.cancel_all()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[RunningServer]:
    """A server that trains on its own machine, with such a model and the same dataset."""
    build_tiny_model(tmp_path / "alone" / "model")
    server = real_server(tmp_path / "alone")
    server.upload(RECORDS).raise_for_status()
    yield server
    server.end()


def start(server: RunningServer, model: Path, **parameters: object) -> str:
    body = {"task": "text-generation", "model_name": str(model), "dataset": "data.jsonl", "max_steps": STEPS}
    answer = server.post("/api/start_training", body | parameters)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job_id"])


def losses_of(server: RunningServer, job_id: str, steps: int = STEPS) -> dict[int, float]:
    metrics = server.get(f"/api/jobs/{job_id}/metrics?limit=100000").json()["metrics"]
    assert [one["step"] for one in metrics] == list(range(1, steps + 1))
    return {one["step"]: one["loss"] for one in metrics}


def test_a_training_that_is_preempted_and_comes_to_its_time_limit_has_the_losses_of_one_that_is_not(
    server: RunningServer, tmp_path: Path, cluster: SlurmCluster
) -> None:
    whole = start(server, tmp_path / "model")
    assert server.wait_for(whole)["status"] == "completed"
    job_id = start(server, tmp_path / "model", max_restarts=2)
    until_step(server, job_id, 10)
    urgent = cluster.preempt_all()
    server.wait_for(job_id, "queued")
    cluster.run("scancel", urgent)
    server.wait_for(job_id, "training")  # the second attempt, however far the first came
    # what Slurm sends before a time limit, without the half minute that it may take to look
    running = [job for job, (name, state, _) in cluster.rows().items() if name.endswith("-2") and state == "RUNNING"]
    cluster.run("scancel", "--signal=USR2", running[-1])
    job = server.wait_for(job_id)
    assert (job["status"], job["attempt"]) == ("completed", 3), job["error"]
    events = server.get(f"/api/events?stream={job_id}&limit=1000").json()["events"]
    assert [one["data"]["kind"] for one in events if one["type"] == "AttemptFailed"] == ["Preempted", "TimeLimit"]
    saved = [one["data"]["step"] for one in events if one["type"] == "CheckpointSaved"]
    resumed = [one["data"]["report"]["resumed_step"] for one in events if one["type"] == "TrainingStarted"]
    assert resumed == [0, *saved[:2]]
    assert losses_of(server, job_id) == pytest.approx(losses_of(server, whole), rel=1e-5)


def saved_steps(server: RunningServer, job_id: str) -> list[int]:
    return [one["step"] for one in server.get(f"/api/jobs/{job_id}/checkpoints").json()["checkpoints"]]


def test_what_is_saved_stopped_and_resumed_on_a_cluster_is_the_training_of_one_machine(
    server: RunningServer, alone: RunningServer, tmp_path: Path
) -> None:
    asked = {"provider": "huggingface", "strategy": "sft", "max_seq_length": 64, "per_device_train_batch_size": 4}
    there = start(server, tmp_path / "model", **asked)
    until_step(server, there, 5)
    assert server.get("/api/training_status").json()["status"] == "training"
    server.post(f"/api/jobs/{there}/checkpoint").raise_for_status()
    while not saved_steps(server, there):
        time.sleep(0.05)
    assert server.post("/api/stop_training").json()["status"] == "stopped"
    assert server.get(f"/api/jobs/{there}").json()["status"] == "stopped"
    assert len(saved_steps(server, there)) == 2
    server.post(f"/api/jobs/{there}/resume").raise_for_status()
    here = start(alone, tmp_path / "alone" / "model", **asked)
    assert (server.wait_for(there)["status"], alone.wait_for(here)["status"]) == ("completed", "completed")
    assert losses_of(server, there) == pytest.approx(losses_of(alone, here), rel=1e-5)
    assert [model["name"] for model in server.get("/api/models").json()["models"]] == ["my-model-finetuned"]


def test_one_process_on_each_of_two_nodes_trains_as_two_on_one_machine(
    server: RunningServer, alone: RunningServer, tmp_path: Path
) -> None:
    two = {"num_processes": 2, "max_steps": 8}
    there = start(server, tmp_path / "model", **two, cluster={"nodes": 2})
    assert server.wait_for(there)["status"] == "completed"
    here = start(alone, tmp_path / "alone" / "model", **two)
    assert alone.wait_for(here)["status"] == "completed"
    assert losses_of(server, there, 8) == pytest.approx(losses_of(alone, here, 8), rel=1e-5)
    started = server.get(f"/api/events?stream={there}&type=TrainingStarted").json()["events"]
    assert [one["data"]["report"]["environment"]["world_size"] for one in started] == [2]
