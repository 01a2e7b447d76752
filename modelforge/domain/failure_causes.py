"""Why an attempt ended without a result, as far as it is known."""

import signal
from typing import assert_never

import msgspec
from msgspec import Struct

from trainer_entry import wire

RETRIED = frozenset(
    {"Killed", "Crashed", "Interrupted", "LostPower", "AcceleratorError", "Preempted", "TimeLimit", "NodeFailed"}
)
"""Causes that another try may not meet again; the same settings meet a bug or too little memory every time.

`AcceleratorError` is what torch raises for a GPU that failed.
"""
_SEEN_AFTERWARDS = frozenset({"LostPower"})
"""What a launcher concludes from what it finds, and was not told: what the trainer said of itself counts more."""

LESS = (
    "Less memory is needed with a smaller per_device_train_batch_size or max_seq_length, with gradient_checkpointing, "
    "or with the strategy qlora."
)


_INTERRUPTED = "Something other than this server asked the trainer to end, as a machine does that shuts down"


class Cause(Struct, frozen=True, kw_only=True, gc=False):
    """Kinds: `OutOfMemory DiskFull Killed Crashed Interrupted LostPower LaunchFailed`, or an exception's type.

    A cluster has `Preempted TimeLimit NodeFailed` beside these.
    """

    kind: str
    message: str
    traceback: str = ""


LOST_POWER = Cause(kind="LostPower", message="The machine was started anew, or lost power, while the trainer ran.")


def cause_of(
    word: wire.TrainerFailed | wire.TrainerStopped | None,
    report: wire.ExitReport | None,
    last_words: str,
    *,
    known: Cause | None,
    trains: bool = True,
) -> Cause:
    """The cause: what the launcher was told, else what the trainer said itself, the shim saw, or is left to conclude.

    `known`: by the launcher. `word`: of a trainer that nobody here asked to stop. `report` is null where even the shim
    was gone; `last_words` are of the attempt's log. Work that does not train needs the memory that it needs.
    """
    told = known if known is not None and known.kind not in _SEEN_AFTERWARDS else None
    match word:
        case wire.TrainerStopped(step=step) if told is not None:
            return msgspec.structs.replace(told, message=f"{told.message} It ended at step {step}.")
        case wire.TrainerFailed() if told is not None:
            return told
        case wire.TrainerFailed(kind=kind, message=message, traceback=traceback):
            text = f"{message} {LESS}" if kind == "OutOfMemory" and trains else message
            return Cause(kind=kind, message=text, traceback=traceback)
        case wire.TrainerStopped(step=step):
            return Cause(kind="Interrupted", message=f"{_INTERRUPTED}; it ended at step {step}.")
        case None:
            kind, message = _without_a_word(report) if known is None else (known.kind, known.message)
            if not trains:
                message = message.removesuffix(LESS).rstrip()
            tail = f" Last lines of its log: {last_words}" if last_words else ""
            return Cause(kind=kind, message=message + tail)
        case _:
            assert_never(word)


def _without_a_word(report: wire.ExitReport | None) -> tuple[str, str]:
    match report:
        case None:
            return "Killed", "The trainer's supervising process was killed, and its processes with it."
        case wire.ExitReport(killed_after_grace=True):
            return "Interrupted", f"{_INTERRUPTED}; it did not in time, and was killed."
        case wire.ExitReport(signal=9, oom_kills=kills) if kills > 0:
            reached = f"it had reached {report.max_rss_kib // 1024} MiB"
            return "OutOfMemory", f"The kernel killed the trainer, as the machine had no memory left; {reached}. {LESS}"
        case wire.ExitReport(signal=9):
            return "Killed", "The trainer was killed by signal 9 that nobody here sent: probably out of memory."
        case wire.ExitReport(signal=signal.SIGVTALRM):
            return "ChatTemplateFails", "The model's chat template never ended, and could not be interrupted."
        case wire.ExitReport(signal=None, code=code):
            return "Crashed", f"The trainer ended with exit code {code} without a last word."
        case wire.ExitReport(signal=number):
            return "Crashed", f"The trainer died by signal {number}."
        case _:
            assert_never(report)
