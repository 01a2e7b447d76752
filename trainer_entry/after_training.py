"""One attempt at work on a trained model: merge an adapter, export a model, push it to the hub.

    python -m trainer_entry.after_training ATTEMPT_DIR

It is asked, speaks and ends as `trainer_entry.train` does, in one process. A stop ends it at once, until what it
made is given its place: then it is done.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, assert_never

from trainer_entry.providers.libraries import hide_all
from trainer_entry.runtime.attempt import run_attempt
from trainer_entry.runtime.imports import importing
from trainer_entry.runtime.progress import Progress
from trainer_entry.wire import AttemptSpec, Evaluate, Export, Exported, Merge, Push, Pushed, SavedModel, TrainerFinished

if TYPE_CHECKING:
    from pathlib import Path

    from trainer_entry.runtime.signals import Signals
    from trainer_entry.runtime.stdout import Wire


def run(spec: AttemptSpec, _folder: Path, wire: Wire, signals: Signals) -> None:
    """The attempt, from its spec to a last word."""
    progress = Progress(wire, spec.attempt, signals)
    model: SavedModel | None = None
    delivery: Exported | Pushed | None = None
    match spec.job.work:
        case Merge() as work:
            hide_all()  # an adapter is put into weights as they are stored, and never into quantized ones
            with importing():
                from trainer_entry.artifacts.merge import merge

            model = merge(spec, work, progress)
        case Export() as work:
            from trainer_entry.artifacts.export import export

            delivery = export(spec, work, progress)
        case Push() as work:
            from trainer_entry.artifacts.push import push

            delivery = push(work, progress)
        case Evaluate() | None:
            raise ValueError(f"{spec.job.job_id} is a job of kind {spec.job.kind}.")
        case _:
            assert_never(spec.job.work)
    wire.send(
        lambda seq: TrainerFinished(
            attempt=spec.attempt, seq=seq, messages=seq, step=progress.step, model=model, delivery=delivery
        )
    )


if __name__ == "__main__":
    code = run_attempt(sys.argv[1], run)
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is said and done: no library's teardown may hang the process now.
    os._exit(code)
