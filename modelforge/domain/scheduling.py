"""Where jobs run: which of them do, which wait, and the GPUs that are leased to each.

The place is given to every decision, and never part of the log.
"""

from typing import assert_never

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


class Cluster(Struct, frozen=True, kw_only=True, gc=False):
    """A cluster, whose own queue takes every training and evaluation at once: no place and no GPU is leased.

    Other work is done on `server`, the machine of this server, as it is without a cluster. `cpu_threads`: of a job.
    """

    server: Machine = Machine()
    cpu_threads: int = 1


Place = Machine | Cluster
"""Where a server's jobs run."""


def server_of(place: Place) -> Machine:
    """The server's own machine."""
    return place.server if isinstance(place, Cluster) else place


def machine_for(place: Place, spec: wire.JobSpec) -> Machine | None:
    """The machine on which a job needs room; None where it goes to a cluster."""
    match place:
        case Machine():
            return place
        case Cluster(server=server):
            return None if is_for_cluster(spec) else server
        case _:
            assert_never(place)


def is_for_cluster(spec: wire.JobSpec) -> bool:
    """Whether a cluster, where there is one, does this work: it trains or evaluates."""
    return spec.work is None or isinstance(spec.work, wire.Evaluate)


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
