"""When files are written to, as the kernel tells it (inotify): nobody has to look, and a change is known at once."""

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_IN_MODIFY = 0x2
_IN_IGNORED = 0x8000
_OVERFLOW = -1
_EVENT = struct.Struct("iIII")  # struct inotify_event without its name: watches of files have none
_READ_BYTES = 4096


class Watch:
    """One file. Whether it was written to since `clear`."""

    def __init__(self, changes: "FileChanges", path: Path) -> None:
        self._changes = changes
        self._path = path
        self._number: int | None = None
        self._written: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def clear(self) -> None:
        """Begin anew. What is written from here on is told, so the file is read after this and not before."""
        if self._number is None:
            self._number = self._changes.add(self, self._path)
        if self._written.done():
            self._written = asyncio.get_running_loop().create_future()

    @property
    def tells(self) -> bool:
        """Whether it will be told at all: not by every kernel, not for every file, and not before the file is there."""
        return self._number is not None

    @property
    def written(self) -> bool:
        """Whether it was written to since."""
        return self._written.done()

    async def wait(self, other: asyncio.Future[None], seconds: float) -> None:
        """Until the file was written to, or `other` is done, or so many seconds have passed."""
        await asyncio.wait({other, self._written}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    def tell(self) -> None:
        """It was written to."""
        if not self._written.done():
            self._written.set_result(None)

    def forget(self) -> None:
        """The kernel tells no more of it: the file is gone."""
        self._number = None
        self.tell()

    def close(self) -> None:
        """Have no more told."""
        if self._number is not None:
            self._changes.remove(self._number)


class FileChanges:
    """Files that are watched, all by one descriptor. Where the kernel has none to give, no watch ever tells."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._watches: dict[int, Watch] = {}
        self._descriptor: int | None = None
        if hasattr(self._libc, "inotify_init1"):
            descriptor = int(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
            if descriptor >= 0:
                self._descriptor = descriptor
                asyncio.get_running_loop().add_reader(descriptor, self._read, descriptor)

    @contextlib.contextmanager
    def watching(self, path: Path) -> Iterator[Watch]:
        """A watch of a file, that may be made later, until the block ends."""
        watch = Watch(self, path)
        try:
            yield watch
        finally:
            watch.close()

    def add(self, watch: Watch, path: Path) -> int | None:
        """Have the watch told of a file; its number, or None where that cannot be."""
        if self._descriptor is None:
            return None
        number = int(self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), _IN_MODIFY))
        if number < 0:  # it is not there yet, or there are as many watches as the kernel allows
            return None
        self._watches[number] = watch
        return number

    def remove(self, number: int) -> None:
        """Have no more told of a file."""
        if self._watches.pop(number, None) is not None and self._descriptor is not None:
            self._libc.inotify_rm_watch(self._descriptor, number)

    def close(self) -> None:
        """Watch nothing any more."""
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _read(self, descriptor: int) -> None:
        try:
            events = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(events):
            number, mask, _, length = _EVENT.unpack_from(events, offset)
            offset += _EVENT.size + length
            if number == _OVERFLOW:  # some were not told
                for watch in self._watches.values():
                    watch.tell()
            elif mask & _IN_IGNORED:
                if (gone := self._watches.pop(number, None)) is not None:
                    gone.forget()
            elif (written := self._watches.get(number)) is not None:
                written.tell()
