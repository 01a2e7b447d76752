"""Why a job ended, and when it is tried again."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.attempt_files import processes_of, shim_of, steps_of, until_step
from support.running_log import write
from support.running_server import RunningServer
from support.scenario import attempt_spawned, launching, records_of, requested

Start = Callable[..., str]
Serve = Callable[..., RunningServer]
GROUPS = Path("/sys/fs/cgroup/memory")
LIMIT = 1_000_000_000  # as much as a trainer of the smallest model is reckoned at, and some more


def test_a_killed_attempt_is_tried_again_from_its_checkpoint_and_no_step_is_told_twice(
    server: RunningServer, start: Start
) -> None:
    job_id = start(server, "dies-once", max_restarts=1)
    job = server.wait_for(job_id)
    assert job["status"] == "completed", job["error"]
    assert (job["attempt"], job["restarts"], job["max_restarts"], job["error"]) == (2, 1, 1, None)
    assert steps_of(server, job_id) == list(range(1, 11))
    (failure,) = server.get(f"/api/events?stream={job_id}&type=AttemptFailed").json()["events"]
    assert failure["data"]["kind"] == "Killed"


def test_restarts_come_to_an_end_with_the_cause(server: RunningServer, start: Start) -> None:
    job = server.wait_for(start(server, "dies", max_restarts=2))
    assert job["status"] == "failed"
    assert (job["attempt"], job["restarts"]) == (3, 2)
    assert job["error"]["kind"] == "Killed"  # type: ignore[index]


def test_what_failed_by_an_exception_is_not_tried_again(server: RunningServer, start: Start) -> None:
    job = server.wait_for(start(server, "raises", max_restarts=2))
    assert (job["status"], job["attempt"]) == ("failed", 1)


@pytest.mark.parametrize("number", [-1, 101, 1.5, "many"])
def test_a_number_of_restarts_that_is_none_is_refused(
    server: RunningServer, model_folder: Path, number: object
) -> None:
    body = {"task": "text-generation", "model_name": str(model_folder), "dataset": "none", "max_restarts": number}
    answer = server.post("/api/start_training", body)
    assert (answer.status_code, answer.json()["field"]) == (400, "max_restarts")


def test_a_trainer_whose_machine_was_started_anew_has_lost_its_power(serve: Serve, data_dir: Path) -> None:
    data_dir.mkdir()
    # what a server finds after the machine went down under it: an attempt of another boot
    write(data_dir / "events.sqlite", records_of(requested(), launching(), attempt_spawned()))
    job = serve().wait_for("train_000001")
    assert job["status"] == "failed"
    assert job["error"]["kind"] == "LostPower"  # type: ignore[index]


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group with little memory, where this machine lets us make one."""
    group = GROUPS / f"modelforge-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(LIMIT))
    except OSError as error:
        pytest.skip(f"no memory control group can be made here: {error}")
    yield group
    group.rmdir()


def test_the_kernel_out_of_memory_ends_the_trainer_and_not_the_server(
    serve: Serve, start: Start, data_dir: Path, small_group: Path
) -> None:
    server = serve()
    (small_group / "cgroup.procs").write_text(str(server.process.pid))
    job_id = start(server, "devours")
    job = server.wait_for(job_id)
    assert job["status"] == "failed"
    assert job["error"]["kind"] == "OutOfMemory", job["error"]  # type: ignore[index]
    assert "qlora" in job["error"]["message"]  # type: ignore[index]
    assert processes_of(shim_of(data_dir, job_id)["token"]) == []
    assert server.get("/api/health").status_code == 200
    server.end()


def test_figures_that_are_no_numbers_are_null_and_named(server: RunningServer, start: Start) -> None:
    job_id = start(server, "nan")
    assert server.wait_for(job_id)["status"] == "completed"
    answer = server.get(f"/api/jobs/{job_id}/metrics")
    metrics = answer.json(parse_constant=lambda name: pytest.fail(f"{name} in JSON"))["metrics"]
    assert {(metric["loss"], *metric["nonfinite"]) for metric in metrics} == {(None, "loss")}
    assert server.get("/api/training_status").json()["loss"] is None


@pytest.mark.parametrize("behaviour", ["waits", "ignores-sigterm"])
def test_a_training_that_somebody_else_ended_was_interrupted_and_not_stopped(
    server: RunningServer, start: Start, data_dir: Path, behaviour: str
) -> None:
    job_id = start(server, behaviour, max_steps=100_000)
    until_step(server, job_id, 1)
    shim = shim_of(data_dir, job_id)
    os.kill(int(str(shim["pid"])), signal.SIGTERM)
    job = server.wait_for(job_id)
    assert job["status"] == "failed"
    assert job["error"]["kind"] == "Interrupted"  # type: ignore[index]
    assert processes_of(shim["token"]) == []
