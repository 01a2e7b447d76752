"""The processes of one attempt, held together by the one above them: started, asked, killed, and reported on.

Standard library only: what holds them stands beside a training for hours, in a few megabytes.
"""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from trainer_entry.runtime.disk import FULL
from trainer_entry.runtime.proc import count_oom_kills, descendants, runs, send
from trainer_entry.runtime.shim_files import signal_told, write_whole

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_NICENESS = 10  # a trainer at 0 beside the server costs it an order of magnitude in append latency
_OOM_SCORE = 500  # the kernel, out of memory, is to end a trainer rather than anything else of its owner's
_POLL_SECONDS = 0.05
_RETRY_SECONDS = 1.0
_LONGEST_STOP_WAIT = 5
_OOM_WINDOW_SECONDS = 3.0  # a launcher reports its rank's death a second later
ERROR = 1
_SIGNALLED = 128
"""What a program that runs another one adds to the number of the signal by which that ended (bwrap(1))."""
_SECRET_FILES = (
    "hub-token",
    "proxies.json",
    "trackers.json",
)  # as in the wire, which is not read here: it takes msgspec
SPOOL, LOG = "stdout.jsonl", "stderr.log"

_libc = ctypes.CDLL(None, use_errno=True)


class ProcessTree:
    """What an attempt starts, in the process that is the subreaper of all of it.

    `folder`: the attempt's, or another one until it has one. `log`: what its stderr is called there. `ignored`: signals
    that the launcher is to take no notice of, beside SIGUSR1. `is_step`: of a cluster, which signals every process
    itself. That it is to end a rank may have missed then, and it is told each second; SIGUSR1 it has heard.
    """

    def __init__(
        self,
        folder: Path,
        grace: float,
        module: str,
        *,
        log: str = LOG,
        ignored: Sequence[signal.Signals] = (),
        is_step: bool = False,
    ) -> None:
        self.folder = folder
        self.grace = grace
        self._module = module.encode()
        self._log = log
        self._ignored = (signal.SIGUSR1, *ignored)
        self._is_step = is_step
        self.stop_signal: int | None = None
        self.launcher_status: int | None = None
        self._checkpoint_asked = False
        self._killed_after_grace = False
        self._launcher = 0
        self._held: subprocess.Popen[bytes] | None = None
        self._is_wrapped = False
        self._oom_kills = self._oom_kills_before = count_oom_kills()
        self._counted_at = time.monotonic()

    def listen(self, *stops: signal.Signals) -> None:
        """Hear what is asked from now on: before anything is started, so that a stop that comes at once is not lost."""
        for number in stops:
            signal.signal(number, self._ask_to_stop)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN if self._is_step else self._note_checkpoint)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def open_log(self) -> int:
        """The log, made and open."""
        return os.open(self.folder / self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def open_spool(self) -> int:
        """The spool, made and open."""
        return os.open(self.folder / SPOOL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def begin_attempt(self, folder: Path, grace: float) -> None:
        """Be those of an attempt from now on."""
        self.folder, self.grace = folder, grace
        self._oom_kills = self._oom_kills_before = count_oom_kills()
        self._counted_at = time.monotonic()

    def start(
        self,
        command: list[str],
        spool: int,
        log: int,
        stdin: int = subprocess.DEVNULL,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the launcher; one that cannot be started is one that ended with an error."""
        self._is_wrapped = Path(command[0]).name == "bwrap"
        os.dup2(log, 2)
        with open(os.devnull, "r+b") as null:  # noqa: PTH123 - a device, not a path of ours
            os.dup2(null.fileno(), 0)
            os.dup2(null.fileno(), 1)
        try:
            launcher = subprocess.Popen(  # noqa: S603 - an argument list of the server's, no shell
                command,
                stdin=stdin,
                stdout=spool,
                stderr=log,
                env=environment,
                preexec_fn=self._prepare_launcher,  # noqa: PLW1509 - no thread runs here
            )
        except (OSError, subprocess.SubprocessError) as error:
            sys.stderr.write(f"The launcher could not be started: {error}\n")
            self.launcher_status = ERROR << 8  # as of a launcher that ended with it
        else:
            self._launcher = launcher.pid
            self._held = launcher  # once it is let go of, it takes the status of one that has ended itself

    @property
    def is_over(self) -> bool:
        """Whether a stop was asked for, or the launcher has ended."""
        self.reap()
        return self.stop_signal is not None or self.launcher_status is not None

    def watch(self, is_given_up: Callable[[], bool] = lambda: False) -> None:
        """Wait for the launcher's end, for the end of the grace period after a stop, or until it is given up.

        `is_given_up` is asked at each look, twenty times a second.
        """
        asked: set[int] = set()
        asked_at = deadline = 0.0
        while self.launcher_status is None and not is_given_up():
            self.reap()
            now = time.monotonic()
            if now - self._counted_at > _OOM_WINDOW_SECONDS:
                self._counted_at = now
                self._oom_kills_before, self._oom_kills = self._oom_kills, count_oom_kills()
            if self._checkpoint_asked:
                self._checkpoint_asked = False
                self.ask_for_checkpoint()
            if self.stop_signal is not None:
                deadline = deadline or now + self.grace
                if self._is_step and now > asked_at + _RETRY_SECONDS:
                    asked_at = now
                    asked.clear()
                for rank in self._ranks() - asked:
                    asked.add(rank)
                    send(rank, signal.SIGTERM)
                if now >= deadline:
                    self._killed_after_grace = True
                    return
            time.sleep(_POLL_SECONDS)

    def ask_to_stop(self, number: int = signal.SIGTERM) -> None:
        """Ask the ranks to end, as a signal does; `number`: the one that it is to count as."""
        if self.stop_signal is None:
            self.stop_signal = number

    def ask_for_checkpoint(self) -> None:
        """Ask the ranks for a checkpoint."""
        for rank in self._ranks():
            send(rank, signal.SIGUSR1)

    def _ask_to_stop(self, number: int, _frame: FrameType | None) -> None:
        self.ask_to_stop(number)

    def _note_checkpoint(self, _signal: int, _frame: FrameType | None) -> None:
        self._checkpoint_asked = True

    def reap(self) -> None:
        """Take the status of every child that has ended: of the launcher, and of orphans that fell to us."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                if ended[0] == self._launcher:
                    self.launcher_status = ended[1]

    def _ranks(self) -> set[int]:
        """The processes that train: they run the module themselves, and their parent does not.

        A launcher names the module among its arguments too, and a data loader's worker is a copy of its rank.
        """
        family = descendants(os.getpid())
        training = {pid for pid in family if runs(pid, self._module)}
        return {pid for pid in training if family[pid] not in training}

    def kill_all(self) -> None:
        """Kill every descendant until none is left; one that forks meanwhile is met in the next round."""
        while family := descendants(os.getpid()):
            for pid in family:
                send(pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
            self.reap()
        self.reap()

    def remove_secrets(self) -> None:
        """Take the files of secrets away; the server does too."""
        with contextlib.suppress(OSError):
            for name in _SECRET_FILES:
                (self.folder / name).unlink(missing_ok=True)

    def report(self, **more: int | None) -> None:
        """Say how it ended (`exit.json`), with `more` beside what is said of every attempt."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        status = self.launcher_status
        code = os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None
        number = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None
        if code and code > _SIGNALLED and self._is_wrapped:
            number, code = code - _SIGNALLED, None
        if code:
            number = signal_told(self.folder / self._log)
        report: dict[str, str | int | float | bool | None] = {
            "code": code,
            "signal": number,
            "stop_signalled": self.stop_signal is not None,
            "killed_after_grace": self._killed_after_grace,
            "max_rss_kib": usage.ru_maxrss,
            "user_seconds": usage.ru_utime,
            "system_seconds": usage.ru_stime,
            "oom_kills": count_oom_kills() - self._oom_kills_before,
            **more,
        }
        stop_waits = 0
        while stop_waits < _LONGEST_STOP_WAIT:
            try:
                return write_whole(self.folder / "exit.json", report)
            except OSError as error:
                if error.errno not in FULL:
                    raise
            time.sleep(_RETRY_SECONDS)  # a full disk can be emptied, and then the cause is known
            stop_waits += self.stop_signal is not None  # but somebody may wait for the machine
        return None

    def _prepare_launcher(self) -> None:
        """Runs in the launcher before its program."""
        os.nice(_NICENESS)
        with contextlib.suppress(OSError):  # where it may not be said, the kernel chooses
            Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
        for number in self._ignored:  # until a rank listens, a request for a checkpoint would end it
            signal.signal(number, signal.SIG_IGN)
        die_with_parent()  # without the shim nobody would hold the attempt together


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
