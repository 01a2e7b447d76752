"""A model's folder right before it is read: it may have changed since the server looked at it.

The libraries open its files by their paths and follow every link; so no link may lead out of it, and no file be one
that never ends, or is longer than its kind may be.
"""

import os
import stat
from pathlib import Path

from trainer_entry.runtime.failures import ModelUnavailable
from trainer_entry.wire.model_files import TEMPLATES, boundary_of, most_bytes


def check_folder(where: str) -> None:
    """Refuse a folder with a file that must not be read. A hub id that is no folder here is the hub's own to check.

    Raises:
        ModelUnavailable: the message names the file.
    """
    folder = Path(where)
    if not folder.is_dir():
        return
    resolved = folder.resolve()
    boundary = Path(boundary_of(str(resolved)))
    for name in [*_names_in(resolved), *(f"{TEMPLATES}/{name}" for name in _names_in(resolved / TEMPLATES))]:
        why = _fault_of(resolved / name, boundary)
        if why is not None:
            raise ModelUnavailable(f"{where}: {name} is not read: {why}.")


def _names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208 - their names


def _fault_of(path: Path, boundary: Path) -> str | None:
    """Why a file is not read; None where it can be."""
    try:
        if not path.resolve(strict=True).is_relative_to(boundary):
            return "it is a link that leaves the model's folder"
        status = path.stat()
    except (OSError, RuntimeError) as error:
        return getattr(error, "strerror", None) or str(error)
    if stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        return "it is no regular file"
    most = most_bytes(path.name)
    if most is not None and status.st_size > most:
        return f"it has {status.st_size} bytes, and may have {most}"
    return None
