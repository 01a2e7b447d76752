"""A server as a user starts it, and what a process takes of memory and of the processor."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import requests
from msgspec import Struct

_MIB = 1 << 20
_TICKS = os.sysconf("SC_CLK_TCK")
NO_LIMITS = {
    "MAX_SOCKETS_PER_CLIENT": "20000",
    "MAX_CONNECTIONS": "20000",
    "MAX_CONNECTIONS_PER_CLIENT": "20000",
    "MAX_REQUESTS_PER_MINUTE": "1000000000",
    "STILL_SECONDS": "600",
}
"""Settings by which one client may have as much as it likes."""


class Server(Struct, frozen=True):
    """A server that answers. `key`: its owner's."""

    pid: int
    url: str
    data_dir: Path

    @property
    def key(self) -> str:
        """The owner's key."""
        return (self.data_dir / "owner.key").read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        """By which it knows its owner."""
        return {"Authorization": f"Bearer {self.key}"}


@contextlib.contextmanager
def served(data_dir: Path, *flags: str, settings: dict[str, str] | None = None, waits: bool = True) -> Iterator[Server]:
    """`modelforge serve`, until the block ends. `settings`: by their names without the prefix, as in `NO_LIMITS`.

    `waits`: until it has read its log, and answers everything.
    """
    command = [sys.executable, "-m", "modelforge", "serve", "--port", "0", "--data-dir", str(data_dir), *flags]
    with started(data_dir, command, settings, waits=waits) as server:
        yield server


@contextlib.contextmanager
def started(
    data_dir: Path, command: list[str], settings: dict[str, str] | None = None, *, waits: bool = False
) -> Iterator[Server]:
    """A server by any command that says where it listens as `modelforge serve` does."""
    variables = {f"MODELFORGE_{name}": value for name, value in (settings or {}).items()}
    # A trainer that is started ahead would take a processor meanwhile.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "MODELFORGE_COLD": "true", **variables}
    with tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
        line = "" if process.stdout is None else process.stdout.readline()
        if " listens on " not in line:
            process.wait()
            stderr.seek(0)
            raise SystemExit(f"{' '.join(command)} said {line!r} and {stderr.read()[-500:]!r}")
    try:
        server = Server(process.pid, line.split(" listens on ")[1].split()[0], data_dir)
        while waits and b'"reading"' in health(server):
            time.sleep(0.01)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def health(server: Server) -> bytes:
    """What it says of itself."""
    return requests.get(f"{server.url}/api/health", timeout=60).content


def cpu_seconds(pid: int) -> float:
    """What a process has had of the processor, its threads included, its children not."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def processor_seconds(pid: int) -> float:
    """The same to the microsecond, of the threads that are there."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def resident_mib(pid: int) -> float:
    """The memory of a process, what it shares with others included."""
    return _kib(Path(f"/proc/{pid}/status"), "VmRSS:") * 1024 / _MIB


def most_resident_mib(pid: int) -> float:
    """The most that it ever had."""
    return _kib(Path(f"/proc/{pid}/status"), "VmHWM:") * 1024 / _MIB


def proportional_bytes(pid: int) -> int:
    """The memory of a process; what it shares is divided among who has it. 0 of one that is gone."""
    try:
        return _kib(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") * 1024
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process started, and those that they did."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in children:
        yield child
        yield from descendants(child)


def _kib(path: Path, field: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    return 0
