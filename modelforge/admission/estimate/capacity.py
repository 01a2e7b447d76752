"""What this machine has for one training: the memory of its largest GPU, else its own; and its disk."""

import shutil
from pathlib import Path
from typing import Literal

from msgspec import Struct

from modelforge.machine.devices import gpu_memory
from modelforge.machine.host_memory import host_memory

Device = Literal["gpu", "host"]


class Capacity(Struct, frozen=True, kw_only=True, gc=False):
    """Memory in bytes: what is free now, and what there is in all. `nodes`: how many have so much each."""

    device: Device
    available: int
    total: int
    nodes: int = 1


def memory_capacity(root: Path = Path("/"), *, spare: int = 0) -> Capacity:
    """The memory that a training may have: of one GPU, or of the machine, as its control groups leave it.

    `spare`: bytes of the machine's memory that come free when a job starts.
    """
    gpus = gpu_memory()
    if gpus:
        largest = max(gpus, key=lambda gpu: (gpu.total, gpu.free))
        return Capacity(device="gpu", available=largest.free, total=largest.total)
    memory = host_memory(root)
    return Capacity(device="host", available=min(memory.total, memory.available + spare), total=memory.total)


def free_disk(folder: Path) -> int:
    """Bytes that are free on the disk of a folder."""
    return shutil.disk_usage(folder).free
