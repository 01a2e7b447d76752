"""Who runs an attempt: what its launcher knows it by, as it stands in the log."""

from msgspec import Struct

from trainer_entry import wire


class LocalProcess(Struct, frozen=True, kw_only=True, tag_field="type", tag="local_process", gc=False):
    """A process of the server's own machine: pid, start time in clock ticks and boot id name one.

    `token`: what every process of the attempt has in its environment.
    """

    pid: int
    start_time: int
    boot_id: str
    token: str


class SlurmJob(Struct, frozen=True, kw_only=True, tag_field="type", tag="slurm_job", gc=False):
    """A job of a Slurm cluster. Its id may be given out anew; `name` is of this attempt and of no other.

    `slurm_id` is 0 where Slurm took no such job when it was handed over: it is submitted again, and has an id later.
    """

    slurm_id: int
    cluster: str
    name: str


Reference = LocalProcess | SlurmJob


def local_process(report: wire.ShimReport) -> LocalProcess:
    """The process that a shim says it is."""
    return LocalProcess(pid=report.pid, start_time=report.start_time, boot_id=report.boot_id, token=report.token)
