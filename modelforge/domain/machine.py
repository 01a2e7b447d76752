"""What the jobs share: places to run in, and GPUs. Given to every decision, and never part of the log."""

from msgspec import Struct

from trainer_entry import wire


class Machine(Struct, frozen=True, kw_only=True, gc=False):
    """`slots`: jobs at once. `gpus`: devices as CUDA names them, each leased to one job. `cpu_threads`: of a job."""

    slots: int = 1
    gpus: tuple[str, ...] = ()
    cpu_threads: int = 1

    def lease(self, parameters: wire.TrainingParameters, taken: tuple[tuple[str, ...], ...]) -> tuple[str, ...] | None:
        """The GPUs for one more job, a process each; none where there are none. None: it does not fit beside `taken`.

        `taken`: the leases of the jobs that run, one each.
        """
        if len(taken) >= self.slots:
            return None
        free = [gpu for gpu in self.gpus if not any(gpu in lease for lease in taken)]
        wanted = min(parameters.num_processes, len(self.gpus))
        return tuple(free[:wanted]) if len(free) >= wanted else None
