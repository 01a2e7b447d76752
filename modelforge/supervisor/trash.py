"""Takes files and folders off the disk: a crash leaves them whole, or out of sight; the next start ends the work."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

import msgspec

from modelforge.layout import Layout
from trainer_entry import wire
from trainer_entry.wire.attempt_files import TokenizedEntry


def remove_model(name: str, layout: Layout) -> None:
    """Move a model's folder to the trash and remove it there; a folder that is gone is no error.

    Raises:
        OSError: it cannot be moved or removed.
    """
    path = layout.models / name
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        remove(path.rename(layout.trash / uuid.uuid4().hex))


def remove_dataset_files(names: Iterable[str], layout: Layout) -> None:
    """Move files of datasets to the trash and remove them there, and their tokens; one that is gone is no error.

    Raises:
        OSError: one cannot be moved or removed.
    """
    gone = set()
    for name in names:
        path = layout.datasets / name
        gone.add(path.stem)
        if path.is_symlink() or path.exists():
            remove(path.rename(layout.trash / uuid.uuid4().hex))
    if gone and layout.tokenized.is_dir():
        _remove_tokens(gone, layout)


def _remove_tokens(gone: set[str], layout: Layout) -> None:
    """Remove what was tokenized of such records, and what does not say of which it is."""
    for entry in layout.tokenized.iterdir():
        try:
            told = msgspec.json.decode((entry / "entry.json").read_bytes(), type=TokenizedEntry).records
        except (OSError, msgspec.DecodeError):  # one that is being written too: it is only not kept
            told = ()
        if not told or not gone.isdisjoint(told):
            with contextlib.suppress(FileNotFoundError):  # a trainer makes room, or finished it
                remove(entry.rename(layout.trash / uuid.uuid4().hex))


def remove_unfinished(spec: wire.JobSpec, layout: Layout) -> None:
    """Remove what an attempt that did not finish left of a model, or of an export.

    Raises:
        OSError: it cannot be moved or removed.
    """
    for name in (f"{spec.job_id}.partial", spec.job_id):
        remove_model(name, layout)
    if isinstance(spec.work, wire.Export):
        _remove_inside(Path(spec.work.root or "/"), Path(spec.partial_output))


def _remove_inside(root: Path, folder: Path) -> None:
    """Remove a folder where it stands: it may be on another disk than the trash. No link on the way is followed."""
    with contextlib.ExitStack() as opened, contextlib.suppress(FileNotFoundError, NotADirectoryError):
        descriptor: int | None = None
        for name in (str(root), *folder.parent.relative_to(root).parts):
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            opened.callback(os.close, descriptor)
        shutil.rmtree(folder.name, dir_fd=descriptor)


def empty(folder: Path) -> None:
    """Remove everything in a folder, but not the folder."""
    for leftover in folder.iterdir():
        remove(leftover)


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, or a file; a link, but never what it points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
