"""Writes a segment: rows of the log, which are followed in the chain of digests as they come."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Raw

from modelforge.errors import LogUnusable
from modelforge.event_log.chain import Chain, Row
from modelforge.event_log.segment_index import LENGTH_BYTES, MAGIC, Block, Index
from modelforge.event_log.zstd import zstd
from modelforge.owner_files import partial_of, sync_folder

_BLOCK_BYTES = 128 << 10
"""What a block has unpacked, and its last record more: so much is read for a record that is looked for."""
_LEVEL = 9
_encoder = msgspec.json.Encoder()


def write_segment(path: Path, rows: Iterable[Row], start: Chain) -> Index:
    """Write a segment of rows that follow a chain, at least one; file and name are on the disk when this returns.

    Raises:
        LogUnusable: a row is not what was written; there is no segment.
        OSError: it cannot be written.
    """
    partial = partial_of(path)
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        index = _write(file, rows, start)
        file.flush()
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # it is read back from the disk
    partial.replace(path)
    sync_folder(path.parent)
    return index


class _Writer:
    """A file with its sum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sum = hashlib.sha256()
        self.size = 0

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self.sum.update(content)
        self.size += len(content)


def _write(file: BinaryIO, rows: Iterable[Row], followed: Chain) -> Index:
    writer, before = _Writer(file), followed.digest
    writer.write(MAGIC)
    blocks: list[Block] = []
    first, last, second_from, times = 0, 0, 0, [0, 0]
    part: list[Row] = []
    size, digest = 0, before

    def close() -> None:
        nonlocal part, size, digest
        content = b"\n".join(_line_of(row) for row in part)
        packed = zstd.compress(content, level=_LEVEL)
        streams, types = (tuple(sorted({str(row[column]) for row in part})) for column in (1, 4))
        blocks.append(Block(part[0][0], writer.size, len(packed), len(content), digest, streams, types))
        writer.write(packed)
        part, size, digest = [], 0, part[-1][-1]

    for row in rows:
        position, at = row[0], row[5]
        if not first:
            first, times = position, [at, at]
        elif position != last + 1:
            raise LogUnusable("The log is damaged", f"Position {last + 1} is missing; `modelforge verify` says more.")
        if not _follows(followed, row):
            detail = f"The record at {position} is not what was written; `modelforge verify` says more."
            raise LogUnusable("The log is damaged", detail)
        if followed.has_second and not second_from:
            second_from = position
        last, times = position, [min(times[0], at), max(times[1], at)]
        part.append(row)
        size += len(row[8])
        if size >= _BLOCK_BYTES:
            close()
    if part:
        close()
    index = Index(
        first=first,
        last=last,
        start=before,
        end=digest,
        second_from=second_from or last + 1,
        earliest=times[0],
        latest=times[1],
        blocks=tuple(blocks),
    )
    encoded = _encoder.encode(index)
    writer.write(encoded)
    writer.write(len(encoded).to_bytes(LENGTH_BYTES, "little"))
    file.write(writer.sum.digest())
    return index


def _follows(followed: Chain, row: Row) -> bool:
    try:
        return followed.follows(row)
    except UnicodeEncodeError:
        return False


def _line_of(row: Row) -> bytes:
    return _encoder.encode((*row[:8], Raw(row[8].encode())))
