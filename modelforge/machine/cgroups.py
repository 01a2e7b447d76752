"""What the control groups around this process leave it of the machine, of either version (cgroups(7))."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct


class Limits(Struct, kw_only=True, gc=False):
    """What the control groups above this process leave it; memory in bytes."""

    cores: float = math.inf
    memory: float = math.inf
    memory_left: float = math.inf


def limits_of(root: Path) -> Limits:
    """The narrowest limits of the control groups that this process is in, of either version (cgroups(7))."""
    limits = Limits()
    groups = [line.split(":", 2) for line in text_of(root / "proc" / "self" / "cgroup").splitlines()]
    for kind, options, mounted, point in _mounts(root):
        for _, controllers, group in groups:
            if kind == "cgroup2" and not controllers:
                for folder in _upwards(point, mounted, group):
                    quota, _, period = text_of(folder / "cpu.max").partition(" ")
                    _narrow_cores(limits, quota, period)
                    _narrow_memory(limits, folder, "memory.max", "memory.current", "inactive_file")
            elif kind == "cgroup" and controllers and set(controllers.split(",")) <= options:
                for folder in _upwards(point, mounted, group):
                    quota, period = text_of(folder / "cpu.cfs_quota_us"), text_of(folder / "cpu.cfs_period_us")
                    _narrow_cores(limits, quota, period)
                    usage = "memory.usage_in_bytes"
                    _narrow_memory(limits, folder, "memory.limit_in_bytes", usage, "total_inactive_file")
    return limits


def _mounts(root: Path) -> Iterator[tuple[str, set[str], str, Path]]:
    """Type, options, mounted folder and mount point of each hierarchy of control groups."""
    for line in text_of(root / "proc" / "self" / "mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind.startswith("cgroup"):
            mounted, point = before.split()[3:5]
            yield kind, set(options.split(",")), mounted, root / point.lstrip("/")


def _upwards(point: Path, mounted: str, group: str) -> Iterator[Path]:
    """The folder of a group and those above it, as far as they are mounted here."""
    inside = group.removeprefix(mounted.rstrip("/")).lstrip("/")
    folder = point / inside if ".." not in inside and (point / inside).is_dir() else point
    while folder.is_relative_to(point):
        yield folder
        folder = folder.parent


def _narrow_cores(limits: Limits, quota: str, period: str) -> None:
    if quota.isdigit() and period.isdigit():  # no limit is `max`, or -1
        limits.cores = min(limits.cores, int(quota) / int(period))


def _narrow_memory(limits: Limits, folder: Path, limit_name: str, usage_name: str, given_back: str) -> None:
    """Take a group's limit in; the cache of files that it has read is given back when memory is needed."""
    limit, usage = text_of(folder / limit_name), text_of(folder / usage_name)
    cache = re.search(rf"^{given_back} (\d+)$", text_of(folder / "memory.stat"), re.MULTILINE)
    if limit.isdigit() and usage.isdigit():
        left = int(limit) - int(usage) + (int(cache[1]) if cache else 0)
        limits.memory = min(limits.memory, int(limit))
        limits.memory_left = min(limits.memory_left, max(0, left))


def text_of(path: Path) -> str:
    """A file of the kernel's; nothing where it has none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
