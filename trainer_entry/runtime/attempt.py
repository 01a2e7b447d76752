"""The frame of an attempt: its spec is read, it is run, and its last word is sent, whatever happens."""

import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from trainer_entry.runtime import distributed
from trainer_entry.runtime.claim import CLAIM_VARIABLE
from trainer_entry.runtime.failures import kind_of, message_of
from trainer_entry.runtime.process_tree import die_with_parent
from trainer_entry.runtime.secrets import claim_secrets, redact
from trainer_entry.runtime.signals import Signals
from trainer_entry.runtime.stdout import LineWriter, Wire, claim_stdout, note
from trainer_entry.wire import AttemptSpec, TrainerFailed, TrainerStopped

_TRACEBACK_CHARACTERS = 16_384
_ENDED_BY_LAUNCHER_SECONDS = 5.0  # it looks ten times a second
_NODE_LOST = (
    "A process on another node is no longer reached: it ended without a word, or its node or the network did. "
    "What it said last is in stderr-NODE.log, in the attempt's folder."
)


class Stopped(Exception):
    """The attempt was asked to end, and did: after `step`, with `checkpoint` to go on from, if there is one."""

    def __init__(self, step: int, checkpoint: str | None) -> None:
        super().__init__(f"Stopped after step {step}.")
        self.step = step
        self.checkpoint = checkpoint


def resumed_step(spec: AttemptSpec) -> int:
    """The step of the checkpoint that the attempt was to go on from; its folder is called checkpoint-STEP."""
    number = Path(spec.resume_from or "").name.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


class Begun(Struct, frozen=True, gc=False):
    """An attempt whose spec is read, and which hears when it is to end."""

    spec: AttemptSpec
    folder: Path
    wire: Wire
    signals: Signals


def run_attempt(attempt_dir: str, run: Callable[[AttemptSpec, Path, Wire, Signals], None]) -> int:
    """Run the attempt that `attempt_dir` describes, and report how it ended; the exit code."""
    lines = LineWriter(claim_stdout())  # before any import that could print
    claim_secrets()
    return conduct(begin(Path(attempt_dir), lines), run)


def begin(folder: Path, lines: LineWriter) -> Begun:
    """Read what an attempt is to do, and listen for its end from now on."""
    spec = msgspec.json.decode((folder / "spec.json").read_bytes(), type=AttemptSpec)
    if CLAIM_VARIABLE in os.environ:  # on a cluster nobody sweeps what a killed launcher leaves
        die_with_parent()
    wire = Wire(lines, speaks=distributed.rank() == 0)
    signals = Signals(
        before_training=lambda: _report_stopped(wire, spec, resumed_step(spec), spec.resume_from),
        left_alone=lambda: distributed.another_ended() and _report_other_failure(wire, folder),
    )
    signals.listen()
    return Begun(spec, folder, wire, signals)


def conduct(begun: Begun, run: Callable[[AttemptSpec, Path, Wire, Signals], None]) -> int:
    """Run an attempt to its end, and report it; the exit code."""
    spec, folder, wire = begun.spec, begun.folder, begun.wire
    try:
        run(spec, folder, wire, begun.signals)
    except Stopped as stop:
        _report_stopped(wire, spec, stop.step, stop.checkpoint)
    except BaseException as error:  # noqa: BLE001 - nothing is swallowed: the wire gets all of it
        note(traceback.format_exc())
        _report_failure(wire, spec, folder, error)
        return 1
    return 0


def _report_stopped(wire: Wire, spec: AttemptSpec, step: int, checkpoint: str | None) -> None:
    wire.send(lambda seq: TrainerStopped(attempt=spec.attempt, seq=seq, messages=seq, step=step, checkpoint=checkpoint))


def _report_failure(wire: Wire, spec: AttemptSpec, folder: Path, error: BaseException) -> None:
    if distributed.lost_contact(error):
        if distributed.another_ended():
            if distributed.word_of_another(folder) is None:  # it was killed: the first to go is what the launcher names
                time.sleep(_ENDED_BY_LAUNCHER_SECONDS)
            _report_other_failure(wire, folder)
            return
        if distributed.spans_nodes():
            lost = TrainerFailed(
                attempt=spec.attempt, seq=0, messages=0, kind="NodeFailed", message=_NODE_LOST, traceback=""
            )
            word = distributed.word_of_another(folder) or lost
            _send_failure(wire, word)
            return
    lines = redact("".join(traceback.format_exception(error)))[-_TRACEBACK_CHARACTERS:]
    word = TrainerFailed(
        attempt=spec.attempt, seq=0, messages=0, kind=kind_of(error), message=message_of(error), traceback=lines
    )
    if distributed.rank() > 0:
        distributed.leave_word(folder, word)
    _send_failure(wire, word)


def _send_failure(wire: Wire, word: TrainerFailed) -> None:
    wire.send(lambda seq: msgspec.structs.replace(word, seq=seq, messages=seq))


def _report_other_failure(wire: Wire, folder: Path) -> bool:
    """Why another process failed, if it said so. Of one that was killed the shim reports."""
    word = distributed.word_of_another(folder)
    if word is not None:
        _send_failure(wire, word)
    return True
