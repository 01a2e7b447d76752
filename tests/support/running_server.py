"""A server process, for tests that talk to it as a client does."""

import functools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import requests

from support.forked_children import OF_LIGHT
from support.warm_process import WarmProcess, start_process

RECORDS = b"".join(b'{"input": "question %d", "output": "answer %d"}\n' % (n, n) for n in range(20))
TESTS = Path(__file__).parents[1]
_LISTENS = re.compile(r"listens on ((?:https?://|unix:)\S+)")


class RunningServer:
    """A server process, and its API by `requests`."""

    def __init__(
        self, command: list[str], environment: dict[str, str], *, warm: Callable[[], WarmProcess] | None = None
    ) -> None:
        self._command = command
        self._environment = environment
        self._warm = warm
        self.shown: dict[str, str] = {}  # with each request: a token, where one is needed
        self.start()

    def start(self, *flags: str) -> None:
        self.spawn(*flags)
        self.listen()

    def spawn(self, *flags: str) -> None:
        # Not a pipe: one that nobody reads would stop the server once it is full.
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `end`
        reading, writing = os.pipe()
        try:
            self.process = start_process(
                [*self._command, *flags],
                self._environment,
                warm=self._warm,
                stdout=writing,
                stderr=self._stderr.fileno(),
            )
        finally:
            os.close(writing)
        self._stdout = open(reading)  # noqa: PTH123, SIM115 - closed by `end`

    def listen(self) -> None:
        """Wait until it answers; an AssertionError if it ends before."""
        line = self._stdout.readline()
        match = _LISTENS.search(line)
        if not match:
            self.process.wait(timeout=20)
        assert match, f"the server said {line!r} and {self._close()!r}"
        self.url = match[1]

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        self.process.send_signal(number)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return self._close()

    def said(self) -> str:
        """What it has said on stderr until now."""
        return Path(f"/proc/self/fd/{self._stderr.fileno()}").read_text()

    def _close(self) -> str:
        """What it said on stderr, unless that was asked for before."""
        if self._stderr.closed:
            return ""
        self._stdout.close()
        with self._stderr:
            self._stderr.seek(0)
            return self._stderr.read()

    def as_owner(self) -> dict[str, str]:
        """The header by which the owner of the data directory is known."""
        data_dir = Path(self._data_dir())
        return {"Authorization": f"Bearer {(data_dir / 'owner.key').read_text()}"}

    def _data_dir(self) -> str:
        """Where its data lies: the word after the flag, or after the module that serves it."""
        after = "--data-dir" if "--data-dir" in self._command else "support.served"
        return self._command[self._command.index(after) + 1]

    def get(self, path: str, **options: object) -> requests.Response:
        options["headers"] = {**self.shown, **options.get("headers", {})}  # type: ignore[dict-item]
        return requests.get(self.url + path, timeout=60, **options)  # type: ignore[arg-type]

    def post(self, path: str, json: object = None, **options: object) -> requests.Response:
        options["headers"] = {**self.shown, **options.get("headers", {})}  # type: ignore[dict-item]
        return requests.post(self.url + path, json=json, timeout=120, **options)  # type: ignore[arg-type]

    def options(self, path: str, headers: dict[str, str]) -> requests.Response:
        return requests.options(self.url + path, headers=headers, timeout=20)

    def delete(self, path: str) -> requests.Response:
        return requests.delete(self.url + path, timeout=60, headers=self.shown)

    def upload(self, content: bytes, filename: str = "data.jsonl", **fields: str) -> requests.Response:
        return requests.post(
            self.url + "/api/upload_dataset",
            files={"file": (filename, content)},
            data=fields,
            timeout=60,
            headers=self.shown,
        )

    def wait_for(self, job_id: str, *statuses: str, seconds: float = 120) -> dict[str, object]:
        """The job, once it has one of the statuses (by default an end)."""
        wanted = statuses or ("completed", "failed", "stopped")
        deadline = time.monotonic() + seconds
        while True:
            job: dict[str, object] = self.get(f"/api/jobs/{job_id}").json()
            if job["status"] in wanted:
                return job
            assert time.monotonic() < deadline, f"{job_id} is still {job['status']}"
            time.sleep(0.05)


def environment(**added: str) -> dict[str, str]:
    # No test asks a hub, and what is run as `-m` stands beside this file. What is not asked for is not started ahead.
    ours = {"PYTHONPATH": str(TESTS), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "error", "MODELFORGE_COLD": "true"}
    return {**os.environ, **ours, **added}


@functools.cache
def warm_server() -> WarmProcess:
    """The process that servers are forked from, where a test is not about their process."""
    modules = (
        "uvloop",
        "modelforge.server",
        "modelforge.cli",
        "trainer_entry.wire",
        "support.forked_children",
        *OF_LIGHT,
    )
    # Threads of these libraries would be in the way of a fork.
    return WarmProcess(modules, environment(), OPENBLAS_NUM_THREADS="1", JE_ARROW_MALLOC_CONF="background_thread:false")


def scripted_server(data_dir: Path, *flags: str, **variables: str) -> RunningServer:
    """A server with scripted trainers (support.served), forked unless its variables change what it imports."""
    command = [sys.executable, "-m", "support.served", str(data_dir), *flags]
    return RunningServer(command, environment(**variables), warm=warm_server)


def _served_for_real(folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "modelforge", "serve", "--port", "0", "--data-dir", str(folder / "data")),
        *("--model-root", str(folder), "--dataset-root", str(folder)),
    ]


def real_server(folder: Path, **variables: str) -> RunningServer:
    """`modelforge serve` as a user starts it, with its data and all that it may read under `folder`."""
    # The libraries of training warn of their own doings: that is not what is tested here.
    return RunningServer(_served_for_real(folder), environment(PYTHONWARNINGS="default", **variables))


def forked_real_server(folder: Path, **variables: str) -> RunningServer:
    """The same, forked, as what it starts is (support.forked_children) but for trainings: these it launches."""
    return RunningServer(_served_for_real(folder), environment(**variables), warm=warm_server)


def modelforge(*arguments: str, url: str | None = None) -> "subprocess.CompletedProcess[str]":
    """A command, run to its end: forked, as servers are."""
    command = [sys.executable, "-m", "modelforge", *arguments]
    added = {} if url is None else {"MODELFORGE_URL": url}
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        process = start_process(
            command, environment(**added), warm=warm_server, stdout=stdout.fileno(), stderr=stderr.fileno()
        )
        try:
            code = process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(command, code, stdout.read(), stderr.read())
