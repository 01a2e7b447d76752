"""What a log names of a data directory: the parts of a backup beside the log itself."""

from pathlib import Path

from msgspec import Struct

from modelforge.domain import job
from modelforge.projections.folding import Rebuilt
from trainer_entry import wire

ANEW = -1
"""The stamp of what is copied anew after each copy of the log: the folder of a job that works."""


class Part(Struct, frozen=True):
    """A file or folder that the log names. `stamp`: what was copied with the same one is as it was.

    `sha256`: of a file that is called by its content. Of a job that works, `spool`: the one that is read, and how much
    of it was; `step`: the last one that was told.
    """

    name: str
    stamp: int = 0
    may_be_missing: bool = False
    sha256: str | None = None
    spool: tuple[str, int] | None = None
    step: int | None = None

    @property
    def is_alive(self) -> bool:
        """Whether files come and go in it while it is copied."""
        return self.stamp == ANEW


def parts_of(rebuilt: Rebuilt) -> list[Part]:
    """What the log names: datasets, models, jobs, and exports that went nowhere else, which are a person's to take."""
    state, details = rebuilt.state, rebuilt.read_models.jobs
    parts = [
        Part(f"datasets/{name}", sha256=Path(name).stem) for name, times in sorted(state.references.items()) if times
    ]
    parts += [Part(f"models/{Path(known.path).name}") for known in state.models.values() if not known.deleted]
    for job_id, known in state.jobs.items():
        name = f"jobs/{job_id}"
        if known.status in job.FINAL:
            parts.append(Part(name, details[job_id].position, may_be_missing=True))
        else:
            spool, step = f"{name}/attempt-{known.attempt}/stdout.jsonl", details[job_id].current_step or 0
            parts.append(Part(name, ANEW, may_be_missing=True, spool=(spool, known.offset), step=step))
        work = known.spec.work
        if isinstance(work, wire.Export) and work.to is None and known.status == "completed":
            parts.append(Part(f"exports/{Path(known.spec.output_dir).name}", may_be_missing=True))
    return parts
