"""What a cluster has for jobs, as whoever checks a request needs to know it."""

from collections.abc import Awaitable, Callable

from msgspec import Struct


class Partition(Struct, frozen=True, kw_only=True, gc=False):
    """A part of the cluster, as Slurm has it.

    `cpus`, `memory_mib`, `gpus`: the most that a node of it has. `time_limit`: as `[D-]HH:MM:SS`, or `infinite`.
    `default_time`: the same of jobs that ask for no time; `n/a` where that is its limit. `is_default`: for jobs that
    name none. `nodes`: those that Slurm shows, which are not the ones of a cloud that are powered down.
    """

    name: str
    is_up: bool
    is_default: bool
    time_limit: str
    default_time: str
    nodes: int
    cpus: int
    memory_mib: int
    gpus: int


Partitions = Callable[[], Awaitable[tuple[Partition, ...] | None]]
"""Asks for the partitions that this user sees; None where nobody answers now."""
