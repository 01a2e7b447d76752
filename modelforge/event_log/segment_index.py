"""The index at the end of a segment: where each block lies, and what is in it."""

import os
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

MAGIC = b"modelforge log segment 1\n"
SUM_BYTES, LENGTH_BYTES = 32, 8
_LARGEST_INDEX = 64 << 20


class Block(Struct, array_like=True, frozen=True, gc=False):
    """Where a block lies, and what is in it. `unpacked`: its bytes before they were packed. `digest`: before it."""

    first: int
    offset: int
    size: int
    unpacked: int
    digest: str
    streams: tuple[str, ...]
    types: tuple[str, ...]


class Index(Struct, frozen=True, kw_only=True):
    """What is in a segment. `start`, `end`: the digests before its first record, and of its last.

    `second_from`: the position from which on digests are of the second version; behind `last` where none is.
    `earliest`, `latest`: of the times of its records, in unix microseconds.
    """

    first: int
    last: int
    start: str
    end: str
    second_from: int
    earliest: int
    latest: int
    blocks: tuple[Block, ...]

    def types(self) -> list[str]:
        """The types of its records."""
        return sorted({tag for block in self.blocks for tag in block.types})

    def streams(self) -> list[str]:
        """The streams that its records stand in."""
        return sorted({stream for block in self.blocks for stream in block.streams})


class NotAsWritten(Exception):
    """A part of a file is not what was written; `args` say what, and from which position on."""


_indices = msgspec.json.Decoder(Index)


def index_in(file: BinaryIO) -> Index:
    """The index of a segment.

    Raises:
        NotAsWritten: it is no segment, or its index is damaged.
    """
    size = file.seek(0, os.SEEK_END)
    trailer = LENGTH_BYTES + SUM_BYTES
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise NotAsWritten("it is no segment of a log that this release knows", None)
    file.seek(max(size - trailer, 0))
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    begin = size - trailer - length
    if begin < len(MAGIC) or length > _LARGEST_INDEX:
        raise NotAsWritten("it was cut off, or its end is not what was written", _first_in(file))
    file.seek(begin)
    try:
        index = _indices.decode(file.read(length))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotAsWritten("its index is not what was written", _first_in(file)) from error
    firsts = [block.first for block in index.blocks]
    if not firsts or firsts[0] != index.first or index.blocks[0].digest != index.start:
        raise NotAsWritten("its index is not what was written", _first_in(file))
    return index


def _first_in(file: BinaryIO) -> int | None:
    """The position that the name of a file says."""
    number = Path(file.name).name.partition("-")[0]
    return int(number) if number.isascii() and number.isdigit() else None


def next_of(index: Index, number: int) -> tuple[int, str]:
    """The first position, and the digest before it, of what follows a block."""
    if number + 1 < len(index.blocks):
        following = index.blocks[number + 1]
        return following.first, following.digest
    return index.last + 1, index.end
