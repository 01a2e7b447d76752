"""An end to what a stranger's program does in this process: a chat template that never ends, or eats memory.

Time is the processor's, so that a busy machine fails nobody. A signal ends what Python runs; what hangs in C, where no
signal is looked at, the system ends with the whole process a little later. Standard library only.
"""

import contextlib
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import FrameType

RECORD_SECONDS = 10.0
"""What the template may take of the processor for one record, all its turns together."""
PREVIEW_SECONDS = 4.0
"""The same in a preview, for which somebody waits."""
_MEMORY = 1 << 30
_AGAIN_SECONDS = 1.0
_LATELY_SECONDS = 0.1
_GRACE_SECONDS = 2.0
_SHORTEST = 0.01  # a timer of 0 is none
_DATA_FIELD = 5  # of /proc/self/statm, in pages
_PAGE = resource.getpagesize()


class OutOfBounds(Exception):
    """It took more time or memory than it may; the message says of what."""


class _TimeIsOver(BaseException):
    """Raised in the middle of a program; no `except Exception` of it holds it."""


class _Allowance:
    """The seconds that are left, for all that is run in one block."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.left = seconds


_allowance: ContextVar[_Allowance | None] = ContextVar("allowance", default=None)


@contextlib.contextmanager
def time_for(seconds: float) -> Iterator[None]:
    """All that is bounded in the block takes no more seconds of the processor together."""
    token = _allowance.set(_Allowance(seconds))
    try:
        yield
    finally:
        _allowance.reset(token)


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Run a stranger's program in the block, with so much time as is left for it, and a gigabyte of memory.

    Raises:
        OutOfBounds: it took more.
    """
    allowance = _allowance.get() or _Allowance(RECORD_SECONDS)
    if allowance.left <= 0:
        raise _too_slow(allowance)
    timed = threading.current_thread() is threading.main_thread()  # no signal is handled elsewhere
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = _allocated.lately() + _MEMORY
    try:
        if soft == resource.RLIM_INFINITY or most < soft:
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
        if timed:
            _alarm.arm(allowance.left)
        yield
    except _TimeIsOver as over:
        _alarm.disarm()  # before anything else, as it comes again
        raise _too_slow(allowance) from over
    except MemoryError as error:
        raise OutOfBounds(f"it takes more than {_MEMORY >> 20} MiB of memory") from error
    finally:
        if timed:
            allowance.left = _alarm.disarm()
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _too_slow(allowance: _Allowance) -> OutOfBounds:
    return OutOfBounds(f"it takes more than {allowance.seconds:g} s, and may never end")


class _Alarm:
    """Interrupts the main thread; its handler stays, as a signal may come late."""

    def __init__(self) -> None:
        self._armed = self._handles = self._over = False
        self._left = 0.0

    def arm(self, seconds: float) -> None:
        if not self._handles:
            signal.signal(signal.SIGPROF, self._interrupt)
            signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
            self._handles = True
        self._over = False
        self._armed = True
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds + _GRACE_SECONDS)
        signal.setitimer(signal.ITIMER_PROF, max(_SHORTEST, seconds), _AGAIN_SECONDS)

    def disarm(self) -> float:
        """What is left of the time."""
        if self._armed:
            self._armed = False
            self._left, _ = signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            if self._over:
                self._left = 0.0
        return self._left

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._armed:
            self._over = True
            raise _TimeIsOver


_alarm = _Alarm()


class _Allocated:
    """What this process has allocated for itself, as the limit counts it."""

    def __init__(self) -> None:
        self._known = 0
        self._at = -_LATELY_SECONDS

    def lately(self) -> int:
        """In the last tenth of a second: to ask takes as long as to write a short record."""
        now = time.monotonic()
        if now - self._at > _LATELY_SECONDS:
            self._at, self._known = now, self.now()
        return self._known

    def now(self) -> int:
        return int(Path("/proc/self/statm").read_text().split()[_DATA_FIELD]) * _PAGE


_allocated = _Allocated()


def limit_memory(more: int) -> None:
    """Hold this process to what it has allocated until now, and so many bytes more, until it is told another number."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = _allocated.now() + more
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


@contextlib.contextmanager
def ended_by_system(seconds: float) -> Iterator[None]:
    """Have the system end this process if the block takes longer, whatever it hangs in."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def go_first() -> None:
    """Where memory ends, the kernel takes this process before any other, a training's above all."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
