"""The lines of a file, or of a part of it, many at a time and never more than a little of it in memory."""

import sys
from collections.abc import Iterator
from typing import BinaryIO

from msgspec import Struct

LONGEST_LINE = 16 << 20
"""A longer line is no record: it is passed over, and said."""
_PART = 1 << 18


class Chunk(Struct, frozen=True, gc=False):
    """Whole lines with their ends, from a byte of the file on; None for one line that is too long to be kept."""

    offset: int
    data: bytes | None


def chunks(file: BinaryIO, begin: int = 0, end: int = sys.maxsize) -> Iterator[Chunk]:
    """The lines whose first byte is at `begin` or after it, and before `end`."""
    offset, rest, skipping = begin, b"", False
    if begin > 0:  # the line in which it lies begins before it, unless one ends right there
        file.seek(begin - 1)
        offset, skipping = begin - 1, True
    while part := file.read(_PART):
        if skipping:
            start = part.find(b"\n") + 1
            offset += start or len(part)
            if not start:
                continue
            part, skipping = part[start:], False
        if offset >= end:
            return
        whole = part.rfind(b"\n") + 1
        if whole:
            data = b"".join((rest, memoryview(part)[:whole]))
            rest = part[whole:]
            yield from _before(end, offset, data)
            offset += len(data)
        else:
            rest += part
        if len(rest) > LONGEST_LINE and offset < end:
            yield Chunk(offset, None)
            offset += len(rest)
            rest, skipping = b"", True
    if rest and offset < end:
        yield Chunk(offset, rest)


def _before(end: int, offset: int, data: bytes) -> Iterator[Chunk]:
    """Of some lines those that begin before `end`; and a line that is too long by itself."""
    if offset >= end:
        return
    if offset + len(data) > end:
        data = data[: data.index(b"\n", max(0, end - 1 - offset)) + 1]
    first = data.index(b"\n") + 1
    if first > LONGEST_LINE + 1:  # only the first one can have grown over several parts
        yield Chunk(offset, None)
        offset, data = offset + first, data[first:]
    if data:
        yield Chunk(offset, data)


def split(data: bytes) -> list[bytes]:
    """The lines without their ends."""
    lines = data.split(b"\n")
    if data.endswith(b"\n"):
        lines.pop()
    return lines
