"""Which jobs run, which wait, and the GPUs that are leased to each.

The machine is given to every decision, and never part of the log.
"""

from msgspec import Struct

from modelforge.domain import job
from trainer_entry import wire


class Machine(Struct, frozen=True, kw_only=True, gc=False):
    """`slots`: jobs at once. `gpus`: devices as CUDA names them, each leased to one job. `cpu_threads`: of a job."""

    slots: int = 1
    gpus: tuple[str, ...] = ()
    cpu_threads: int = 1

    def lease(self, spec: wire.JobSpec, taken: tuple[tuple[str, ...], ...]) -> tuple[str, ...] | None:
        """The GPUs for one more job, where there is a place for it beside `taken`, the leases of those that run."""
        return None if len(taken) >= self.slots else self.free_gpus(spec, taken)

    def free_gpus(self, spec: wire.JobSpec, taken: tuple[tuple[str, ...], ...]) -> tuple[str, ...] | None:
        """A GPU for each process of a training, or all there are, one for an evaluation; None where too few are free.

        Other work is done by the processor alone.
        """
        free = [gpu for gpu in self.gpus if not any(gpu in lease for lease in taken)]
        match spec.work:
            case None:
                wanted = min(spec.parameters.num_processes, len(self.gpus))
            case wire.Evaluate():
                wanted = min(1, len(self.gpus))
            case _:
                wanted = 0
        return tuple(free[:wanted]) if len(free) >= wanted else None


def queue_after(
    event: job.Event, status: str, running: tuple[str, ...], waiting: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Who runs, and who waits, after a job's event that left it with `status`."""
    job_id = event.job_id
    if isinstance(event, job.TrainingRequested) and event.queued:
        return running, (*waiting, job_id)
    if isinstance(event, job.AttemptLaunching):
        return running if job_id in running else (*running, job_id), _without(waiting, job_id)
    if status in job.FINAL:
        return _without(running, job_id), _without(waiting, job_id)
    return running, waiting


def _without(job_ids: tuple[str, ...], job_id: str) -> tuple[str, ...]:
    return tuple(other for other in job_ids if other != job_id)
