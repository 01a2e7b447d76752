"""The processes below this one, as /proc has them. Standard library only: the shim is small."""

import contextlib
import os
import signal
from pathlib import Path


def boot_id() -> str:
    """The kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot: with the pid and the boot id it names one for ever.

    Raises:
        ProcessLookupError: there is no such process.
    """
    return int(_stat(pid)[19])


def count_oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since the boot; 0 where it does not say."""
    try:
        counters = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in counters if line.startswith("oom_kill ")), 0)


def descendants(root: int) -> dict[int, int]:
    """Every living process below `root`, with its parent."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - no Path for each of thousands
        if name.isdigit():
            with contextlib.suppress(ProcessLookupError):
                state, parent = _stat(int(name))[:2]
                if state not in {"Z", "X"}:
                    parents[int(name)] = int(parent)
    family: dict[int, int] = {}
    level = {root}
    while level:
        below = {pid: parent for pid, parent in parents.items() if parent in level and pid not in family}
        family.update(below)
        level = set(below)
    return family


def send(pid: int, number: signal.Signals) -> None:
    """Signal a descendant, and nobody who got its pid meanwhile: the handle keeps it, a second check proves it."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if pid in descendants(os.getpid()):
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def runs(pid: int, module: bytes) -> bool:
    """Whether a process is `python -m MODULE`, and no launcher that only has it among its arguments."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    first = words.index(b"-m") if b"-m" in words else -1
    return words[first + 1 : first + 2] == [module]


def _stat(pid: int) -> list[str]:
    """Fields 3 and on of /proc/PID/stat (proc(5)); the name before them may hold anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError as error:  # gone, or somebody else's where /proc shows only one's own
        raise ProcessLookupError(pid) from error
    return text.rpartition(")")[2].split()
