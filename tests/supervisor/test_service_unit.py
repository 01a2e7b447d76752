"""The unit file in the docs, under a supervisor that does what systemd does with it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from support.attempt_files import processes_of, shim_of, steps_of, training, until_step
from support.running_server import RECORDS, RunningServer, environment, modelforge

UNIT = Path(__file__).parents[2] / "docs" / "modelforge.service"


class Supervised(RunningServer):
    """A server that somebody else starts, stops and starts again."""

    def __init__(self, unit: Path, data_dir: Path) -> None:
        self._data_dir = data_dir
        super().__init__(
            [
                sys.executable,
                "-m",
                "support.service_unit",
                str(unit),
                sys.executable,
                "-m",
                "support.served",
                str(data_dir),
            ],
            environment(),
        )

    def start(self) -> None:
        self.supervisor = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self._environment,
        )
        self.main = self.started()

    def started(self) -> int:
        """The pid of the next main process, once it answers."""
        pid = int(self._word("started"))
        while f'"pid":{pid}' not in self._lock():
            time.sleep(0.02)
        match = re.search(r'"url":"([^"]+)"', self._lock())
        assert match
        self.url = match[1]
        return pid

    def tell(self, what: str) -> int:
        """Tell the supervisor to restart or to stop; how many processes that left."""
        assert self.supervisor.stdin is not None
        self.supervisor.stdin.write(what + "\n")
        self.supervisor.stdin.flush()
        self._word("stopped")
        return int(self._word("left"))

    def _word(self, word: str) -> str:
        assert self.supervisor.stdout is not None
        line = self.supervisor.stdout.readline().split()
        assert line[0] == word, line
        return line[-1]

    def _lock(self) -> str:
        lock = self._data_dir / "lock"
        return lock.read_text() if lock.exists() else ""


@contextmanager
def supervised(unit: Path, data_dir: Path) -> Iterator[Supervised]:
    server = Supervised(unit, data_dir)
    try:
        yield server
    finally:
        modelforge("stop", "--all", url=server.url)
        server.tell("stop")
        assert server.supervisor.stdin is not None
        assert server.supervisor.stdout is not None
        server.supervisor.stdin.close()
        server.supervisor.wait(timeout=20)
        server.supervisor.stdout.close()


@pytest.fixture
def train(model_folder: Path) -> Callable[[Supervised], str]:
    def start(server: Supervised) -> str:
        server.upload(RECORDS).raise_for_status()
        body = training(model_folder, "waits", max_steps=100_000)
        return str(server.post("/api/start_training", body).json()["job_id"])

    return start


def test_a_restart_of_the_service_and_its_failure_leave_the_training_alone(
    data_dir: Path, train: Callable[[Supervised], str]
) -> None:
    with supervised(UNIT, data_dir) as server:
        job_id = train(server)
        until_step(server, job_id, 5)
        token = shim_of(data_dir, job_id)["token"]
        before = set(processes_of(token))
        # when it is restarted
        assert server.tell("restart") == len(before)
        first, server.main = server.main, server.started()
        assert server.main != first
        # and when it fails
        os.kill(server.main, signal.SIGKILL)
        server.main = server.started()
        # and when it is stopped for a while
        assert server.tell("stop") == len(before)
        with pytest.raises(requests.ConnectionError):
            server.get("/api/health")
        assert server.tell("restart") == len(before)
        server.main = server.started()
        # then the same processes go on, and nothing was lost
        until_step(server, job_id, server.get(f"/api/jobs/{job_id}").json()["current_step"] + 5)
        assert set(processes_of(token)) == before
        assert server.get(f"/api/jobs/{job_id}").json()["attempt"] == 1
        steps = steps_of(server, job_id)
        assert steps == list(range(1, len(steps) + 1))
        assert modelforge("stop", "--all", url=server.url).returncode == 0
        assert processes_of(token) == []


def test_without_the_kill_mode_of_the_unit_the_supervisor_ends_trainings(
    data_dir: Path, tmp_path: Path, train: Callable[[Supervised], str]
) -> None:
    unit = tmp_path / "unit.service"
    unit.write_text(UNIT.read_text().replace("KillMode=process\n", ""))
    with supervised(unit, data_dir) as server:
        job_id = train(server)
        until_step(server, job_id, 5)
        assert server.tell("restart") == 0
        server.main = server.started()
        assert server.wait_for(job_id)["status"] in {"stopped", "failed"}
