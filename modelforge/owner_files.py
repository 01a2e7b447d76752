"""Files that their owner alone may read, and that are there whole or not at all."""

import os
from pathlib import Path


def partial_of(path: Path) -> Path:
    """Where such a file is written, until it is whole."""
    return path.with_name(f"{path.name}.partial")


def write_owner_file(path: Path, content: bytes) -> None:
    """Put a file there, in place of an earlier one; it and its name are on the disk when this returns.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    partial = partial_of(path)
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path | str) -> None:
    """Bring the names in one folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
