"""The memory of this machine, as its control groups leave it to this process."""

import re
from pathlib import Path

from msgspec import Struct

from modelforge.machine.cgroups import limits_of

AHEAD_BYTES = 4 << 30
"""A process is started ahead of its use only where at least so much is available."""


class HostMemory(Struct, frozen=True, kw_only=True, gc=False):
    """In bytes. `available`: what can be had without swapping. Of swap, 0 where there is none."""

    total: int
    available: int
    swap_total: int
    swap_free: int


def host_memory(root: Path = Path("/")) -> HostMemory:
    """What the kernel says (proc_meminfo(5)), from the files below `root`."""
    limits = limits_of(root)
    entries = re.findall(r"^(\w+): +(\d+) kB$", (root / "proc" / "meminfo").read_text(), re.MULTILINE)
    amounts = {name: int(number) * 1024 for name, number in entries}
    return HostMemory(
        total=int(min(amounts["MemTotal"], limits.memory)),
        available=int(min(amounts["MemAvailable"], limits.memory_left)),
        swap_total=amounts.get("SwapTotal", 0),
        swap_free=amounts.get("SwapFree", 0),
    )
