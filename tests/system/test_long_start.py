"""A server with much of its log to read listens meanwhile, and says so; what ends it there is no harm."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.running_log import standing_of
from support.running_server import RECORDS, RunningServer, environment, scripted_server

from modelforge.audit import verify
from modelforge.event_log.log_schema import log_schema
from modelforge.event_log.sqlite import LogReader
from modelforge.layout import Layout

Start = Callable[..., str]


@pytest.fixture
def free(tmp_path: Path) -> Path:
    """The file that lets a server go on with its log."""
    return tmp_path / "free"


def held_server(data_dir: Path, free: Path, *flags: str) -> RunningServer:
    return scripted_server(data_dir, "--held", str(free), *flags)


def is_reading(server: RunningServer) -> bool:
    health = server.get("/api/health")
    assert (health.status_code, health.json()["status"]) == (200, "healthy")
    return "reading" in health.json()


def until_read(server: RunningServer) -> None:
    deadline = time.monotonic() + 60
    while is_reading(server):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_server_that_reads_its_log_says_so_to_everybody_and_then_answers(data_dir: Path, free: Path) -> None:
    server = held_server(data_dir, free)
    try:
        assert server.get("/api/health").json()["reading"] == {"records": 41, "of": 1_000_041, "doing": "rebuilding"}
        for answer in (server.get("/api/jobs"), server.post("/api/start_training", {}), server.upload(RECORDS)):
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert "41 of 1000041" in answer.json()["detail"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "reads its log" in server.get("/v1/models").json()["error"]["message"]
        for foreign in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            refused = server.get("/api/health", headers=foreign)
            assert (refused.status_code in {403, 421}, "reading" in refused.text) == (True, False)
        page = server.get("/", headers={"Accept": "text/html"})
        assert (page.status_code, "41 of 1000041" in page.text) == (503, True)
        address = urlsplit(server.url)
        with closing(socket.create_connection((address.hostname, address.port))) as silent:
            listing = [sys.executable, "-m", "modelforge", "jobs", "--url", server.url]
            command = subprocess.Popen(listing, env=environment(), stdout=-1, stderr=-1, text=True)
            assert command.stderr is not None
            assert "reads its log" in command.stderr.readline()
            free.touch()
            until_read(server)
            silent.settimeout(20)
            assert silent.recv(1) == b""  # what is asked on it would be asked of nobody
        command.communicate(timeout=60)
        assert command.returncode == 0
        assert server.get("/api/jobs").json() == {"jobs": [], "has_more": False}
        assert server.get("/api/health").json() == {"status": "healthy", "version": "v2"}
    finally:
        assert server.end() == ""


def log_of_schema_1(path: Path) -> None:
    with closing(sqlite3.connect(path)) as log:
        log.executescript(f"{log_schema(1)} PRAGMA user_version = 1; PRAGMA journal_mode = WAL")


def test_a_server_that_upgrades_its_log_says_so_and_then_answers(data_dir: Path, free: Path) -> None:
    data_dir.mkdir()
    log_of_schema_1(Layout(data_dir).log)
    server = scripted_server(data_dir, "--held-upgrade", str(free))
    try:
        expected = {"records": 0, "of": 1_000_000, "doing": "upgrading"}
        assert server.get("/api/health").json()["reading"] == expected
        refused = server.get("/api/jobs")
        assert (refused.status_code, "schema of this release" in refused.json()["detail"]) == (503, True)
        free.touch()
        until_read(server)
        assert server.get("/api/jobs").json() == {"jobs": [], "has_more": False}
    finally:
        assert server.end() == ""


def test_a_signal_ends_a_server_that_upgrades_its_log_and_leaves_that_as_it_was(data_dir: Path, free: Path) -> None:
    data_dir.mkdir()
    log = Layout(data_dir).log
    log_of_schema_1(log)
    server = scripted_server(data_dir, "--held-upgrade", str(free))
    assert is_reading(server)
    assert server.end() == ""
    assert server.process.returncode == 0
    with closing(LogReader(log)) as reader:
        assert reader.schema() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_server_that_reads_its_log_and_leaves_no_trace(
    number: signal.Signals, data_dir: Path, free: Path
) -> None:
    server = held_server(data_dir, free)
    assert is_reading(server)
    assert server.end(number) == ""
    assert server.process.returncode == 0
    left = {path.name for path in data_dir.iterdir() if path.is_file() and path.stat().st_size}
    assert left == {"events.sqlite"}


def test_a_training_goes_on_while_the_next_server_reads_its_log(
    server: RunningServer, start: Start, data_dir: Path, free: Path
) -> None:
    job_id = start(server, "waits", max_steps=400)
    server.wait_for(job_id, "training")
    server.end(signal.SIGKILL)
    again = held_server(data_dir, free)
    try:
        (spool,) = data_dir.glob(f"jobs/{job_id}/attempt-1/stdout.jsonl")
        length = spool.stat().st_size
        deadline = time.monotonic() + 60
        while spool.stat().st_size == length:
            assert is_reading(again)
            assert time.monotonic() < deadline
            time.sleep(0.05)
        free.touch()
        until_read(again)
        assert again.wait_for(job_id)["status"] == "completed"
        assert again.get(f"/api/jobs/{job_id}").json()["attempt"] == 1
    finally:
        again.end()


def test_a_server_that_is_killed_while_it_writes_a_snapshot_leaves_the_one_before(
    server: RunningServer, data_dir: Path, tmp_path: Path
) -> None:
    for number in range(6):
        server.upload(RECORDS, filename=f"{number}.jsonl").raise_for_status()
    server.end()
    told = tmp_path / "half"
    killed = scripted_server(data_dir, "--half-written", str(told))
    killed.upload(RECORDS * 2, filename="0.jsonl").raise_for_status()
    deadline = time.monotonic() + 60
    while not told.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.process.kill()
    killed.process.wait()
    killed.end()
    assert (data_dir / "snapshot.sqlite-journal").exists()  # what was written over is in it
    after = scripted_server(data_dir)
    assert len(after.get("/api/datasets").json()["datasets"]) == 6
    os.kill(after.process.pid, signal.SIGKILL)
    after.process.wait()
    after.end()
    log = Layout(data_dir).log
    assert standing_of(log, from_snapshot=True) == standing_of(log)
    assert verify(Layout(data_dir)).fault_count == 0
