"""What the jobs share: places to run in, and GPUs. Given to every decision, and never part of the log."""

from msgspec import Struct

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
        """A GPU for each process of a training, or all there are; None where too few are free beside `taken`.

        Other work is done by the processor alone.
        """
        free = [gpu for gpu in self.gpus if not any(gpu in lease for lease in taken)]
        wanted = 0 if spec.work is not None else min(spec.parameters.num_processes, len(self.gpus))
        return tuple(free[:wanted]) if len(free) >= wanted else None
