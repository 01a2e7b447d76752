r"""A segment: a closed file with the records of a range of positions, and all that is needed to check it alone.

    "modelforge log segment 1\n"
    blocks   each a zstd frame: records, each a line with the JSON array of its columns, `data` the last
    index    JSON: the range, the digests before it and at its end, where each block lies and what is in it
    the length of the index, 8 bytes, the lowest first
    SHA-256 of everything before, 32 bytes

A line is the array that the first version of a digest is over. No digest of a record is kept: they are worked out along
a block, which has to come to the digest before the next one. So whatever is read of a segment has been checked.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Raw, Struct

from modelforge.domain.messages import Kind, Record, decode
from modelforge.errors import SegmentAway, SegmentDamaged
from modelforge.event_log.chain import Versions
from modelforge.event_log.segment_index import SUM_BYTES, Index, NotAsWritten, index_in, next_of
from modelforge.event_log.zstd import zstd

_LARGEST_BLOCK = 128 << 20
"""Bytes that are unpacked at once: twice the largest record, so that no file takes all memory."""
_READ = 1 << 20


class Line(Struct, array_like=True, frozen=True, gc=False):
    """A record as it stands in a block."""

    position: int
    stream: str
    version: int
    kind: Kind
    type: str
    at: int
    cause: int | None
    actor: str
    data: Raw


class Checked(Struct, frozen=True, kw_only=True):
    """A segment that was read whole: what is in it, and its file's size and SHA-256."""

    index: Index
    size: int
    sha256: str


_lines = msgspec.json.Decoder(Line)


def read_index(path: Path) -> Index:
    """What is in a segment.

    Raises:
        SegmentAway: it is not here.
        SegmentDamaged: it is no segment, or its index is damaged.
    """
    with _opened(path) as file:
        return index_in(file)


def read_segment(
    path: Path,
    *,
    after: int = 0,
    until: int | None = None,
    streams: tuple[str, ...] = (),
    types: tuple[str, ...] = (),
    backwards: bool = False,
) -> Iterator[Record]:
    """Records of a segment, as `LogReader.records` gives them, or `backwards`; only blocks that may have one are read.

    Raises:
        SegmentAway: it is not here.
        SegmentDamaged: what was to be read is not what was written.
    """
    wanted, tags = frozenset(streams), frozenset(types)
    for lines in read_blocks(path, after=after, until=until, streams=wanted, types=tags, backwards=backwards):
        for line, digest in reversed(lines) if backwards else lines:
            if (not wanted or line.stream in wanted) and (not tags or line.type in tags):
                yield _record(line, digest)


def read_blocks(
    path: Path,
    *,
    after: int = 0,
    until: int | None = None,
    streams: frozenset[str] = frozenset(),
    types: frozenset[str] = frozenset(),
    backwards: bool = False,
) -> Iterator[list[tuple[Line, str]]]:
    """The records of a range with their digests, a block at a time, of blocks that have some of the streams and types.

    Raises:
        SegmentAway: it is not here.
        SegmentDamaged: what was to be read is not what was written.
    """
    index = read_index(path)
    last = index.last if until is None else min(until, index.last)
    numbered = [*enumerate(index.blocks)]
    for number, block in reversed(numbered) if backwards else numbered:
        following = next_of(index, number)[0]
        if following <= after + 1 or block.first > last:
            continue
        if (streams and streams.isdisjoint(block.streams)) or (types and types.isdisjoint(block.types)):
            continue
        with _opened(path) as file:
            lines = _block(file, index, number)
        yield lines[max(after + 1 - block.first, 0) : last + 1 - block.first]


def check_segment(
    path: Path, tell: Callable[[int | None, str], None], versions: Versions | None = None
) -> Checked | None:
    """Check all of a segment, alone; `tell` hears of each fault, with its position. None if it is no segment at all.

    `versions`: the streams' lengths before it, if they are known; they are followed through it.

    Raises:
        SegmentAway: it is not here.
    """
    try:
        with _opened(path) as file:
            return _check(file, tell, versions or Versions(from_the_first=False))
    except SegmentDamaged as error:
        tell(error.position, error.detail)
        return None


def _check(file: BinaryIO, tell: Callable[[int | None, str], None], versions: Versions) -> Checked:
    index, name, is_sound = index_in(file), Path(file.name).name, True
    for number in range(len(index.blocks)):
        try:
            lines = _block(file, index, number)
        except NotAsWritten as error:
            what, position = error.args
            tell(position, f"{name}: {what}")
            versions.pass_over()
            is_sound = False
            continue
        for line, _ in lines:
            what = versions.fault(line.stream, line.version) or _unreadable(line)
            if what is not None:
                tell(line.position, f"{name}: {what}")
    found, stored = _sum_of(file)
    if is_sound and found.digest() != stored:
        tell(None, f"{name}: it has another SHA-256 than it says")
    found.update(stored)
    return Checked(index=index, size=file.seek(0, os.SEEK_END), sha256=found.hexdigest())


def _unreadable(line: Line) -> str | None:
    try:
        decode(line.kind, bytes(line.data))
    except msgspec.DecodeError as error:
        return f"this release cannot read the record: {error}"
    return None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise away(path) from error
    except (NotAsWritten, OSError) as error:
        what, position = error.args if isinstance(error, NotAsWritten) else (error.strerror, None)
        where = "" if position is None else f", from position {position} on"
        raise SegmentDamaged(
            "A segment of the log is damaged",
            f"{path}{where}: {what}. Put it back from a backup.",
            position=position,
            file=path.name,
            last=_last_in(path),
        ) from error


def away(path: Path) -> SegmentAway:
    """The error for a segment that is not here."""
    return SegmentAway(
        "A part of the log is not here",
        f"It was archived in {path}: put that file back, and ask again.",
        file=path.name,
        last=_last_in(path),
    )


def _last_in(path: Path) -> int:
    """The last position, as the name of a file says it; 0 where it says none."""
    last = path.stem.partition("-")[2]
    return int(last) if last.isascii() and last.isdigit() else 0


def _block(file: BinaryIO, index: Index, number: int) -> list[tuple[Line, str]]:
    """The records of a block with their digests; they follow the block before, and what comes next follows them."""
    block, (following, end) = index.blocks[number], next_of(index, number)
    damaged = NotAsWritten(f"the records {block.first} to {following - 1} are not what was written", block.first)
    file.seek(block.offset)
    try:
        content = _unpacked(file.read(block.size), block.unpacked)
        decoded = [(line, _lines.decode(line)) for line in content.split(b"\n")]
    except (zstd.ZstdError, msgspec.DecodeError, UnicodeDecodeError, EOFError) as error:
        raise damaged from error
    digest, position, found = block.digest, block.first, []
    for text, line in decoded:
        if line.position != position:
            raise damaged
        digest = _digest(digest, text, bytes(line.data), second=position >= index.second_from)
        found.append((line, digest))
        position += 1
    if (position, digest) != (following, end):
        raise damaged
    return found


def _unpacked(packed: bytes, size: int) -> bytes:
    """The content of a frame, which has so many bytes and no more."""
    if size > _LARGEST_BLOCK:
        raise EOFError
    unpacker = zstd.ZstdDecompressor()
    content = unpacker.decompress(packed, max_length=size + 1)
    if len(content) != size or not unpacker.eof:
        raise EOFError
    return content


def _digest(previous: str, line: bytes, data: bytes, *, second: bool) -> str:
    """The digest of a record from its line, as `digest_of` and `first_digest_of` have it of its columns."""
    if second:
        line = line[: -len(data) - 1] + b'"%s"]' % hashlib.sha256(data).hexdigest().encode()
    return hashlib.sha256(previous.encode() + line).hexdigest()


def _record(line: Line, digest: str) -> Record:
    return Record(
        position=line.position,
        stream=line.stream,
        version=line.version,
        kind=line.kind,
        type=line.type,
        at=line.at,
        cause=line.cause,
        actor=line.actor,
        data=line.data,
        digest=digest,
        message=decode(line.kind, bytes(line.data)),
    )


def _sum_of(file: BinaryIO) -> tuple["hashlib._Hash", bytes]:
    """The SHA-256 of all but the end of a file, which is where that stands."""
    left = file.seek(0, os.SEEK_END) - SUM_BYTES
    file.seek(0)
    digest = hashlib.sha256()
    while left > 0 and (content := file.read(min(left, _READ))):
        digest.update(content)
        left -= len(content)
    return digest, file.read(SUM_BYTES)
