"""The log read from outside, beside a running server or without one: whether it is whole, and how things stood."""

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path

import msgspec
from msgspec import Struct

from modelforge.domain.messages import decode
from modelforge.errors import BadInput, NotFound, SegmentAway, SegmentDamaged
from modelforge.event_log.archived import Segment
from modelforge.event_log.chain import Chain, Row, Versions
from modelforge.event_log.segment import check_segment, read_index
from modelforge.event_log.view import log_view, way_of
from modelforge.layout import Layout
from modelforge.projections.read_models import StateAt, models_of, state_of
from modelforge.projections.snapshots import load, pieces_of, rebuild

_MOST_FAULTS = 10_000


class Fault(Struct, frozen=True, gc=False):
    """Something in the log is not as it was written. `position` is None where it is in no single record."""

    position: int | None
    what: str


class Away(Struct, frozen=True, kw_only=True, gc=False):
    """A segment that is not here: the chain goes on behind it, by the digest that the log has of its end."""

    file: str
    first: int
    last: int


class Verification(Struct, frozen=True, kw_only=True):
    """What was verified, and what is wrong. `snapshot`: the position of the one that was compared, if any.

    `faults`: the first ten thousand of `fault_count`; every record of a long log may be one. `archived`: how many of
    the records lie in segments. `away`: the segments that are not here, whose records were not looked at.
    """

    records: int
    digest: str
    snapshot: int | None
    fault_count: int
    faults: tuple[Fault, ...]
    archived: int = 0
    away: tuple[Away, ...] = ()


def verify(layout: Layout) -> Verification:
    """Check every record against the chain, and the last snapshot against the records, to the byte.

    Raises:
        LogUnusable: there is no log.
    """
    while True:
        way = way_of(layout)
        found = _verified(layout)
        # Or else a server began or ended meanwhile, and what was read may be half of what it wrote.
        if not found.faults or way_of(layout) == way:
            return found


class _Faults:
    """What is wrong, as it is found; of more than so many only the number is kept."""

    def __init__(self) -> None:
        self.kept: list[Fault] = []
        self.count = 0

    def tell(self, position: int | None, what: str) -> None:
        self.count += 1
        if len(self.kept) < _MOST_FAULTS:
            self.kept.append(Fault(position, what))


def _verified(layout: Layout) -> Verification:
    faults, chain, versions = _Faults(), Chain(), Versions()
    away: list[Away] = []
    archived = count = 0
    snapshot = None
    try:
        with log_view(layout) as reader:
            for segment in reader.segments():
                if not _check_segment(layout, segment, archived, chain, versions, faults):
                    away.append(Away(file=segment.name, first=segment.first, last=segment.last))
                    versions.pass_over()
                count = archived = segment.last
            for count, row in enumerate(reader.rows(), start=archived + 1):
                _check_row(row, count, chain, versions, faults)
        if not faults.count and not away:
            snapshot = _compare_snapshot(layout, faults)
    except sqlite3.DatabaseError as error:
        faults.tell(None, f"The file itself is damaged: {error}")
    return Verification(
        records=count,
        digest=chain.digest,
        snapshot=snapshot,
        fault_count=faults.count,
        faults=tuple(faults.kept),
        archived=archived,
        away=tuple(away),
    )


def _check_segment(
    layout: Layout, segment: Segment, before: int, chain: Chain, versions: Versions, faults: _Faults
) -> bool:
    """Whether a segment is here; it is checked then. The chain goes on behind it in any case."""
    if (segment.first, segment.start) != (before + 1, chain.digest):
        faults.tell(segment.first, f"{segment.name}: it does not follow position {before}, as the log has it")
    chain.digest = segment.end
    path = layout.segments / segment.name
    try:
        index = read_index(path)
        if (index.first, index.last, index.start, index.end) == (
            segment.first,
            segment.last,
            segment.start,
            segment.end,
        ):
            found = check_segment(path, faults.tell, versions)
        else:
            found = None
            faults.tell(segment.first, f"{segment.name}: it is another segment than the log names")
    except SegmentAway:
        return False
    except SegmentDamaged as error:
        found = None
        faults.tell(error.position or segment.first, error.detail)
    if found is None:
        versions.pass_over()
        return True
    chain.has_second = chain.has_second or found.index.second_from <= found.index.last
    if (found.size, found.sha256) != (segment.size, segment.sha256) and not faults.count:
        faults.tell(segment.first, f"{segment.name}: it has another SHA-256 than the log names")
    return True


def _check_row(row: Row, count: int, chain: Chain, versions: Versions, faults: _Faults) -> None:
    position, stream, version = row[:3]
    what, out_of_turn = _fault(chain, row), versions.fault(stream, version)
    if position != count:
        what = f"position {count} is missing"
    if (what := what or out_of_turn) is not None:
        faults.tell(position, what)


class SegmentVerification(Struct, frozen=True, kw_only=True):
    """A segment that was checked alone. `start`, `end`: the digests before its first record, and of its last."""

    file: str
    first: int
    last: int
    start: str
    end: str
    size: int
    sha256: str
    faults: tuple[Fault, ...]


def verify_segment(path: Path) -> SegmentVerification:
    """Check a segment alone, wherever it lies; of what is none nothing is known but its faults.

    Raises:
        NotFound: there is no such file.
    """
    if not path.exists():
        raise NotFound("There is no such file", str(path))
    faults = _Faults()
    checked = check_segment(path, faults.tell)
    index = None if checked is None else checked.index
    return SegmentVerification(
        file=path.name,
        first=0 if index is None else index.first,
        last=0 if index is None else index.last,
        start="" if index is None else index.start,
        end="" if index is None else index.end,
        size=0 if checked is None else checked.size,
        sha256="" if checked is None else checked.sha256,
        faults=tuple(faults.kept),
    )


def _fault(chain: Chain, row: Row) -> str | None:
    """What is wrong with a row that follows in a chain."""
    try:
        if not chain.follows(row):
            return "the record, or the one before it, is not what was written: its digest does not fit"
        decode(row[3], row[8])  # type: ignore[arg-type]
    except UnicodeEncodeError:
        return "the record is not what was written: it is no text"
    except msgspec.DecodeError as error:
        return f"this release cannot read the record: {error}"
    return None


def _compare_snapshot(layout: Layout, faults: _Faults) -> int | None:
    with log_view(layout) as reader:
        stored = load(layout.snapshot, reader)
        if stored is None:
            return None
        position = stored.state.position
        rebuilt = rebuild(reader, until=position)
    if any(kept != told for kept, told in zip_longest(pieces_of(stored), pieces_of(rebuilt))):
        faults.tell(position, "the snapshot there is not what the records lead to")
    return position


def state_at(layout: Layout, moment: str) -> StateAt:
    """The read models as they stood at a position, or at a time (ISO 8601; without a zone it is UTC).

    Raises:
        LogUnusable: there is no log.
        BadInput: `moment` is neither, or a position that is not there.
    """
    with log_view(layout) as reader:
        head, _ = reader.head()
        position = int(moment) if is_position(moment) else reader.position_at(micros(moment, "at"))
        if position > head:
            raise BadInput("There is no such position", f"at={moment}: the last one is {head}.", field="at")
        read_models = rebuild(reader, until=position).read_models
        return state_of(read_models, models_of(read_models))


def is_position(moment: str) -> bool:
    """Whether it is a position of the log, and not a time."""
    return moment.isascii() and moment.isdigit()


def micros(moment: str, field: str) -> int:
    """A time (ISO 8601; without a zone it is UTC) in unix microseconds.

    Raises:
        BadInput: it is none; `field` is what it was given for.
    """
    try:
        time = datetime.fromisoformat(moment)
    except ValueError as error:
        raise BadInput(
            "This is neither a position nor a time",
            f"{field}={moment!r}: as in 1200, or 2026-01-31T12:00:00Z.",
            field=field,
        ) from error
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def broken_records(faults: Iterable[Fault]) -> Iterator[str]:
    """The faults, a line each."""
    for fault in faults:
        where = "the log" if fault.position is None else f"position {fault.position}"
        yield f"{where}: {fault.what}"
