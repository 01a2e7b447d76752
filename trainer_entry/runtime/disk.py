"""Files that must reach the disk, and the errors of a full one. Standard library only."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says when the disk or the quota is at its end: that can change while one waits."""
NO_ROOM = FULL | {errno.EFBIG}
"""The same, and the limit on a file's size, which is not lifted while it is written."""
_NO_ROOM_WORDS = tuple(os.strerror(number) for number in sorted(NO_ROOM))
_PROBE_BYTES = 1 << 20


class DiskFull(Exception):
    """There is no room for what is to be saved."""


def sync_tree(folder: Path) -> None:
    """Bring a folder and everything in it to the disk."""
    for path in [*folder.rglob("*"), folder, folder.parent]:
        sync_entry(path)


def sync_entry(path: Path) -> None:
    """Bring a file, or a folder's own entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def disk_full_errors(folder: Path, known_as: Path | None = None) -> Iterator[None]:
    """Save into a folder in the block; what there was no room for is removed again, and raised as `DiskFull`.

    Half a checkpoint on a full disk is of no use, and without it the last word finds room. `known_as`: its path for
    people, where `folder` is none.
    """
    try:
        yield
    except Exception as error:
        # torch.save says only that its writer failed: whether for want of room, the folder itself shows.
        if not says_no_room(error) and not ("inline_container" in str(error) and not _has_room(folder)):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        free, parent = shutil.disk_usage(folder.parent).free // 1_000_000, (known_as or folder).parent
        raise DiskFull(
            f"There was no room to save {folder.name} in {parent}, where {free} MB are free without it. "
            "Free some space, or keep fewer checkpoints (save_total_limit), and resume the job."
        ) from error


def check_free(folder: Path, reserve: int) -> None:
    """Refuse to go on writing where so many bytes of the disk are to stay free.

    Raises:
        OSError: as the system says it of a full disk.
    """
    if shutil.disk_usage(folder).free < reserve:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def says_no_room(error: BaseException | None) -> bool:
    """Whether an exception, or one that led to it, says that the disk is full."""
    while error is not None:
        if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in NO_ROOM):
            return True
        # What safetensors raises in Rust has the system's words, and no number.
        if isinstance(error, Exception) and any(words in str(error) for words in _NO_ROOM_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _has_room(folder: Path) -> bool:
    """Whether a file here can become as large as the largest is, and a little larger."""
    probe = folder / "probe"
    try:
        size = max((file.stat().st_size for file in folder.rglob("*") if file.is_file()), default=0)
        with probe.open("wb", buffering=0) as file:
            file.seek(size)
            return file.write(bytes(_PROBE_BYTES)) == _PROBE_BYTES
    except OSError as error:
        if error.errno in NO_ROOM:
            return False
        raise
    finally:
        probe.unlink(missing_ok=True)
