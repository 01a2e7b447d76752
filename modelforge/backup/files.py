"""Files copied and hashed as they are read: never by a link, never through one, and whole on the disk at the end."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from msgspec import Struct

from modelforge.errors import NO_ROOM, BackupUnusable, StorageFull
from modelforge.owner_files import sync_folder
from modelforge.supervisor.trash import remove

_BLOCK = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Content(Struct, frozen=True, gc=False):
    """What is in a file."""

    size: int
    sha256: str


class NotRegular(OSError):
    """It is a link, a folder or a device."""


@contextlib.contextmanager
def opened(path: Path | str, folder: int | None = None) -> Iterator[BinaryIO]:
    """A regular file, open for reading; what has no end or is somewhere else is not opened.

    Raises:
        OSError: it is not there, or `NotRegular`.
    """
    descriptor = os.open(path, _READ, dir_fd=folder)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotRegular(f"{path} is no regular file")
        yield file


@contextlib.contextmanager
def opened_inside(root: Path, name: str) -> Iterator[BinaryIO]:
    """A regular file below a folder, which no link on the way leads to.

    Raises:
        OSError: it is not there, or behind a link, or `NotRegular`.
    """
    *folders, last = PurePosixPath(name).parts
    with contextlib.ExitStack() as held:
        descriptor = os.open(root, _FOLDER)
        held.callback(os.close, descriptor)
        for folder in folders:
            descriptor = os.open(folder, _FOLDER, dir_fd=descriptor)
            held.callback(os.close, descriptor)
        yield held.enter_context(opened(last, descriptor))


def content_of(file: BinaryIO) -> Content:
    """The size and the hash of what is left to read of a file."""
    digest, size = hashlib.sha256(), 0
    while block := file.read(_BLOCK):
        digest.update(block)
        size += len(block)
    return Content(size, digest.hexdigest())


def copy(source: BinaryIO, target: Path, most: int | None = None) -> Content:
    """Copy what a file has now into a new one that is its owner's only; a source that grows is copied to this point.

    `most`: how many bytes of it, if not all.

    By reading and writing: a link, or blocks that are shared, would change with the source.
    """
    make_folders(target.parent)
    digest, size, left = hashlib.sha256(), 0, os.fstat(source.fileno()).st_size
    left = left if most is None else min(left, most)
    descriptor = os.open(target, _WRITE, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
        while left and (block := source.read(min(left, _BLOCK))):
            digest.update(block)
            file.write(block)
            left, size = left - len(block), size + len(block)
        file.flush()
        os.fsync(descriptor)
    return Content(size, digest.hexdigest())


def make_folders(folder: Path) -> None:
    """Make a folder, and those that it lies in, each its owner's only."""
    if not folder.is_dir():
        make_folders(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def sync_folders(folder: Path) -> None:
    """Bring the names in a folder, and in all folders below it, to the disk."""
    for path, _, _ in os.walk(folder):
        sync_folder(path)


@contextlib.contextmanager
def begun(partial: Path, known: frozenset[str]) -> Iterator[None]:
    """Hold an empty folder for what is not whole yet; an earlier try that was killed may have left it.

    An error leaves nothing there. `known`: what such a try leaves.

    Raises:
        BackupUnusable: it is written to by another, or has other things in it.
    """
    with contextlib.suppress(FileExistsError):
        partial.mkdir(mode=0o700)
    descriptor = os.open(partial, _FOLDER)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackupUnusable("Another one is at work there", f"{partial}: wait for its end.") from error
        left = sorted(partial.iterdir())
        for path in left:
            if path.name not in known:
                raise BackupUnusable("Something is in the way", f"{path}: take it away.")
        for path in left:
            remove(path)
        try:
            yield
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def told(doing: str) -> Iterator[None]:
    """What the system refuses in the block, in words.

    Raises:
        StorageFull: there is no room.
        BackupUnusable: anything else.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            detail = f"{doing}: what was written was removed again. Free some space, or name a place on another disk."
            raise StorageFull("No space is left on the disk", detail) from error
        raise BackupUnusable(doing, str(error)) from error
