"""The segments that a log names: which have what is looked for, and where each lies."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from modelforge.domain.messages import GENESIS, Record
from modelforge.event_log.segment import Line, away, read_blocks, read_segment
from modelforge.event_log.segment_index import Index

FoldRow = tuple[int, str, int, str, int, str | bytes]
"""The columns of a record that lead to something: position, stream, version, type, at and data."""
SUFFIX = ".segment"
SEGMENT_COLUMNS = "first, last, start, end, size, sha256, types, earliest, latest"


class Segment(Struct, frozen=True, kw_only=True):
    """A segment as the log has it: its range, the digests before it and at its end, and its file's size and SHA-256.

    `types`: of its records. `earliest`, `latest`: of their times, in unix microseconds.
    """

    first: int
    last: int
    start: str
    end: str
    size: int
    sha256: str
    types: tuple[str, ...]
    earliest: int
    latest: int

    @property
    def name(self) -> str:
        """The name of its file."""
        return segment_name(self.first, self.last)


def segment_name(first: int, last: int) -> str:
    """The name of the file with a range of records."""
    return f"{first:012}-{last:012}{SUFFIX}"


class ArchivedRecords:
    """What a log has in segments, as one view of it says."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder
        row = connection.execute("SELECT last, end FROM segments ORDER BY first DESC LIMIT 1").fetchone()
        self.head: tuple[int, str] = (int(row[0]), str(row[1])) if row else (0, GENESIS)

    def segments(
        self, after: int = 0, until: int | None = None, streams: tuple[str, ...] = (), types: tuple[str, ...] = ()
    ) -> list[Segment]:
        """Those with records in a range, in order; that have some of some streams or types, if any are named."""
        if after >= self.head[0]:
            return []
        where, values = ["last > ?"], [after, *streams]
        if streams:
            named = ", ".join("?" * len(streams))
            where.append(f"first IN (SELECT segment FROM archived_streams WHERE stream IN ({named}))")  # noqa: S608 - placeholders
        if until is not None:
            where.append("first <= ?")
            values.append(until)
        rows = self._connection.execute(
            f"SELECT {SEGMENT_COLUMNS} FROM segments WHERE {' AND '.join(where)} ORDER BY first",  # noqa: S608 - constants and placeholders
            values,
        )
        found = [_segment_of(row) for row in rows]
        return [segment for segment in found if not types or not frozenset(types).isdisjoint(segment.types)]

    def records(
        self, after: int, until: int | None, streams: tuple[str, ...], types: tuple[str, ...]
    ) -> Iterator[Record]:
        """Their records, as `LogReader.records` gives them.

        Raises:
            SegmentAway, SegmentDamaged: one that has what is looked for is not here, or is not what was written.
        """
        for segment in self.segments(after, until, streams, types):
            path = self._folder / segment.name
            yield from read_segment(path, after=after, until=until, streams=streams, types=types)

    def records_backwards(self, stream: str, types: tuple[str, ...], until: int) -> Iterator[Record]:
        """Their records, as `LogReader.records_backwards` gives them.

        Raises:
            SegmentAway, SegmentDamaged: one that may have some is not here, or is not what was written.
        """
        for segment in reversed(self.segments(until=until, streams=(stream,), types=types)):
            path = self._folder / segment.name
            yield from read_segment(path, until=until, streams=(stream,), types=types, backwards=True)

    def require(self, until: int) -> None:
        """Check that all of them up to a position are here.

        Raises:
            SegmentAway: one is not.
        """
        for segment in self.segments(until=until):
            if not (self._folder / segment.name).exists():
                raise away(self._folder / segment.name)

    def position_at(self, at: int) -> int:
        """The last position in them that was written by a time (unix microseconds); 0 if none was.

        Raises:
            SegmentAway, SegmentDamaged: it is in one that is not here, or is not what was written.
        """
        for segment in reversed(self.segments()):
            if segment.latest <= at:
                return segment.last
            if segment.earliest <= at:
                records = read_segment(self._folder / segment.name)
                return max(record.position for record in records if record.at <= at)
        return 0

    def rows_to_fold(self, after: int, until: int | None) -> Iterator[FoldRow]:
        """What a fold needs of their records, in order.

        Raises:
            SegmentAway, SegmentDamaged: one of them is not here, or is not what was written.
        """
        for segment in self.segments(after, until):
            for lines in read_blocks(self._folder / segment.name, after=after, until=until):
                yield from (_to_fold(line) for line, _ in lines)

    def digest_at(self, position: int) -> str | None:
        """The digest of the record at a position; None where it is in none of them.

        Raises:
            SegmentAway, SegmentDamaged: it is in the midst of one that is not here, or is not what was written.
        """
        for segment in self.segments(position - 1, position):
            if segment.last == position:
                return segment.end
            for lines in read_blocks(self._folder / segment.name, after=position - 1, until=position):
                return lines[0][1]
        return None


def _to_fold(line: Line) -> FoldRow:
    return line.position, line.stream, line.version, line.type, line.at, bytes(line.data)


def name_segment(connection: sqlite3.Connection, index: Index, size: int, sha256: str) -> None:
    """Say in a log that the records of a range lie in a segment, within a transaction."""
    types = msgspec.json.encode(index.types()).decode()
    named = (index.first, index.last, index.start, index.end, size, sha256, types, index.earliest, index.latest)
    connection.execute(f"INSERT INTO segments ({SEGMENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", named)  # noqa: S608 - constants
    streams = [(stream, index.first) for stream in index.streams()]
    connection.executemany("INSERT INTO archived_streams (stream, segment) VALUES (?, ?)", streams)


def _segment_of(row: tuple[int, int, str, str, int, str, str, int, int]) -> Segment:
    first, last, start, end, size, sha256, types, earliest, latest = row
    return Segment(
        first=first,
        last=last,
        start=start,
        end=end,
        size=size,
        sha256=sha256,
        types=msgspec.json.decode(types, type=tuple[str, ...]),
        earliest=earliest,
        latest=latest,
    )
