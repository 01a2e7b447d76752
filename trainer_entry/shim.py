"""Holds one attempt's processes together and outlives the server.

    python -m trainer_entry.shim FOLDER GRACE MODULE CMD…
    python -m trainer_entry.shim --standby FOLDER MODULE CMD…

It detaches from its caller, becomes the subreaper of everything that the attempt starts, says who it is
(`shim.json`), runs the command with stdout on the spool and stderr on the log, and at the end, once no
descendant is left, says how it went (`exit.json`). SIGTERM asks the ranks (the processes that run MODULE) to
end; whoever is left after GRACE seconds is killed. SIGUSR1 asks them to save a checkpoint. It ends with 0 once
`shim.json` is there, and otherwise with the number of the error that was in the way.

With `--standby` the command is started ahead of an attempt, which comes as one line of JSON by the socket that stdin
is: then the files move into the attempt's folder, and everything is as above. Where the socket ends first, all ends.

Standard library only: it stands beside a training for hours, in a few megabytes.
"""

import contextlib
import ctypes
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from trainer_entry.runtime.disk import FULL
from trainer_entry.runtime.orders import await_order
from trainer_entry.runtime.proc import boot_id, count_oom_kills, descendants, runs, send, start_time
from trainer_entry.runtime.shim_files import signal_told, write_whole

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_NICENESS = 10  # a trainer at 0 beside the server costs it an order of magnitude in append latency
_OOM_SCORE = 500  # the kernel, out of memory, is to end a trainer rather than anything else of its owner's
_POLL_SECONDS = 0.05
_RETRY_SECONDS = 1.0
_LONGEST_STOP_WAIT = 5
_OOM_WINDOW_SECONDS = 3.0  # a launcher reports its rank's death a second later
_ERROR = 1
_SIGNALLED = 128
"""What a program that runs another one adds to the number of the signal by which that ended (bwrap(1))."""
_SECRET_FILES = (
    "hub-token",
    "proxies.json",
    "trackers.json",
)  # as in the wire, which is not read here: it takes msgspec
_STANDBY = "--standby"  # as in the wire too
_SPOOL, _LOG = "stdout.jsonl", "stderr.log"

_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> int:
    """Detach, and return to the caller once `shim.json` is on the disk; the detached process goes on."""
    stands_by = arguments[0] == _STANDBY
    folder, grace, module, *command = [arguments[1], "0", *arguments[2:]] if stands_by else arguments
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # what the server's event loop left open: it waits for its end
    ready, report_end = os.pipe()
    if os.fork() > 0:
        os.close(report_end)
        with os.fdopen(ready, "rb") as pipe:
            word = pipe.read()
        return 0 if word == b"ready" else int(word or _ERROR)
    os.close(ready)
    os.setsid()
    os.umask(0o077)
    shim = _Shim(Path(folder), float(grace), module)
    try:
        spool, stderr = shim.begin()
        if not stands_by:
            shim.say_who()
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        os.write(report_end, str(error.errno).encode())
        os._exit(_ERROR)
    os.write(report_end, b"ready")
    os.close(report_end)
    if stands_by:
        with socket.socket(fileno=os.dup(0)) as server:
            if not shim.stand_by(command, spool, stderr, server):
                os._exit(0)
    else:
        shim.start(command, spool, stderr)
    os._exit(shim.see_off())


class _Shim:
    """The detached process."""

    def __init__(self, folder: Path, grace: float, module: str) -> None:
        self._folder = folder
        self._grace = grace
        self._module = module.encode()
        self._stop_asked = False
        self._checkpoint_asked = False
        self._killed_after_grace = False
        self._launcher = 0
        self._is_wrapped = False
        self._launcher_status: int | None = None
        self._oom_kills = self._oom_kills_before = count_oom_kills()
        self._counted_at = time.monotonic()

    def begin(self) -> tuple[int, int]:
        """Make the files; the spool and the log are given back, open."""
        # Before anything is started: a stop that comes at once is not lost.
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        signal.signal(signal.SIGUSR1, self._ask_for_checkpoint)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        stderr = os.open(self._folder / _LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        spool = os.open(self._folder / _SPOOL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return spool, stderr

    def say_who(self) -> None:
        """Write into the attempt's folder who runs it."""
        write_whole(
            self._folder / "shim.json",
            {
                "pid": os.getpid(),
                "start_time": start_time(os.getpid()),
                "boot_id": boot_id(),
                "token": json.loads((self._folder / "spec.json").read_bytes())["token"],
            },
        )

    def stand_by(self, command: list[str], spool: int, stderr: int, server: socket.socket) -> bool:
        """Start a trainer ahead, and hand it the attempt that the server names; without one nothing is left."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self.start(command, spool, stderr, stdin=theirs.fileno())
            order = await_order(server, ours, self._is_over)
            if order is not None and self._take_up(json.loads(order), server):
                with contextlib.suppress(OSError):  # a trainer that has just ended; its end is reported
                    ours.sendall(order)
                return True
        failed = self._launcher_status is not None  # the server reads why, and clears up
        self._kill_all()
        for name in (_SPOOL,) if failed else (_SPOOL, _LOG):
            (self._folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the next server sweeps too
            self._folder.rmdir()
        return False

    def _is_over(self) -> bool:
        self._reap()
        return self._stop_asked or self._launcher_status is not None

    def _take_up(self, order: dict[str, str], server: socket.socket) -> bool:
        """Be the shim of an attempt from now on, and say so to the server; or that it cannot be, and why."""
        folder, before = Path(order["folder"]), self._folder
        try:
            for name in (_SPOOL, _LOG):
                if (folder / name).exists():
                    raise FileExistsError(errno.EEXIST, "a file of the attempt is there")
                (before / name).rename(folder / name)
            self._folder = folder
            self.say_who()
        except OSError as error:
            self._folder = before
            with contextlib.suppress(OSError):
                server.sendall(f"{error.errno}\n".encode())
            return False
        self._grace = float(order["grace_seconds"])
        self._oom_kills = self._oom_kills_before = count_oom_kills()
        self._counted_at = time.monotonic()
        with contextlib.suppress(OSError):
            before.rmdir()
        with contextlib.suppress(OSError):  # a server that is gone: the next one finds the attempt
            server.sendall(b"ready\n")
        return True

    def start(self, command: list[str], spool: int, stderr: int, stdin: int = subprocess.DEVNULL) -> None:
        """Start the launcher."""
        self._is_wrapped = Path(command[0]).name == "bwrap"
        os.dup2(stderr, 2)
        with open(os.devnull, "r+b") as null:  # noqa: PTH123 - a device, not a path of ours
            os.dup2(null.fileno(), 0)
            os.dup2(null.fileno(), 1)
        try:
            launcher = subprocess.Popen(  # noqa: S603 - an argument list of the server's, no shell
                command,
                stdin=stdin,
                stdout=spool,
                stderr=stderr,
                preexec_fn=_prepare_launcher,  # noqa: PLW1509 - no thread runs here
            )
        except (OSError, subprocess.SubprocessError) as error:
            sys.stderr.write(f"The launcher could not be started: {error}\n")
            self._launcher_status = _ERROR << 8  # as of a launcher that ended with it
        else:
            self._launcher = launcher.pid
        os.close(spool)

    def see_off(self) -> int:
        """Wait for the attempt's end, and report it."""
        self._watch()
        self._kill_all()
        with contextlib.suppress(OSError):  # the server takes them away too
            for name in _SECRET_FILES:
                (self._folder / name).unlink(missing_ok=True)
        self._report()
        return 0

    def _ask_to_stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stop_asked = True

    def _ask_for_checkpoint(self, _signal: int, _frame: FrameType | None) -> None:
        self._checkpoint_asked = True

    def _watch(self) -> None:
        """Wait for the launcher's end, or for the end of the grace period after a stop."""
        asked: set[int] = set()
        deadline: float | None = None
        while self._launcher_status is None:
            self._reap()
            if time.monotonic() - self._counted_at > _OOM_WINDOW_SECONDS:
                self._counted_at = time.monotonic()
                self._oom_kills_before, self._oom_kills = self._oom_kills, count_oom_kills()
            if self._checkpoint_asked:
                self._checkpoint_asked = False
                for rank in self._ranks():
                    send(rank, signal.SIGUSR1)
            if self._stop_asked:
                deadline = deadline or time.monotonic() + self._grace
                for rank in self._ranks() - asked:
                    asked.add(rank)
                    send(rank, signal.SIGTERM)
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
        training = {pid for pid in family if runs(pid, self._module)}
        return {pid for pid in training if family[pid] not in training}

    def _kill_all(self) -> None:
        """Kill every descendant until none is left; one that forks meanwhile is met in the next round."""
        while family := descendants(os.getpid()):
            for pid in family:
                send(pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
            self._reap()
        self._reap()

    def _report(self) -> None:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        status = self._launcher_status
        code = os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None
        number = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None
        if code and code > _SIGNALLED and self._is_wrapped:
            number, code = code - _SIGNALLED, None
        if code:
            number = signal_told(self._folder / _LOG)
        report: dict[str, str | int | float | bool | None] = {
            "code": code,
            "signal": number,
            "stop_signalled": self._stop_asked,
            "killed_after_grace": self._killed_after_grace,
            "max_rss_kib": usage.ru_maxrss,
            "user_seconds": usage.ru_utime,
            "system_seconds": usage.ru_stime,
            "oom_kills": count_oom_kills() - self._oom_kills_before,
        }
        stop_waits = 0
        while stop_waits < _LONGEST_STOP_WAIT:
            try:
                return write_whole(self._folder / "exit.json", report)
            except OSError as error:
                if error.errno not in FULL:
                    raise
            time.sleep(_RETRY_SECONDS)  # a full disk can be emptied, and then the cause is known
            stop_waits += self._stop_asked  # but somebody may wait for the machine
        return None


def _prepare_launcher() -> None:
    """Runs in the launcher before its program."""
    os.nice(_NICENESS)
    with contextlib.suppress(OSError):  # where it may not be said, the kernel chooses
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until a rank listens, a request for a checkpoint would end it
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # without the shim nobody would hold the attempt together


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
