"""The verbs of an attempt's life, whatever carries it out: a process on this machine, or a cluster."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from modelforge.domain.failure_causes import Cause
from modelforge.domain.job import Reference
from modelforge.domain.scheduling import Machine, Place
from trainer_entry import wire

Waits = Callable[[str], Awaitable[None]]
"""Is told why an attempt waits for its start, whenever that changes."""


class Ending(Struct, frozen=True, kw_only=True, gc=False):
    """How an attempt ended. `exit` is null where nobody was left to report it. `last_words`: of its stderr.

    `cause`: what the launcher knows of why it ended; null where that is to be concluded from the rest.
    """

    exit: wire.ExitReport | None
    last_words: str
    cause: Cause | None = None


class Launcher(Protocol):
    """Has attempts run, finds them again, stops them and sees them off; an attempt is a job's id and a number.

    `submit` or `find` comes first, or `know`, and `ending` last. Each may be cancelled, as at the end of the server:
    the attempt goes on, and the next server finds it.
    """

    def place(self, server: Machine) -> Place:
        """Where the attempts run. `server`: this machine, as the settings divide it."""

    async def submit(self, spec: wire.AttemptSpec) -> Reference:
        """Hand an attempt over, and say by what it is known; it may still wait for its start then.

        Raises:
            LaunchFailed: it was not taken; nothing of it is left.
        """

    async def find(self, job_id: str, attempt: int) -> Reference | None:
        """By what an attempt is known that was to be submitted; None if it never was. Waits until that is certain."""

    def know(self, job_id: str, attempt: int, reference: Reference) -> None:
        """Learn what the log has of an attempt that an earlier server submitted.

        Raises:
            SettingsInvalid: it is of another launcher.
        """

    async def started(self, job_id: str, attempt: int, waits: Waits) -> bool:
        """Wait for the attempt's start. False where it ended before that: it never will.

        It is true of one that has ended since, too.
        """

    async def stop(self, job_id: str, attempt: int) -> None:
        """Ask an attempt to save a checkpoint and end; one that waits never starts, one that ended is left."""

    async def save_checkpoint(self, job_id: str, attempt: int) -> None:
        """Ask an attempt to save a checkpoint and go on; one that waits or has ended is left alone."""

    async def wait(self, job_id: str, attempt: int) -> None:
        """Return once no process of the attempt is left, nor can come."""

    async def ending(self, job_id: str, attempt: int) -> Ending:
        """How an attempt ended that is gone. Nothing is asked of it afterwards."""

    def spool(self, job_id: str, attempt: int) -> Path:
        """The file that holds the attempt's messages, once there are any."""
