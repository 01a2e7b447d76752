"""What a child process of ours may take at most: work that comes from a stranger is not to take the whole machine."""

import contextlib
import resource

from msgspec import Struct

_OPEN_FILES = 1024


class ChildLimits(Struct, frozen=True, kw_only=True, gc=False):
    """Limits that the system holds a process, and every one that it starts, to; None: as the server's own.

    `memory_bytes`: what it allocates for itself. Not its address space: libraries, weights that are mapped from their
    files and CUDA take that by the gigabyte and use little of it. `file_bytes`: the longest file that it may write.
    """

    memory_bytes: int | None = None
    file_bytes: int | None = None
    open_files: int | None = _OPEN_FILES


UNLIMITED = ChildLimits(open_files=None)
"""For a process whose work is what the machine is for; yet none leaves its memory behind as a file."""


def limit_process(pid: int, limits: ChildLimits) -> None:
    """Hold a process to its limits; one that has just ended needs none."""
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_DATA: limits.memory_bytes,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: limits.open_files,
    }
    with contextlib.suppress(ProcessLookupError):
        for kind, most in wanted.items():
            if most is not None:
                hard = resource.prlimit(pid, kind)[1]
                within = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.prlimit(pid, kind, (within, within))
