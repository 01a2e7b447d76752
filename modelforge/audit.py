"""The log read from outside, beside a running server or without one: whether it is whole, and how things stood."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Literal, assert_never

import msgspec
from msgspec import Struct

from modelforge.domain.messages import GENESIS, decode, digest_of
from modelforge.errors import BadInput, LogUnusable
from modelforge.event_log.queries import Row
from modelforge.event_log.sqlite import LogReader
from modelforge.layout import Layout
from modelforge.projections.read_models import StateAt, state_of
from modelforge.projections.snapshots import load, pieces_of, rebuild

_Way = Literal["at rest", "shared", "copied"]
"""How a log is to be read: without a WAL the file is all there is; with one, its index is needed too."""
_MOST_FAULTS = 10_000


class Fault(Struct, frozen=True, gc=False):
    """Something in the log is not as it was written. `position` is None where it is in no single record."""

    position: int | None
    what: str


class Verification(Struct, frozen=True, kw_only=True):
    """What was verified, and what is wrong. `snapshot`: the position of the one that was compared, if any.

    `faults`: the first ten thousand of `fault_count`; every record of a long log may be one.
    """

    records: int
    digest: str
    snapshot: int | None
    fault_count: int
    faults: tuple[Fault, ...]


def verify(layout: Layout) -> Verification:
    """Check every record against the chain, and the last snapshot against the records, to the byte.

    Raises:
        LogUnusable: there is no log.
    """
    while True:
        way = _way(layout)
        found = _verified(layout)
        # Or else a server began or ended meanwhile, and what was read may be half of what it wrote.
        if not found.faults or _way(layout) == way:
            return found


def _verified(layout: Layout) -> Verification:
    faults: list[Fault] = []
    digest, count, left_out = GENESIS, 0, 0
    versions: dict[str, int] = {}
    try:
        with opened(layout) as reader:
            for count, row in enumerate(reader.rows(), start=1):
                position, stream, version = row[:3]
                what = _fault(digest, row)
                if position != count:
                    what = f"position {count} is missing"
                elif what is None and version != versions.get(stream, 0) + 1:
                    what = f"version {version} of {stream} follows {versions.get(stream, 0)}"
                if what is not None and len(faults) < _MOST_FAULTS:
                    faults.append(Fault(position, what))
                else:
                    left_out += what is not None
                digest, versions[stream] = row[-1], version
        snapshot = None if faults else _compare_snapshot(layout, faults)
    except sqlite3.DatabaseError as error:
        faults.append(Fault(None, f"The file itself is damaged: {error}"))
        snapshot = None
    return Verification(
        records=count, digest=digest, snapshot=snapshot, fault_count=len(faults) + left_out, faults=tuple(faults)
    )


@contextmanager
def opened(layout: Layout) -> Iterator[LogReader]:
    """A view of the log that leaves every file as it is, whether a server writes to it, was killed, or is none.

    An ordinary reader would leave a WAL and its index where there was none, or begin the index anew.

    Raises:
        LogUnusable: there is no log.
    """
    if not layout.log.exists():
        raise LogUnusable("There is no event log", f"{layout.log} does not exist.")
    with ExitStack() as stack:
        while True:
            way = _way(layout)
            try:
                reader = stack.enter_context(_reader(layout, way))
                reader.schema()  # only the first read opens the files
                break
            except (sqlite3.OperationalError, FileNotFoundError):
                if _way(layout) == way:  # and no server began or ended meanwhile
                    raise
        yield reader


def _way(layout: Layout) -> _Way:
    if not _beside(layout, "-wal").exists():
        return "at rest"
    return "shared" if _beside(layout, "-shm").exists() else "copied"


def _beside(layout: Layout, suffix: str) -> Path:
    return layout.log.with_name(layout.log.name + suffix)


@contextmanager
def _reader(layout: Layout, way: _Way) -> Iterator[LogReader]:
    match way:
        case "at rest":
            with closing(LogReader(layout.log, "mode=ro&immutable=1")) as reader:
                yield reader
        case "shared":
            with closing(LogReader(layout.log, "mode=ro&readonly_shm=1")) as reader:
                yield reader
        case "copied":  # as in a copy of a data directory: an index is made beside another copy, and goes with it
            with tempfile.TemporaryDirectory(prefix="modelforge-") as folder:
                copy = Path(shutil.copy(layout.log, folder))
                shutil.copy(_beside(layout, "-wal"), folder)
                with closing(LogReader(copy)) as reader:
                    yield reader
        case _:
            assert_never(way)


def _fault(previous: str, row: Row) -> str | None:
    """What is wrong with a row that follows the digest `previous`."""
    position, stream, version, kind, tag, at, cause, actor, data, stored = row
    try:
        digest = digest_of(previous, position, stream, version, kind, tag, at, cause, actor, data.encode())  # type: ignore[arg-type]
        if digest != stored:
            return "the record, or the one before it, is not what was written: its digest does not fit"
        decode(kind, data)  # type: ignore[arg-type]
    except UnicodeEncodeError:
        return "the record is not what was written: it is no text"
    except msgspec.DecodeError as error:
        return f"this release cannot read the record: {error}"
    return None


def _compare_snapshot(layout: Layout, faults: list[Fault]) -> int | None:
    with opened(layout) as reader:
        stored = load(layout.snapshot, reader)
        if stored is None:
            return None
        position = stored.state.position
        rebuilt = rebuild(reader, until=position)
    if any(kept != told for kept, told in zip_longest(pieces_of(stored), pieces_of(rebuilt))):
        faults.append(Fault(position, "the snapshot there is not what the records lead to"))
    return position


def state_at(layout: Layout, moment: str) -> StateAt:
    """The read models as they stood at a position, or at a time (ISO 8601; without a zone it is UTC).

    Raises:
        LogUnusable: there is no log.
        BadInput: `moment` is neither, or a position that is not there.
    """
    with opened(layout) as reader:
        head, _ = reader.head()
        position = int(moment) if moment.isascii() and moment.isdigit() else reader.position_at(_micros(moment))
        if position > head:
            raise BadInput("There is no such position", f"at={moment}: the last one is {head}.", field="at")
        return state_of(rebuild(reader, until=position).read_models)


def _micros(moment: str) -> int:
    try:
        time = datetime.fromisoformat(moment)
    except ValueError as error:
        raise BadInput(
            "This is neither a position nor a time", f"at={moment!r}: as in 1200, or 2026-01-31T12:00:00Z.", field="at"
        ) from error
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def broken_records(verification: Verification) -> Iterator[str]:
    """The faults, a line each."""
    for fault in verification.faults:
        where = "the log" if fault.position is None else f"position {fault.position}"
        yield f"{where}: {fault.what}"
