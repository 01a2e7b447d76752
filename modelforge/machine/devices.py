"""What this machine has for trainings: processors and GPUs, found out without loading a training library."""

import math
import os
from pathlib import Path

import pynvml
from msgspec import Struct

from modelforge.domain.scheduling import Machine
from modelforge.machine.cgroups import limits_of
from modelforge.settings import Settings


def machine_of(settings: Settings) -> Machine:
    """The machine as the settings divide it."""
    slots = settings.max_concurrent_jobs
    return Machine(slots=slots, gpus=visible_gpus(), cpu_threads=max(1, cpu_count() // slots))


def cpu_count(root: Path = Path("/")) -> int:
    """The processors that this process may use, by its affinity and by the quota of a container around it."""
    return max(1, math.floor(min(len(os.sched_getaffinity(0)), limits_of(root).cores)))


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that trainers may use, by the names that CUDA_VISIBLE_DEVICES takes.

    Where that variable is set, those that it names; otherwise all that the driver has, by index.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return tuple(str(index) for index in range(_count_gpus()))
    names = [name.strip() for name in named.split(",")]
    # CUDA too takes those before the first that is none: an empty name, or -1.
    end = next((place for place, name in enumerate(names) if name in {"", "-1"}), len(names))
    return tuple(names[:end])


def _count_gpus() -> int:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, and so most often no such device; `modelforge doctor` finds out why
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()


class GpuMemory(Struct, frozen=True, gc=False):
    """The memory of one GPU, in bytes."""

    total: int
    free: int


def gpu_memory() -> tuple[GpuMemory, ...]:
    """The memory of each GPU that trainers may use and whose driver reports it."""
    names = visible_gpus()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, and so no such device
        return ()
    try:
        return tuple(memory for name in names if (memory := _memory_of(name)) is not None)
    finally:
        pynvml.nvmlShutdown()


def _memory_of(name: str) -> GpuMemory | None:
    try:
        handle = (
            pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)
        )
        memory_info = pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError:  # CUDA takes the beginning of a name too; the driver wants all of it
        return None
    return GpuMemory(int(memory_info.total), int(memory_info.free))
