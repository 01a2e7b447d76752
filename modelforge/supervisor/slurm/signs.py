"""What an attempt's folder shows of the attempt: who claimed it, whether it lives, how it ended.

Another machine writes these files, and they may be seen late: what is not there yet is no sign of anything. What is
there was written whole. No clock of another machine is compared with ours: only whether something changed.
"""

import contextlib
import os
import signal
from pathlib import Path

from msgspec import Struct

from modelforge.machine.hub_secrets import remove_secrets
from modelforge.supervisor.patient_reads import read_whole
from trainer_entry import wire

# As in trainer_entry.runtime.claim.
_CLAIM, _HEARTBEAT, _REVOKED, _STOP, _CHECKPOINT = "claim", "heartbeat", "revoked", "stop-asked", "checkpoint-asked"


class Claim(Struct, frozen=True, kw_only=True, gc=False):
    """Who runs the attempt: a Slurm job, how often it was started again, and the host of its first node."""

    slurm_id: int
    restarts: int
    host: str


class StepExit(wire.ExitReport, frozen=True, kw_only=True, gc=False):
    """`exit.json` of a step. `stop_signal`: the first signal that asked it to end. `spool_bytes`: all that was said.

    `failed_node`: the number of the node whose part had failed while the first node's went on.
    """

    stop_signal: int | None = None
    spool_bytes: int = 0
    failed_node: int | None = None

    @property
    def was_ended(self) -> bool:
        """Whether something asked it to end, or killed it."""
        return self.stop_signal is not None or self.signal == signal.SIGKILL

    def plain(self) -> wire.ExitReport:
        """As every attempt's end is reported."""
        return wire.ExitReport(**{name: getattr(self, name) for name in wire.ExitReport.__struct_fields__})


class _Step(Struct, frozen=True, kw_only=True, gc=False):
    nodes: int = 1


class Signs:
    """The signs of one attempt. All that is asked here reads files: for a thread, where a disk may be far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def spec(self) -> wire.AttemptSpec | None:
        """What was to be run; None where it was not written whole."""
        return read_whole(self.folder / "spec.json", wire.AttemptSpec)

    @property
    def claim(self) -> Claim | None:
        """Who runs it, or ran it; None where nobody has begun."""
        return read_whole(self.folder / _CLAIM, Claim)

    @property
    def exit(self) -> StepExit | None:
        """How it ended; None where nobody has said so."""
        return read_whole(self.folder / "exit.json", StepExit)

    @property
    def spool_bytes(self) -> int:
        """How much of the spool is to be seen. It is opened: that has a remote file looked at anew."""
        try:
            with (self.folder / "stdout.jsonl").open("rb") as spool:
                return os.fstat(spool.fileno()).st_size
        except FileNotFoundError:
            return 0

    @property
    def heartbeat(self) -> bytes:
        """Another one each second while it lives; empty before the first."""
        try:
            return (self.folder / _HEARTBEAT).read_bytes()
        except FileNotFoundError:
            return b""

    @property
    def stop_was_asked(self) -> bool:
        """Whether a server asked it to end."""
        return (self.folder / _STOP).exists()

    @property
    def nodes(self) -> int:
        """On how many nodes it runs."""
        step = read_whole(self.folder / "step.json", _Step)
        return 1 if step is None else step.nodes

    def ask_to_stop(self) -> None:
        """Leave word that it is to end; the step looks for it each second."""
        self._mark(_STOP)

    def ask_for_checkpoint(self) -> None:
        """Leave word that it is to save a checkpoint; the step takes it away as it asks for one."""
        self._mark(_CHECKPOINT)

    def revoke(self) -> None:
        """Give the attempt up: whoever runs it, or begins it later, leaves at once."""
        self._mark(_REVOKED)

    def give_up(self) -> None:
        """Revoke an attempt that nobody has begun, and take its secrets away."""
        self.revoke()
        remove_secrets(self.folder)

    def _mark(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # an attempt whose folder is gone has nobody to tell
            (self.folder / name).touch()
