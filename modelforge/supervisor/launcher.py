"""The verbs of an attempt's life, whatever carries it out: a process on this machine, or elsewhere."""

from typing import Protocol

from msgspec import Struct

from trainer_entry import wire


class Ending(Struct, frozen=True, kw_only=True, gc=False):
    """How an attempt ended. `exit` is null where nobody was left to report it. `last_words`: of its stderr.

    `rebooted`: the machine was started anew since the attempt was.
    """

    exit: wire.ExitReport | None
    last_words: str
    rebooted: bool = False


class Launcher(Protocol):
    """Starts, finds, stops and sees off attempts. An attempt is named by its job and its number."""

    async def launch(self, spec: wire.AttemptSpec) -> wire.ShimReport:
        """Start an attempt, and say who runs it.

        Raises:
            LaunchFailed: it could not be started; nothing of it is left.
        """

    async def adopt(self, job_id: str, attempt: int) -> wire.ShimReport | None:
        """Who runs, or ran, an attempt that was to be launched; None if it never was."""

    async def stop(self, shim: wire.ShimReport) -> None:
        """Ask an attempt to save a checkpoint and end; one that has ended is left alone."""

    async def save_checkpoint(self, shim: wire.ShimReport) -> None:
        """Ask an attempt to save a checkpoint and go on; one that has ended is left alone."""

    async def wait(self, shim: wire.ShimReport) -> None:
        """Return once no process of the attempt is left."""

    async def ending(self, job_id: str, attempt: int, shim: wire.ShimReport) -> Ending:
        """How an attempt ended that is gone."""

    def spool(self, job_id: str, attempt: int) -> str:
        """The file that holds the attempt's messages."""
