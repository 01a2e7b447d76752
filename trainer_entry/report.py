"""Tells one tracker the figures of one attempt at a training.

    python -m trainer_entry.report TRACKER FOLDER

It reads lines (trainer_entry/trackers/lines.py) from standard input until one says that the attempt ends, or until
there is no more, and answers with one line on standard output. What else prints goes to stderr. The tracker's own
files lie in FOLDER, which the attempts of a job share. The exit code is 0 after RunClosed, 1 after RunFailed.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import msgspec

from trainer_entry.runtime.failures import message_of
from trainer_entry.runtime.secrets import claim_secrets, claim_tracker
from trainer_entry.runtime.stdout import claim_stdout, note
from trainer_entry.trackers.lines import AnyTold, CloseRun, LogFigures, OpenRun, Outcome, RunClosed, RunFailed
from trainer_entry.wire import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trainer_entry.trackers.lines import AnyAnswer, Run


def main(tracker: Tracker, folder: Path) -> int:
    """Tell the tracker what comes on standard input; the exit code."""
    answers = claim_stdout()  # before any import that could print
    claim_secrets()
    claim_tracker(tracker)
    answer: AnyAnswer = RunClosed()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _tell(load(tracker, folder), sys.stdin.buffer)
    except BaseException as error:  # noqa: BLE001 - nothing is swallowed: the trainer gets it
        note(traceback.format_exc())
        answer = RunFailed(message=f"{type(error).__name__}: {message_of(error)}")
    os.write(answers, msgspec.json.encode(answer) + b"\n")
    return 0 if isinstance(answer, RunClosed) else 1


def load(tracker: Tracker, folder: Path) -> Callable[[OpenRun], Run]:
    """Import a tracker's library, and give what opens a run of it in a folder."""
    match tracker:
        case "tensorboard":
            from trainer_entry.trackers.event_files import EventFilesRun

            return lambda opening: EventFilesRun(opening, folder)
        case "wandb":
            from trainer_entry.trackers.wandb_run import WandbRun

            return lambda opening: WandbRun(opening, folder)
        case "mlflow":
            from trainer_entry.trackers.mlflow_run import MlflowRun

            return lambda opening: MlflowRun(opening, folder)
        case "trackio":
            os.environ["TRACKIO_DIR"] = str(folder)  # read as it is imported
            from trainer_entry.trackers.trackio_run import TrackioRun

            return TrackioRun
        case _:
            assert_never(tracker)


def _tell(open_run: Callable[[OpenRun], Run], lines: Iterable[bytes]) -> None:
    run: Run | None = None
    outcome: Outcome = "failed"  # that of a trainer which is gone without a word
    for line in lines:
        told: AnyTold = msgspec.json.decode(line, type=AnyTold)
        match told:
            case OpenRun():
                run = open_run(told)
            case LogFigures(step=step, figures=figures):
                if run is not None:
                    run.log(step, figures)
            case CloseRun():
                outcome = told.outcome
            case _:
                assert_never(told)
    if run is not None:
        run.close(outcome)


if __name__ == "__main__":
    code = main(msgspec.convert(sys.argv[1], Tracker), Path(sys.argv[2]))
    sys.stderr.flush()
    # Everything is told: no library's teardown may hang the process now.
    os._exit(code)
