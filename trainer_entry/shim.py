"""Holds one attempt's processes together and outlives the server.

    python -m trainer_entry.shim FOLDER GRACE MODULE CMD…

It detaches from its caller, becomes the subreaper of everything that the attempt starts, says who it is
(`shim.json`), runs the command with stdout on the spool and stderr on the log, and at the end, once no
descendant is left, says how it went (`exit.json`). SIGTERM asks the ranks (the processes that run MODULE) to
end; whoever is left after GRACE seconds is killed.

Standard library only: it stands beside a training for hours, in a few megabytes.
"""

import contextlib
import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_NICENESS = 10  # a trainer at 0 beside the server costs it an order of magnitude in append latency
_POLL_SECONDS = 0.05
_TAIL_BYTES = 16_384
# accelerate and torchrun end with 1 whatever killed the rank; how it died stands in what they print.
_RANK_SIGNAL = re.compile(rb"died with <Signals\.\w+: (\d+)>|exitcode\s*: -(\d+)")

_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> int:
    """Detach, and return to the caller once `shim.json` is on the disk; the detached process goes on."""
    folder, grace, module, *command = arguments
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # what the server's event loop left open: it waits for its end
    ready, tell = os.pipe()
    if os.fork() > 0:
        os.close(tell)
        with os.fdopen(ready, "rb") as pipe:
            return 0 if pipe.read() == b"ready" else 1
    os.close(ready)
    os.setsid()
    os.umask(0o077)
    os._exit(_Shim(Path(folder), float(grace), module).run(command, tell))


class _Shim:
    """The detached process."""

    def __init__(self, folder: Path, grace: float, module: str) -> None:
        self._folder = folder
        self._grace = grace
        self._module = module.encode()
        self._stop_asked = False
        self._killed_after_grace = False
        self._launcher = 0
        self._launcher_status: int | None = None

    def run(self, command: list[str], tell: int) -> int:
        # Before anything is started: a stop that comes at once is not lost.
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        stderr = os.open(self._folder / "stderr.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(stderr, 2)
        with open(os.devnull, "r+b") as null:  # noqa: PTH123 - a device, not a path of ours
            os.dup2(null.fileno(), 0)
            os.dup2(null.fileno(), 1)
        spool = os.open(self._folder / "stdout.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        write_whole(
            self._folder / "shim.json",
            {
                "pid": os.getpid(),
                "start_time": start_time(os.getpid()),
                "boot_id": boot_id(),
                "token": json.loads((self._folder / "spec.json").read_bytes())["token"],
            },
        )
        os.write(tell, b"ready")
        os.close(tell)
        launcher = subprocess.Popen(  # noqa: S603 - an argument list of the server's, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=spool,
            stderr=stderr,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - no thread runs here
        )
        os.close(spool)
        self._launcher = launcher.pid
        self._watch()
        self._kill_all()
        self._report()
        return 0

    def _ask_to_stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stop_asked = True

    def _watch(self) -> None:
        """Wait for the launcher's end, or for the end of the grace period after a stop."""
        asked: set[int] = set()
        deadline: float | None = None
        while self._launcher_status is None:
            self._reap()
            if self._stop_asked:
                deadline = deadline or time.monotonic() + self._grace
                for rank in self._ranks() - asked:
                    asked.add(rank)
                    _send(rank, signal.SIGTERM)
                if time.monotonic() >= deadline:
                    self._killed_after_grace = True
                    return
            time.sleep(_POLL_SECONDS)

    def _reap(self) -> None:
        """Take the status of every child that has ended: of the launcher, and of orphans that fell to us."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                if ended[0] == self._launcher:
                    self._launcher_status = ended[1]

    def _ranks(self) -> set[int]:
        """The processes that train: they run the module themselves, and their parent does not.

        A launcher names the module among its arguments too, and a data loader's worker is a copy of its rank.
        """
        family = descendants(os.getpid())
        training = {pid for pid in family if _runs(pid, self._module)}
        return {pid for pid in training if family[pid] not in training}

    def _kill_all(self) -> None:
        """Kill every descendant until none is left; one that forks meanwhile is met in the next round."""
        while family := descendants(os.getpid()):
            for pid in family:
                _send(pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
            self._reap()
        self._reap()

    def _report(self) -> None:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        status = self._launcher_status
        code = os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None
        number = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None
        if code and (match := _last_match(self._folder / "stderr.log")):
            number = int(match[1] or match[2])
        write_whole(
            self._folder / "exit.json",
            {
                "code": code,
                "signal": number,
                "stop_signalled": self._stop_asked,
                "killed_after_grace": self._killed_after_grace,
                "max_rss_kib": usage.ru_maxrss,
                "user_seconds": usage.ru_utime,
                "system_seconds": usage.ru_stime,
            },
        )


def boot_id() -> str:
    """The kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot: with the pid and the boot id it names one for ever.

    Raises:
        ProcessLookupError: there is no such process.
    """
    return int(_stat(pid)[19])


def write_whole(path: Path, record: dict[str, str | int | float | bool | None]) -> None:
    """Write a file that is there whole or not at all, also after a power loss."""
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _stat(pid: int) -> list[str]:
    """Fields 3 and on of /proc/PID/stat (proc(5)); the name before them may hold anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessLookupError(pid) from error
    return text.rpartition(")")[2].split()


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


def _send(pid: int, number: signal.Signals) -> None:
    """Signal a descendant, and nobody who got its pid meanwhile: the handle keeps it, a second look proves it."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if pid in descendants(os.getpid()):
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def _runs(pid: int, module: bytes) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    first = words.index(b"-m") if b"-m" in words else -1
    return words[first + 1 : first + 2] == [module]


def _last_match(path: Path) -> re.Match[bytes] | None:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        matches = list(_RANK_SIGNAL.finditer(file.read()))
    return matches[-1] if matches else None


def _die_with_parent() -> None:
    """Runs in the launcher before its program: without the shim nobody would hold the attempt together."""
    os.nice(_NICENESS)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
