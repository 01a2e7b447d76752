"""The one way to open a file of a model: a stranger's folder, in which anything may lie.

A file is found by descriptors, a part of its path after another, so that no link leads out of the folder; it is never
waited for, it is a regular file, and not more is read of it than its kind may have.
"""

import errno
import os
import stat
from collections import deque
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from trainer_entry.wire.model_files import TEMPLATES, boundary_of, most_bytes

_MOST_LINKS = 8
_MOST_ENTRIES = 10_000
MOST_TENSORS = 400_000
"""Of a model: the largest have a third of that."""
_OTHER_PAIRS = 10_000  # what stands beside them
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_OPENED = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class UnsafeFile(OSError):
    """A file of a model that is not read: `filename` is its name in the folder, `strerror` says why not."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(errno.EPERM, why, name)


def open_file(folder: Path, name: str) -> BinaryIO:
    """Open a file of the model in a folder; `name` may lie in a folder within. Links are followed as far as that goes.

    Raises:
        FileNotFoundError: there is none.
        UnsafeFile: it is no regular file, too long for its kind, or reached by a link out of the folder.
        OSError: it cannot be opened.
    """
    descriptor = _found(folder, name)
    try:
        status = os.fstat(descriptor)
        _check_kind(name, status.st_mode, stat.S_IFREG)
        _check_length(name, status.st_size)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_file(folder: Path, name: str, most: int | None = None) -> bytes:
    """The content of a file, of at most `most` bytes where its name does not say how many it may have.

    Raises:
        FileNotFoundError: there is none.
        UnsafeFile: as for `open_file`, or it has become too long meanwhile.
        OSError: it cannot be read.
    """
    limit = most or most_bytes(name) or 0
    with open_file(folder, name) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UnsafeFile(name, f"it has more than {limit} bytes, which it may have")
    return content


def read_index(folder: Path, name: str) -> bytes:
    """The content of an index, which names the file of each tensor, of as many tensors as there may be.

    Raises:
        OSError: as for `read_file`.
    """
    content = read_file(folder, name)
    check_pairs(name, content, MOST_TENSORS)
    return content


_ITEMS_A_PAIR = 4


def check_pairs(name: str, content: bytes, most: int) -> None:
    """Refuse JSON that would become many times its size: `most` is how many pairs of names and values it may have.

    Raises:
        UnsafeFile: it has more.
    """
    items = content.count(b",") + content.count(b"[") + content.count(b"{")
    if content.count(b":") > most + _OTHER_PAIRS or items > _ITEMS_A_PAIR * (most + _OTHER_PAIRS):
        raise UnsafeFile(name, f"it names more than {most} tensors or fields")


def has_file(folder: Path, name: str) -> bool:
    """Whether there is such a file, and it can be opened."""
    try:
        open_file(folder, name).close()
    except OSError:
        return False
    return True


def names_in(folder: Path, within: str = ".") -> frozenset[str]:
    """The names of what lies in a folder, or in one within it.

    Raises:
        UnsafeFile: it is reached by a link out of the folder, or holds more than any model does.
        OSError: it cannot be read.
    """
    names: set[str] = set()
    descriptor = _found(folder, within)
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                names.add(entry.name)
                if len(names) > _MOST_ENTRIES:
                    raise UnsafeFile(within, f"it holds more than {_MOST_ENTRIES} files")
    finally:
        os.close(descriptor)
    return frozenset(names)


def check_files(folder: Path) -> frozenset[str]:
    """The names of what lies in a model's folder, once each can be read safely by whoever loads the model.

    Raises:
        UnsafeFile: one cannot; the error names it.
        OSError: the folder, or a file, cannot be read.
    """
    names = names_in(folder)
    for name in sorted(names - {TEMPLATES}):
        _check(folder, name)
    if TEMPLATES in names:
        for name in sorted(names_in(folder, TEMPLATES)):
            _check(folder, f"{TEMPLATES}/{name}")
    return names


def _check(folder: Path, name: str) -> None:
    try:
        open_file(folder, name).close()
    except IsADirectoryError:  # nothing in it is read
        return


def _check_kind(name: str, mode: int, *wanted: int) -> None:
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFDIR and kind not in wanted:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if kind not in wanted:
        raise UnsafeFile(name, f"it is {_KINDS.get(kind, 'of an unknown kind')}, and no regular file")


def _check_length(name: str, size: int) -> None:
    most = most_bytes(name)
    if most is not None and size > most:
        raise UnsafeFile(name, f"it has {size} bytes, and may have {most}")


def _found(folder: Path, name: str) -> int:
    """A descriptor of what a name in a folder stands for, found a part of the path after another."""
    boundary = boundary_of(str(folder))
    inside = PurePosixPath(folder).relative_to(boundary)
    opened = [os.open(boundary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    parts = deque((inside / name).parts)
    links = 0
    try:
        while parts:
            part = parts.popleft()
            if part == "..":
                os.close(opened.pop())
                if not opened:
                    raise UnsafeFile(name, "it is a link that leaves the model's folder")
                continue
            status = os.stat(part, dir_fd=opened[-1], follow_symlinks=False)
            if not stat.S_ISLNK(status.st_mode):
                _check_kind(name, status.st_mode, stat.S_IFREG, stat.S_IFDIR)  # a device is not even opened
                opened.append(os.open(part, _OPENED, dir_fd=opened[-1]))
                continue
            target = PurePosixPath(os.readlink(part, dir_fd=opened[-1]))
            links += 1
            if links > _MOST_LINKS:
                raise UnsafeFile(name, f"it is a link to a link, more than {_MOST_LINKS} times")
            if target.is_absolute():
                if not target.is_relative_to(boundary):
                    raise UnsafeFile(name, "it is a link that leaves the model's folder")
                target = target.relative_to(boundary)
                while len(opened) > 1:
                    os.close(opened.pop())
            parts.extendleft(reversed(target.parts))
        return opened.pop()
    finally:
        for descriptor in opened:
            os.close(descriptor)
