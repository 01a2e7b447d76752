"""The event log in SQLite: durable group commits, reads of any range.

One connection writes, and only one task uses it: SQLite before 3.51.3 can corrupt a WAL when two connections
write or checkpoint at once. Readers open the file read-only and run a whole scan or fold in one thread call.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
from msgspec import Raw

from modelforge.domain.messages import Record, decode
from modelforge.errors import LogUnusable
from modelforge.event_log.archived import SEGMENT_COLUMNS, ArchivedRecords, FoldRow, Segment
from modelforge.event_log.chain import Row
from modelforge.event_log.insertion import INSERT, AtomicConnection, row_of
from modelforge.event_log.log_errors import translated
from modelforge.event_log.log_schema import refuse_foreign, upgrade
from modelforge.event_log.packing import unpacked
from modelforge.event_log.queries import COLUMNS, LAST, last_row, rows_backwards, select_rows
from modelforge.layout import segments_of

_PACKS = 3
"""From this schema on records may be packed, and archived."""
_AS_IF_IT_PACKED = (
    "CREATE TEMP VIEW records AS SELECT *, NULL AS packed FROM main.records",
    f"CREATE TEMP TABLE segments ({SEGMENT_COLUMNS})",
    "CREATE TEMP TABLE archived_streams (stream, segment)",
)
_T = TypeVar("_T")


class LogReader:
    """A read-only view of the log, for use inside one thread. `options`: of the file, in SQLite's words for a URI.

    `segments`: the folder with what was archived, if it is not beside the file.
    """

    def __init__(self, path: Path, options: str = "mode=ro", segments: Path | None = None) -> None:
        self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True, isolation_level=None)
        try:
            self._connection.execute("BEGIN")  # one view of the log, however long the reading takes
            if 0 < self.schema() < _PACKS:
                _read_as_packed(self._connection)
        except sqlite3.DatabaseError:
            self._connection.close()
            raise
        self._folder = segments or segments_of(path)

    @cached_property
    def _archived(self) -> ArchivedRecords:
        return ArchivedRecords(self._connection, self._folder)

    def close(self) -> None:
        """End the view."""
        self._connection.close()

    def schema(self) -> int:
        """The schema's number."""
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def head(self) -> tuple[int, str]:
        """Position and digest of the last record; 0 and the genesis digest of an empty log."""
        row = self._connection.execute("SELECT position, digest FROM records ORDER BY position DESC LIMIT 1").fetchone()
        return (int(row[0]), str(row[1])) if row else self._archived.head

    def segments(self) -> list[Segment]:
        """What was archived, in order."""
        return self._archived.segments()

    def require(self, until: int) -> None:
        """Check that all records up to a position can be read.

        Raises:
            SegmentAway: some lie in a segment that is not here.
        """
        self._archived.require(until)

    def rows(self, *, after: int = 0, until: int | None = None) -> Iterator[Row]:
        """Every row that lies in the file itself, in order, whether what it says is text or not."""
        self._connection.text_factory = lambda text: text.decode(errors="surrogateescape")
        end = LAST if until is None else until
        sql = f"SELECT {COLUMNS}, packed FROM records WHERE position > ? AND position <= ? ORDER BY position"  # noqa: S608 - constants
        for *columns, data, digest, small in self._connection.execute(sql, (after, end)):
            yield (*columns, data if small is None else data + _unpacked_text(small), digest)

    def copy_to(self, path: Path) -> None:
        """Write what this view sees into a new file, by SQLite's online backup: the log's own files stay as they are.

        Raises:
            StorageFull, LogUnusable: it cannot be written, or not be read.
        """
        try:
            with closing(sqlite3.connect(path)) as copy:
                self._connection.backup(copy)
        except sqlite3.DatabaseError as error:
            raise translated(path, error) from error

    def position_at(self, at: int) -> int:
        """The last position that was written by a time (unix microseconds); 0 if none was.

        It is looked for from the end on: a clock that was set back leaves moments that do not rise with the positions.

        Raises:
            SegmentAway, SegmentDamaged: it is in a segment that is not here, or is not what was written.
        """
        last = "SELECT position FROM records WHERE at <= ? ORDER BY position DESC LIMIT 1"
        row = self._connection.execute(last, (at,)).fetchone()
        return int(row[0]) if row else self._archived.position_at(at)

    def records(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        streams: tuple[str, ...] = (),
        types: tuple[str, ...] = (),
        limit: int = -1,
    ) -> Iterator[Record]:
        """Records after a position, in order; of some streams or types only, if any are named.

        Those that were archived are read from their segments, once it is their turn.

        Raises:
            SegmentAway, SegmentDamaged: one that has what is looked for is not here, or is not what was written.
        """
        rows = select_rows(self._connection, after=after, until=until, streams=streams, types=types, limit=limit)
        if after >= self._archived.head[0]:
            return map(_record, rows)
        found = chain(self._archived.records(after, until, streams, types), map(_record, rows))
        return found if limit < 0 else islice(found, limit)

    def records_backwards(self, stream: str, types: tuple[str, ...] = (), *, until: int = LAST) -> Iterator[Record]:
        """Records of a stream that do not come after a position, the last one first; of some types, if any are named.

        Raises:
            SegmentAway, SegmentDamaged: a segment of them is not here, or is not what was written, once it is its turn.
        """
        yield from map(_record, rows_backwards(self._connection, stream, types, until))
        yield from self._archived.records_backwards(stream, types, until)

    def last_record(self, stream: str, tag: str, *, until: int) -> Record | None:
        """The last record of a type in a stream that does not come after a position.

        Raises:
            SegmentAway, SegmentDamaged: it may be in a segment that is not here, or is not what was written.
        """
        row = last_row(self._connection, stream, tag, until)
        return next(self._archived.records_backwards(stream, (tag,), until), None) if row is None else _record(row)

    def rows_to_fold(self, *, after: int = 0, until: int | None = None) -> Iterator[FoldRow]:
        """What a fold needs of the records after a position, in order.

        Raises:
            SegmentAway, SegmentDamaged: a segment of them is not here, or is not what was written.
        """
        yield from self._archived.rows_to_fold(after, until)
        # One by one: the memory of a row is the next one's, and stays near the processor.
        for row in self._connection.execute(
            "SELECT position, stream, version, type, at, coalesce(packed, data) FROM records "
            "WHERE position > ? AND position <= ? ORDER BY position",
            (after, LAST if until is None else until),
        ):
            yield row if isinstance(row[5], str) else (*row[:5], unpacked(row[5]))

    def digest_at(self, position: int) -> str | None:
        """The digest of the record at a position; None where there is none.

        Raises:
            SegmentAway, SegmentDamaged: it is in the midst of a segment that is not here, or is not what was written.
        """
        row = self._connection.execute("SELECT digest FROM records WHERE position = ?", (position,)).fetchone()
        return str(row[0]) if row else self._archived.digest_at(position)


class EventLog:
    """The one writer of a log file, and the door to its readers."""

    def __init__(self, path: Path, writer: aiosqlite.Connection) -> None:
        self._path = path
        self._writer = writer

    @classmethod
    async def open(
        cls,
        path: Path,
        on_upgrade: Callable[[int], None] = lambda _: None,
        is_given_up: Callable[[], bool] = lambda: False,
    ) -> "EventLog":
        """Open the log, or make an empty one; that of an older release gets what this one adds to it, in a thread.

        `on_upgrade` is called before that, with its number of records. `is_given_up` is asked meanwhile, in the thread:
        once nobody waits any more, the log is left as it was.

        Raises:
            LogUnusable: it is no log, or a newer release wrote it; the file was not touched.
            StorageFull: there is no space for what this release adds; the log is as it was.
        """
        refuse_foreign(path)
        writer = await aiosqlite.connect(path, isolation_level=None, factory=AtomicConnection)
        try:
            await upgrade(path, writer, on_upgrade, is_given_up)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "journal_size_limit = 67108864"):
                await (await writer.execute(f"PRAGMA {pragma}")).close()
            # The first read makes the WAL's index: where there is no room for it, the log does not open.
            await (await writer.execute("SELECT position FROM records LIMIT 1")).close()
        except sqlite3.DatabaseError as error:
            await writer.close()
            raise translated(path, error) from error
        except LogUnusable:
            await writer.close()
            raise
        return cls(path, writer)

    async def append(self, records: list[Record]) -> None:
        """Write records in one transaction; when this returns they are on the disk.

        Raises:
            StorageFull: no space is left; nothing was written.
            LogUnusable: the disk failed; whether they were written is known only by opening the log anew.
        """
        try:
            await self._writer.executemany(INSERT, map(row_of, records))  # packed in the writer's thread
        except sqlite3.DatabaseError as error:
            raise translated(self._path, error) from error

    async def read(self, work: Callable[[LogReader], _T]) -> _T:
        """Run `work` on a view of the log, whole, in a thread."""

        def run() -> _T:
            reader = LogReader(self._path)
            try:
                return work(reader)
            finally:
                reader.close()

        return await asyncio.to_thread(run)

    async def close(self) -> None:
        """Give the file back."""
        await self._writer.close()


def _read_as_packed(connection: sqlite3.Connection) -> None:
    """Have an older log look as one of this schema to whoever reads it; the file stays as it is."""
    connection.execute("PRAGMA temp_store = MEMORY")
    for statement in _AS_IF_IT_PACKED:
        connection.execute(statement)


def _unpacked_text(small: bytes) -> str:
    """What was packed in a row; what cannot be unpacked as it is."""
    try:
        return unpacked(small).decode(errors="surrogateescape")
    except ValueError:
        return small.decode(errors="surrogateescape")


def _record(row: tuple[Any, ...]) -> Record:
    position, stream, version, kind, tag, at, cause, actor, stored, digest = row
    data = stored.encode() if isinstance(stored, str) else unpacked(stored)
    return Record(
        position=position,
        stream=stream,
        version=version,
        kind=kind,
        type=tag,
        at=at,
        cause=cause,
        actor=actor,
        data=Raw(data),
        digest=digest,
        message=decode(kind, data),
    )
