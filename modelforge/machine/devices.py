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


class Gpu(Struct, frozen=True, kw_only=True, gc=False):
    """A GPU that trainers may use. `name`: as CUDA_VISIBLE_DEVICES takes it; the rest is None where no driver tells."""

    name: str
    product: str | None = None
    memory: GpuMemory | None = None


def gpus() -> tuple[Gpu, ...]:
    """Each GPU that trainers may use; the driver is asked, which may take a second."""
    names = visible_gpus()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, and so no such device
        return tuple(Gpu(name=name) for name in names)
    try:
        return tuple(_gpu(name) for name in names)
    finally:
        pynvml.nvmlShutdown()


def gpu_memory() -> tuple[GpuMemory, ...]:
    """The memory of each GPU that trainers may use and whose driver reports it."""
    return tuple(gpu.memory for gpu in gpus() if gpu.memory is not None)


def _gpu(name: str) -> Gpu:
    try:
        handle = (
            pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)
        )
        memory_info = pynvml.nvmlDeviceGetMemoryInfo(handle)
        product = pynvml.nvmlDeviceGetName(handle)
    except pynvml.NVMLError:  # CUDA takes the beginning of a name too; the driver wants all of it
        return Gpu(name=name)
    return Gpu(name=name, product=str(product), memory=GpuMemory(int(memory_info.total), int(memory_info.free)))
