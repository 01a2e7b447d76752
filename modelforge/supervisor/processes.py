"""Which process is which, on this machine: a pid alone proves nothing, it may have been given out anew."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from modelforge.domain.job import LocalProcess

TOKEN_VARIABLE = "MODELFORGE_TOKEN"  # noqa: S105 - the name of it
"""Every process of an attempt has the attempt's token in its environment under this name."""
_POLL_SECONDS = 0.05
_STATE, _START_TIME = 0, 19  # fields 3 and 22 of /proc/PID/stat, counted from the third (proc(5))


def is_alive(process: LocalProcess) -> bool:
    """Whether the process that reported is still there: the same boot, pid and start time, and no zombie."""
    try:
        # The name before these fields may hold anything, parentheses too.
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return (
        process.boot_id == boot_id()
        and process.start_time == int(fields[_START_TIME])
        and fields[_STATE] not in {"Z", "X"}
    )


def boot_id() -> str:
    """The kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def tokens() -> dict[int, str]:
    """The token of every living process that carries one and that this user may read."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - no Path for each of thousands
    return {pid: token for pid in pids if (token := _token(pid)) is not None}


def _token(pid: int) -> str | None:
    mark = f"{TOKEN_VARIABLE}=".encode()
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (PermissionError, FileNotFoundError, ProcessLookupError):
        return None  # not ours to read, or gone already: then it is none of ours
    return next((name.removeprefix(mark).decode(errors="replace") for name in variables if name.startswith(mark)), None)


def command_line(pid: int) -> list[str]:
    """The words that a process was started with; none where it is gone, or not ours to read."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def name_of(pid: int) -> str:
    """What the kernel calls a process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone meanwhile"


def processes_with(token: str) -> list[int]:
    """The living processes that carry a token in their environment."""
    return [pid for pid, carried in tokens().items() if carried == token]


def private_bytes(token: str) -> int:
    """The memory that the processes with a token have for themselves: what comes free at their end, files aside."""
    return sum(_private(pid) for pid in processes_with(token))


def _private(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def send(process: LocalProcess, number: signal.Signals) -> None:
    """Signal a process, if it is still the one that reported."""
    with _handle(process.pid) as handle:
        if handle is not None and is_alive(process):
            _send(handle, number)


def kill_all_with(token: str) -> None:
    """SIGKILL to every process that carries a token, until there is none; blocks meanwhile."""
    while found := processes_with(token):
        for pid in found:
            with _handle(pid) as handle:
                # The handle keeps the process, the second check proves that it is the one that was meant.
                if handle is not None and _token(pid) == token:
                    _send(handle, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


async def wait_for(process: LocalProcess) -> None:
    """Return once the process that reported has ended, whoever's child it is."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def resolve() -> None:
        if not ended.done():
            ended.set_result(None)

    with _handle(process.pid) as handle:
        if handle is not None and is_alive(process):
            loop.add_reader(handle, resolve)
            try:
                await ended
            finally:
                loop.remove_reader(handle)


@contextlib.contextmanager
def _handle(pid: int) -> Iterator[int | None]:
    """A pidfd for the block; None where there is no such process."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _send(handle: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended first
        signal.pidfd_send_signal(handle, number)
