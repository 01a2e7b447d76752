"""Why an attempt ended without a result, as far as it is known."""

from typing import assert_never

from msgspec import Struct

from trainer_entry import wire

RETRIED = frozenset({"Killed", "Crashed", "LostPower", "AcceleratorError"})
"""Causes that another try may not meet again; the same settings meet a bug or too little memory every time.

`AcceleratorError` is what torch raises for a GPU that failed.
"""


LESS = (
    "Less memory is needed with a smaller per_device_train_batch_size or max_seq_length, with gradient_checkpointing, "
    "or with the strategy qlora."
)


class Cause(Struct, frozen=True, kw_only=True, gc=False):
    """`kind`: `OutOfMemory`, `DiskFull`, `Killed`, `Crashed`, `LostPower`, `LaunchFailed`, or an exception's type."""

    kind: str
    message: str
    traceback: str = ""


def cause_of(
    word: wire.TrainerFailed | None, report: wire.ExitReport | None, last_words: str, *, rebooted: bool
) -> Cause:
    """The cause: what the trainer said itself, else what the shim saw, else what is left to conclude.

    `report` is null where even the shim was gone; `last_words` are of the attempt's log.
    """
    if word is not None:
        message = f"{word.message} {LESS}" if word.kind == "OutOfMemory" else word.message
        return Cause(kind=word.kind, message=message, traceback=word.traceback)
    kind, message = _without_a_word(report, rebooted=rebooted)
    tail = f" Last lines of its log: {last_words}" if last_words else ""
    return Cause(kind=kind, message=message + tail)


def _without_a_word(report: wire.ExitReport | None, *, rebooted: bool) -> tuple[str, str]:
    match report:
        case None if rebooted:
            return "LostPower", "The machine was started anew, or lost power, while the trainer ran."
        case None:
            return "Killed", "The trainer's supervising process was killed, and its processes with it."
        case wire.ExitReport(signal=9, oom_kills=kills) if kills > 0:
            reached = f"it had reached {report.max_rss_kib // 1024} MiB"
            return "OutOfMemory", f"The machine had no memory left and the kernel killed the trainer; {reached}. {LESS}"
        case wire.ExitReport(signal=9):
            return "Killed", "The trainer was killed by signal 9 that nobody here sent: probably out of memory."
        case wire.ExitReport(signal=None, code=code):
            return "Crashed", f"The trainer ended with exit code {code} without a last word."
        case wire.ExitReport(signal=number):
            return "Crashed", f"The trainer died by signal {number}."
        case _:
            assert_never(report)
