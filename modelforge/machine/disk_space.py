"""Room on a disk, of which a part is kept for what cannot wait: the log, and the checkpoints of trainings."""

import errno
import os
from pathlib import Path

_PART = 20
"""At most one in so many bytes of a disk is kept free, however small it is."""


def reserve_on(place: Path | int, asked: int) -> int:
    """How many bytes are to stay free where a path, or an open file, lies."""
    disk = os.statvfs(place)
    return min(asked, disk.f_blocks * disk.f_frsize // _PART)


def check_room(place: Path | int, reserve: int, wanted: int = 0) -> None:
    """Refuse to write `wanted` bytes more where too few would stay free.

    Raises:
        OSError: as the system says it of a full disk.
    """
    disk = os.statvfs(place)
    if reserve and disk.f_bavail * disk.f_frsize - reserve_on(place, reserve) < wanted:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
