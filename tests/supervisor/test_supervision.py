"""What becomes of trainers that end well, badly, or not at all."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.attempt_files import processes_of, shim_of, steps_of, until_step
from support.running_server import RunningServer, environment
from torture.__main__ import torture

Start = Callable[..., str]
Serve = Callable[..., RunningServer]


def test_a_training_that_completes_leaves_a_model_and_no_process(
    server: RunningServer, start: Start, data_dir: Path
) -> None:
    job_id = start(server, "completes")
    job = server.wait_for(job_id)
    assert job["status"] == "completed", job["error"]
    assert job["progress"] == 100.0
    assert steps_of(server, job_id) == list(range(1, 11))
    model = server.get(f"/api/models/{job['model_id']}").json()
    assert model["name"] == "completes"
    assert model["training_params"]["learning_rate"] == 1e-4
    assert processes_of(shim_of(data_dir, job_id)["token"]) == []


def test_a_killed_server_costs_no_step_and_the_same_trainer_goes_on(serve: Serve, start: Start, data_dir: Path) -> None:
    server = serve()
    job_id = start(server, "waits", max_steps=600)
    until_step(server, job_id, 20)
    before = set(processes_of(shim_of(data_dir, job_id)["token"]))
    server.end(signal.SIGKILL)
    # when a new server takes the directory
    server = serve()
    assert server.get(f"/api/jobs/{job_id}").json()["status"] == "training"
    assert set(processes_of(shim_of(data_dir, job_id)["token"])) == before
    job = server.wait_for(job_id)
    # then every step is there once, from one attempt
    assert job["status"] == "completed"
    assert job["attempt"] == 1
    assert steps_of(server, job_id) == list(range(1, 601))


def test_a_trainer_that_ended_while_no_server_ran_is_concluded(serve: Serve, start: Start, data_dir: Path) -> None:
    server = serve()
    job_id = start(server, "waits", max_steps=40)
    until_step(server, job_id, 2)
    token = shim_of(data_dir, job_id)["token"]
    server.end(signal.SIGKILL)
    while processes_of(token):
        time.sleep(0.05)
    server = serve()
    assert server.wait_for(job_id)["status"] == "completed"
    assert steps_of(server, job_id) == list(range(1, 41))


def test_a_server_that_is_asked_to_end_leaves_the_trainer_running(serve: Serve, start: Start, data_dir: Path) -> None:
    server = serve()
    job_id = start(server, "waits", max_steps=100_000)
    until_step(server, job_id, 2)
    server.end(signal.SIGTERM)
    assert processes_of(shim_of(data_dir, job_id)["token"])
    server = serve()
    stopped = server.post("/api/stop_training").json()
    assert stopped["status"] == "stopped"
    assert processes_of(shim_of(data_dir, job_id)["token"]) == []


def test_a_stop_answers_once_every_process_is_gone(server: RunningServer, start: Start, data_dir: Path) -> None:
    job_id = start(server, "waits", max_steps=100_000)
    until_step(server, job_id, 1)
    answer = server.post("/api/stop_training")
    assert answer.status_code == 200
    assert answer.json()["status"] == "stopped"
    assert processes_of(shim_of(data_dir, job_id)["token"]) == []
    assert server.get("/api/training_status").json()["status"] == "stopped"


def test_who_does_not_hear_the_stop_is_killed_after_the_grace_period(
    server: RunningServer, start: Start, data_dir: Path
) -> None:
    job_id = start(server, "ignores-sigterm", max_steps=100_000)
    until_step(server, job_id, 1)
    assert server.post("/api/stop_training").json()["status"] == "stopped"
    exit_report = json.loads((data_dir / "jobs" / job_id / "attempt-1" / "exit.json").read_text())
    assert exit_report["killed_after_grace"]
    assert processes_of(shim_of(data_dir, job_id)["token"]) == []


def test_a_trainer_that_raises_fails_with_its_words(server: RunningServer, start: Start) -> None:
    job = server.wait_for(start(server, "raises"))
    assert job["status"] == "failed"
    assert job["error"] == {"kind": "ValueError", "message": "the script says so"}


def test_a_killed_trainer_fails_with_the_signal(server: RunningServer, start: Start) -> None:
    job = server.wait_for(start(server, "dies"))
    assert job["status"] == "failed"
    assert job["error"]["kind"] == "Killed"  # type: ignore[index]
    assert "signal 9" in job["error"]["message"]  # type: ignore[index]


def test_a_trainer_without_a_word_fails_with_its_exit_code(server: RunningServer, start: Start) -> None:
    job = server.wait_for(start(server, "speechless"))
    assert job["error"]["kind"] == "Crashed"  # type: ignore[index]
    assert "exit code 3" in job["error"]["message"]  # type: ignore[index]


def test_a_killed_shim_takes_everything_with_it(server: RunningServer, start: Start, data_dir: Path) -> None:
    job_id = start(server, "waits", max_steps=100_000)
    until_step(server, job_id, 1)
    shim = shim_of(data_dir, job_id)
    os.kill(int(str(shim["pid"])), signal.SIGKILL)
    job = server.wait_for(job_id)
    assert job["error"]["kind"] == "Killed"  # type: ignore[index]
    assert processes_of(shim["token"]) == []
    # and the machine is free for the next
    assert server.wait_for(start(server, "completes"))["status"] == "completed"


def test_what_a_trainer_leaves_behind_is_ended(server: RunningServer, start: Start, data_dir: Path) -> None:
    job_id = start(server, "leaves-orphan")
    assert server.wait_for(job_id)["status"] == "completed"
    orphan = json.loads((data_dir / "jobs" / job_id / "attempt-1" / "orphan.json").read_text())
    assert not Path(f"/proc/{orphan}").exists() or processes_of(shim_of(data_dir, job_id)["token"]) == []


def test_lines_that_are_no_messages_are_quarantined_and_nothing_is_lost(server: RunningServer, start: Start) -> None:
    job_id = start(server, "garbage")
    assert server.wait_for(job_id)["status"] == "completed"
    assert steps_of(server, job_id) == list(range(1, 11))
    events = server.get(f"/api/events?stream={job_id}&type=LineQuarantined").json()["events"]
    assert [event["data"]["line"]["length"] for event in events] == [7, 0, 3, (1 << 20) + 5, 15, 5]


def test_a_waiting_job_starts_when_the_machine_is_free(server: RunningServer, start: Start) -> None:
    first = start(server, "waits", max_steps=100_000)
    second = start(server, "completes", queue=True)
    assert server.get(f"/api/jobs/{second}").json()["status"] == "queued"
    assert server.get("/api/training_status").json()["job_id"] == first
    server.post("/api/stop_training")
    assert server.wait_for(second)["status"] == "completed"


def test_a_second_server_on_the_directory_is_refused_and_names_the_first(serve: Serve, data_dir: Path) -> None:
    first = serve()
    with pytest.raises(AssertionError, match=f"process {first.process.pid} at {first.url}"):
        serve()
    assert first.get("/api/health").status_code == 200


def test_of_many_servers_at_once_on_one_directory_exactly_one_serves(data_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "support.served", str(data_dir)]
    logs = [(tmp_path / f"{number}.log").open("w+") for number in range(12)]
    servers = [subprocess.Popen(command, stdout=log, stderr=log, env=environment()) for log in logs]
    while sum(server.poll() is None for server in servers) > 1:
        time.sleep(0.05)
    (serving,) = [server for server in servers if server.poll() is None]
    while "listens on" not in (tmp_path / f"{servers.index(serving)}.log").read_text():
        time.sleep(0.05)
    serving.terminate()
    assert serving.wait(timeout=20) == 0
    for server, log in zip(servers, logs, strict=True):
        log.seek(0)
        text = log.read()
        log.close()
        assert server is serving or (server.returncode != 0 and "Another server has this data directory" in text), text


def test_a_start_sweeps_what_a_crash_left_of_uploads_and_deletions(serve: Serve, start: Start, data_dir: Path) -> None:
    server = serve()
    server.wait_for(start(server, "completes"))
    kept = list((data_dir / "datasets").iterdir())
    server.end(signal.SIGKILL)
    (data_dir / "tmp" / "half").write_bytes(b"an upload that was cut off")
    (data_dir / "datasets" / ("0" * 64 + ".jsonl")).write_bytes(b"one that was never recorded")
    (data_dir / "trash" / "gone").mkdir()
    serve()
    assert list((data_dir / "tmp").iterdir()) == list((data_dir / "trash").iterdir()) == []
    assert list((data_dir / "datasets").iterdir()) == kept


def test_ten_kills_at_random_instants_cost_nothing(tmp_path: Path) -> None:
    assert torture(tmp_path, seed=7, kills=10) == []


def test_a_trainer_that_shows_life_without_a_word_is_not_stalled(server: RunningServer, start: Start) -> None:
    job_id = start(server, "breathes")
    assert server.wait_for(job_id)["status"] == "completed"
    assert server.get(f"/api/events?stream={job_id}&type=AttemptStalled").json()["events"] == []


def test_a_silent_trainer_is_shown_as_stalled_and_left_alone(
    server: RunningServer, start: Start, data_dir: Path
) -> None:
    job_id = start(server, "waits", max_steps=200)
    until_step(server, job_id, 5)
    processes = processes_of(shim_of(data_dir, job_id)["token"])
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    while not server.get("/api/training_status").json()["stalled"]:
        time.sleep(0.05)
    assert server.get("/api/training_status").json()["status"] == "training"
    # what others ask of it meanwhile is no word of its own
    assert server.post(f"/api/jobs/{job_id}/checkpoint").status_code == 202
    assert server.get("/api/training_status").json()["stalled"]
    for pid in processes:
        os.kill(pid, signal.SIGCONT)
    assert server.wait_for(job_id)["status"] == "completed"
    assert not server.get("/api/training_status").json()["stalled"]
    assert steps_of(server, job_id) == list(range(1, 201))
    stalls = server.get(f"/api/events?stream={job_id}&type=AttemptStalled").json()["events"]
    assert len(stalls) == 1
