"""A server whose trainings wait elsewhere for their start, as on a cluster (support.waiting_launcher)."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from support.attempt_files import processes_of, shim_of, steps_of, until_step
from support.running_log import write
from support.running_server import RunningServer, scripted_server
from support.scenario import JOB, launching, records_of, requested
from support.waiting_launcher import hold, note_preempted, note_submitted, release

from trainer_entry import wire

Start = Callable[..., str]


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """Where nothing starts until it is released."""
    hold(tmp_path / "cluster", "Resources")
    return tmp_path / "cluster"


@pytest.fixture
def server(data_dir: Path, cluster: Path) -> Iterator[RunningServer]:
    running = scripted_server(data_dir, "--cluster", str(cluster))
    yield running
    if running.process.poll() is None:
        running.end()


def until_waiting(server: RunningServer, job_id: str, reason: str) -> dict[str, object]:
    while True:
        job: dict[str, object] = server.get(f"/api/jobs/{job_id}").json()
        if job["waiting_for"] == reason:
            return job
        time.sleep(0.02)


def types_of(server: RunningServer, job_id: str) -> list[str]:
    events = server.get(f"/api/events?stream={job_id}&limit=1000").json()["events"]
    return [event["type"] for event in events if event["kind"] == "event"]


def test_a_job_is_queued_with_the_reason_until_its_attempt_starts(
    server: RunningServer, start: Start, cluster: Path, data_dir: Path
) -> None:
    job_id = start(server, "completes")
    job = until_waiting(server, job_id, "Resources")
    assert (job["status"], job["attempt"], job["started_at"], job["queue_position"]) == ("queued", 1, None, None)
    work = server.get("/api/machine").json()["work"]
    assert (work["running"], work["queued"]) == ([], 1)
    status = server.get("/api/training_status").json()
    assert (status["job_id"], status["status"], status["waiting_for"]) == (job_id, "queued", "Resources")
    hold(cluster, "Priority")
    assert until_waiting(server, job_id, "Priority")["status"] == "queued"
    release(cluster)
    ended = server.wait_for(job_id)
    assert (ended["status"], ended["waiting_for"]) == ("completed", None)
    assert steps_of(server, job_id) == list(range(1, 11))
    begun = ["TrainingRequested", "AttemptLaunching", "AttemptSubmitted", "AttemptWaits", "AttemptWaits"]
    assert types_of(server, job_id)[:7] == [*begun, "AttemptSpawned", "TrainingStarted"]


def test_trainings_are_all_handed_over_and_none_waits_for_another(
    server: RunningServer, start: Start, cluster: Path
) -> None:
    jobs = [start(server, "completes") for _ in range(3)]
    for job_id in jobs:
        until_waiting(server, job_id, "Resources")
    release(cluster)
    assert {str(server.wait_for(job_id)["status"]) for job_id in jobs} == {"completed"}


@pytest.mark.parametrize("path", ["/api/jobs/{}/cancel", "/api/jobs/{}/stop", "/api/stop_training"])
def test_a_waiting_job_that_is_stopped_ends_without_a_trainer(
    server: RunningServer, start: Start, cluster: Path, path: str
) -> None:
    job_id = start(server, "completes")
    until_waiting(server, job_id, "Resources")
    assert server.post(path.format(job_id)).ok
    ended = server.wait_for(job_id)
    assert (ended["status"], ended["waiting_for"], ended["started_at"]) == ("stopped", None, None)
    release(cluster)
    assert "AttemptSpawned" not in types_of(server, job_id)
    assert steps_of(server, job_id) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_that_waits_still_waits_after_the_server_was_started_anew(
    server: RunningServer, start: Start, cluster: Path, number: signal.Signals
) -> None:
    job_id = start(server, "completes")
    before = until_waiting(server, job_id, "Resources")
    server.end(number)
    server.start()
    assert server.get(f"/api/jobs/{job_id}").json() == before
    release(cluster)
    assert server.wait_for(job_id)["status"] == "completed"
    assert types_of(server, job_id).count("AttemptSubmitted") == 1


def test_a_job_that_started_while_no_server_ran_is_told_of_from_its_first_step(
    server: RunningServer, start: Start, cluster: Path, data_dir: Path
) -> None:
    job_id = start(server, "waits", max_steps=100_000)
    until_waiting(server, job_id, "Resources")
    release(cluster)
    until_step(server, job_id, 1)
    server.end(signal.SIGKILL)
    server.start()
    until_step(server, job_id, 20)
    server.post("/api/stop_training")
    assert server.wait_for(job_id)["status"] == "stopped"
    steps = steps_of(server, job_id)
    assert steps == list(range(1, len(steps) + 1))
    assert processes_of(shim_of(data_dir, job_id)["token"]) == []


@pytest.mark.parametrize("was_submitted", [True, False])
def test_what_was_handed_over_as_the_server_was_killed_is_not_handed_over_again(
    data_dir: Path, cluster: Path, *, was_submitted: bool
) -> None:
    data_dir.mkdir()
    write(data_dir / "events.sqlite", records_of(requested(), launching()))
    if was_submitted:
        spec = msgspec.json.encode(wire.AttemptSpec(job=requested().spec, attempt=1, token="ours", cpu_threads=1))  # noqa: S106 - no secret
        folder = data_dir / "jobs" / JOB / "attempt-1"
        folder.mkdir(parents=True)
        (folder / "spec.json").write_bytes(spec)
        note_submitted(cluster, JOB, 1, spec)
    server = scripted_server(data_dir, "--cluster", str(cluster))
    job = until_waiting(server, JOB, "Resources")
    assert (job["status"], job["attempt"]) == ("queued", 1 if was_submitted else 2)
    server.post(f"/api/jobs/{JOB}/stop")
    assert server.wait_for(JOB)["status"] == "stopped"
    server.end()
    assert len([*cluster.glob("*.submitted")]) == 1


def test_a_stop_that_the_server_did_not_outlive_holds(server: RunningServer, start: Start) -> None:
    job_id = start(server, "completes")
    until_waiting(server, job_id, "Resources")
    server.post(f"/api/jobs/{job_id}/stop")
    server.end(signal.SIGKILL)
    server.start()
    assert server.wait_for(job_id)["status"] == "stopped"


def test_an_attempt_whose_place_was_taken_goes_on_as_the_next_from_its_checkpoint(
    server: RunningServer, start: Start, cluster: Path, data_dir: Path
) -> None:
    job_id = start(server, "waits", max_steps=60, max_restarts=1)
    release(cluster)
    until_step(server, job_id, 3)
    server.post(f"/api/jobs/{job_id}/checkpoint")
    while server.get(f"/api/jobs/{job_id}").json()["checkpoint"] is None:
        time.sleep(0.02)
    hold(cluster, "BeginTime")
    note_preempted(cluster, job_id, 1)
    os.kill(int(str(shim_of(data_dir, job_id)["pid"])), signal.SIGTERM)
    waiting = until_waiting(server, job_id, "BeginTime")
    assert (waiting["status"], waiting["attempt"], waiting["restarts"]) == ("queued", 2, 1)
    assert waiting["error"] is None
    (failure,) = server.get(f"/api/events?stream={job_id}&type=AttemptFailed").json()["events"]
    assert failure["data"]["kind"] == "Preempted"
    release(cluster)
    ended = server.wait_for(job_id)
    assert (ended["status"], ended["attempt"]) == ("completed", 2)
    assert steps_of(server, job_id) == list(range(1, 61))


def test_other_work_runs_on_the_servers_machine_while_trainings_wait(
    server: RunningServer, start: Start, cluster: Path
) -> None:
    release(cluster)
    server.wait_for(start(server, "completes"))
    hold(cluster, "Resources")
    waiting = start(server, "completes")
    until_waiting(server, waiting, "Resources")
    exported = server.post("/api/models/1/export", {"format": "tar"}).json()["job_id"]
    assert server.wait_for(exported)["status"] == "completed"
    assert "AttemptSubmitted" not in types_of(server, exported)
    assert server.get(f"/api/jobs/{waiting}").json()["status"] == "queued"
    server.post(f"/api/jobs/{waiting}/stop")
    assert server.wait_for(waiting)["status"] == "stopped"


def test_an_attempt_of_a_cluster_is_not_taken_up_by_a_server_that_has_none(
    server: RunningServer, start: Start, data_dir: Path
) -> None:
    job_id = start(server, "completes")
    until_waiting(server, job_id, "Resources")
    server.end()
    alone = scripted_server(data_dir)
    assert alone.process.wait(timeout=20) != 0
    said = alone.end()
    assert "--launcher slurm" in said
    assert job_id in said
