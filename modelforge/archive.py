"""Moves the records before a position out of the log into segments, while no server has the data directory.

A segment is written, brought to the disk, and read back from it. Then the log names it and forgets its records, in
one transaction. So whenever this ends a record is in the log, or in a segment that the log names; a segment that it
does not name is one that was begun.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from msgspec import Struct

from modelforge import audit
from modelforge.data_directory import claimed
from modelforge.domain import job
from modelforge.domain.state import State
from modelforge.errors import NO_ROOM, BadInput, LogUnusable, SegmentAway, StorageFull
from modelforge.event_log.archived import name_segment, segment_name
from modelforge.event_log.chain import Chain
from modelforge.event_log.log_errors import translated
from modelforge.event_log.segment import Checked, check_segment, read_index
from modelforge.event_log.segment_writing import write_segment
from modelforge.event_log.sqlite import EventLog, LogReader
from modelforge.layout import Layout
from modelforge.owner_files import sync_folder
from modelforge.projections.snapshot_file import SnapshotFile
from modelforge.projections.snapshots import Snapshots, rebuild

RECORDS = 100_000
"""What a segment has at most."""


class Archiving(Struct, frozen=True, kw_only=True):
    """What was moved. `last`: the last position that is archived now, 0 if none is.

    `before`, `after`: the bytes of the log's file. `size`: those of the new segments.
    `unfinished`: the job that is not over and for which the rest stays, if one is.
    """

    segments: tuple[str, ...]
    records: int
    last: int
    size: int
    before: int
    after: int
    unfinished: str | None = None


def archive(
    layout: Layout, moment: str, *, most: int = RECORDS, tell: Callable[[str], None] = lambda _line: None
) -> Archiving:
    """Move every record before a position, or a time (ISO 8601), into segments.

    What came after the first record of a job that is not over stays: who follows it reads from there, and a segment may
    be moved away.

    `most`: how many records each has. `tell` hears of each, by its name.

    Raises:
        LogUnusable: there is no log, or a record is not what was written; the segments before it are moved.
        BadInput: `moment` is neither, or a position that is not there.
        DirectoryInUse: a server has the data directory.
        StorageFull: there is no room; what was moved so far is moved.
    """
    if not layout.log.exists():
        raise LogUnusable("There is no event log", f"{layout.log} does not exist.")
    with claimed(layout), _told(layout):
        last, unfinished = asyncio.run(_prepare(layout, moment))
        size = layout.log.stat().st_size
        made: list[Checked] = []
        with closing(sqlite3.connect(layout.log, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            while (checked := _move(layout, connection, last, most)) is not None:
                made.append(checked)
                tell(segment_name(checked.index.first, checked.index.last))
            if made:
                _shrink(connection)
            archived = connection.execute("SELECT max(last) FROM segments").fetchone()[0]
        return Archiving(
            segments=tuple(segment_name(one.index.first, one.index.last) for one in made),
            records=sum(one.index.last - one.index.first + 1 for one in made),
            last=archived or 0,
            size=sum(one.size for one in made),
            before=size,
            after=layout.log.stat().st_size,
            unfinished=unfinished,
        )


async def _prepare(layout: Layout, moment: str) -> tuple[int, str | None]:
    """The last position to be moved, and the job that holds back the rest, if one does.

    The log has this release's schema then, and a snapshot of its end: with it a server starts though segments are away.
    """
    log = await EventLog.open(layout.log)
    try:
        last = await log.read(lambda reader: _last_of(reader, moment))
        await asyncio.to_thread(SnapshotFile(layout.snapshot).recover)
        rebuilt = await log.read(lambda reader: rebuild(reader, layout.snapshot))
        if rebuilt.loaded < rebuilt.state.position:
            await Snapshots(layout.snapshot, rebuilt).close(rebuilt.digest)
        return await log.read(lambda reader: _before_unfinished(reader, rebuilt.state, last))
    finally:
        await log.close()


def _before_unfinished(reader: LogReader, state: State, last: int) -> tuple[int, str | None]:
    """The last position that is before every job that is not over, and the one that came first."""
    unfinished = None
    for job_id in [job_id for job_id, known in state.jobs.items() if known.status not in job.FINAL]:
        try:
            first = next(reader.records(streams=(job.stream_of(job_id),), until=last, limit=1), None)
        except SegmentAway:  # it was cut through already
            return 0, job_id
        if first is not None:
            last, unfinished = first.position - 1, job_id
    return last, unfinished


def _last_of(reader: LogReader, moment: str) -> int:
    if not audit.is_position(moment):
        return reader.position_at(audit.micros(moment, "before") - 1)
    head, _ = reader.head()
    if int(moment) > head + 1:
        detail = f"before={moment}: the last one is {head}; {head + 1} archives all."
        raise BadInput("There is no such position", detail, field="before")
    return int(moment) - 1


def _move(layout: Layout, connection: sqlite3.Connection, last: int, most: int) -> Checked | None:
    """Move the next segment; None where nothing is left to be moved."""
    with closing(LogReader(layout.log)) as reader:
        segments = reader.segments()
        before = segments[-1].last if segments else 0
        until = min(last, before + most)
        if until <= before:
            return None
        chain = Chain()
        if segments:
            chain = Chain(digest=segments[-1].end, has_second=_has_second(layout.segments / segments[-1].name))
        path = layout.segments / segment_name(before + 1, until)
        _make_folder(layout.segments)
        index = write_segment(path, reader.rows(after=before, until=until), chain)
    faults: list[str] = []
    checked = check_segment(path, lambda position, what: faults.append(f"position {position}: {what}"))
    if faults or checked is None or checked.index != index or (index.first, index.last) != (before + 1, until):
        detail = f"{path}: {faults[0] if faults else 'it is another file'}. Nothing of it was taken out of the log."
        raise LogUnusable("A segment is not what was written", detail)
    connection.execute("BEGIN IMMEDIATE")
    try:
        name_segment(connection, index, checked.size, checked.sha256)
        connection.execute("DELETE FROM records WHERE position <= ?", (until,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return checked


def _has_second(path: Path) -> bool:
    """Whether the second version of digests began in a segment, or before it; if it is away, that is not known."""
    if not path.exists():
        return False
    index = read_index(path)
    return index.second_from <= index.last


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(mode=0o700)
        sync_folder(folder.parent)
    for left in folder.glob("*.partial"):
        left.unlink()


def _shrink(connection: sqlite3.Connection) -> None:
    """Give the space back. Where there is no room to do so, the log fills it again as it grows."""
    try:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode not in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}:
            raise


@contextmanager
def _told(layout: Layout) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise translated(layout.log, error) from error
    except OSError as error:
        for left in layout.segments.glob("*.partial"):
            left.unlink(missing_ok=True)
        if error.errno in NO_ROOM:
            detail = f"Free some space on the disk of {layout.segments}; what was not archived yet is still in the log."
            raise StorageFull("No space is left on the disk", detail) from error
        raise LogUnusable("A segment cannot be written", f"{layout.segments}: {error.strerror}") from error
