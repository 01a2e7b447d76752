import hashlib
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from support.attempt_files import shim_of
from support.running_server import RunningServer

from torture.promises import Asked, broken_promises

CHANCE = random.Random(1)  # noqa: S311 - no secret
Start = Callable[..., str]


def found(server: RunningServer, data_dir: Path, *asked: Asked) -> str:
    return "\n".join(broken_promises(server, data_dir, CHANCE, asked, still=True, patience=0))


def test_the_checker_sees_what_lies_in_the_directory(server: RunningServer, start: Start, data_dir: Path) -> None:
    job_id = start(server, "completes")
    server.wait_for(job_id)
    assert found(server, data_dir) == ""
    # when things are there that should not be, or not as they were
    [dataset] = (data_dir / "datasets").iterdir()
    dataset.write_bytes(b"others")
    (data_dir / "datasets" / "stray.jsonl").write_bytes(b"")
    (data_dir / "tmp" / "half").write_bytes(b"")
    (data_dir / "trash" / "gone").mkdir()
    (data_dir / "models" / "nobody's").mkdir()
    (data_dir / "models" / job_id / "adapter_model.safetensors").unlink()
    spool = data_dir / "jobs" / job_id / "attempt-1" / "stdout.jsonl"
    spool.write_bytes(spool.read_bytes() + spool.read_bytes().splitlines(keepends=True)[3])
    environment = {**os.environ, "MODELFORGE_TOKEN": str(shim_of(data_dir, job_id)["token"])}
    stray = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert stray.stdout is not None
    stray.stdout.readline()
    told = found(server, data_dir)
    stray.communicate()
    # then each is told
    for sentence in (
        f"the file of dataset {dataset.stem} is not what was uploaded",
        "datasets/stray.jsonl is no dataset",
        "tmp/half was left behind",
        "trash/gone was left behind",
        "models/nobody's is no model",
        f"the model of {job_id} is listed, but its weights are not there",
        f"{job_id} attempt 1: the messages in the spool are numbered",
        f"{job_id} attempt 1: of messages 1 to 13 the log has",
        f"{job_id}: of 11 steps in the spools /metrics has 10",
        f"process {stray.pid} of ('{job_id}', 1) lives",
    ):
        assert sentence in told


def test_the_checker_sees_what_was_changed_in_the_log(server: RunningServer, start: Start, data_dir: Path) -> None:
    job_id = start(server, "completes")
    server.wait_for(job_id)
    with closing(sqlite3.connect(data_dir / "events.sqlite", isolation_level=None)) as log:
        log.execute("UPDATE records SET type = 'TrainingStopped' WHERE type = 'AttemptExited'")
        log.execute("UPDATE records SET data = replace(data, '\"loss\":1.0', '\"loss\":2.0')")
        log.execute("UPDATE records SET version = 99 WHERE type = 'TrainerEnded'")
        log.execute("DELETE FROM records WHERE type = 'PhaseEntered' OR position = 2")
    told = found(server, data_dir)
    assert "record 2 of the log has position 3" in told
    assert f"version 99 of {job_id} is its number" in told
    assert "the digest is not that of the record and the one before" in told
    assert "verify: position 3" in told


def test_the_checker_sees_an_answer_that_was_not_kept(server: RunningServer, start: Start, data_dir: Path) -> None:
    job_id = start(server, "completes")
    server.wait_for(job_id)
    sha256 = hashlib.sha256(b"nothing").hexdigest()
    told = found(
        server,
        data_dir,
        Asked("POST", "/api/start_training", "a", 200, {"job_id": "train_000099"}),
        Asked("POST", f"/api/jobs/{job_id}/resume", "b", 202, {"job_id": job_id, "attempt": 2}),
        Asked("POST", "/api/upload_dataset", "c", 200, {"filename": "data.jsonl", "sha256": sha256}),
        Asked("DELETE", "/api/models/1", None, 200, {}),
        Asked("DELETE", "/api/datasets/data.jsonl", None, 200, {}),
        Asked("POST", "/api/stop_training", "e"),
    )
    for sentence in (
        "/api/start_training was answered 200, and its key is in the log 0 times",
        "/api/start_training was answered 200, but there is no job train_000099",
        f"/api/jobs/{job_id}/resume was answered 202, but {job_id} has no attempt 2",
        "/api/upload_dataset was answered 200, but data.jsonl is not listed with its content",
        "/api/upload_dataset was answered 200, but the log has no upload of data.jsonl",
        "/api/models/1 was answered 200, but model 1 is still shown",
        "/api/datasets/data.jsonl was answered 200, but the log has no deletion of dataset data.jsonl",
        "/api/datasets/data.jsonl was answered 200, but dataset data.jsonl is still shown",
    ):
        assert sentence in told
    assert "stop_training" not in told
