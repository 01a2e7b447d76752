"""The log of a data directory: which schema it has, whether it is whole, and what it says."""

import os
import sqlite3
from collections.abc import Iterator

from modelforge import audit
from modelforge.doctor.finding import Finding, ok, problem, size, warning
from modelforge.errors import SegmentAway
from modelforge.event_log.archived import SUFFIX
from modelforge.event_log.log_schema import SCHEMA
from modelforge.layout import Layout
from modelforge.projections.folding import Rebuilt, nothing
from modelforge.projections.snapshots import rebuild

_MOST_NAMED = 10


def log_findings(layout: Layout) -> Iterator[Finding]:
    """Whether this release can read it, and every record is what was written."""
    if not layout.log.exists():
        yield ok("log", f"{layout.log} does not exist yet")
        return
    if not os.access(layout.log, os.R_OK, effective_ids=True):
        yield problem("log", f"{layout.log} cannot be read by this user", "Run this as the user that owns it.")
        return
    try:
        with audit.opened(layout) as reader:
            schema = reader.schema()
    except sqlite3.DatabaseError as error:
        yield problem("log", f"{layout.log} cannot be read: {error}", _restore(layout))
        return
    if schema > SCHEMA:
        found = f"{layout.log} has schema {schema}, this release knows {SCHEMA}"
        yield problem("log", found, "Install the newer release that wrote it.")
    elif schema == 0 and layout.log.stat().st_size > 0:
        yield problem("log", f"{layout.log} is another program's database", f"Move {layout.log} away to begin anew.")
    elif schema > 0:
        yield from _verification(layout)
    else:
        yield ok("log", f"{layout.log} is empty yet")


def _verification(layout: Layout) -> Iterator[Finding]:
    found = audit.verify(layout)
    wal = layout.log.with_name(f"{layout.log.name}-wal")
    length = sum(path.stat().st_size for path in (layout.log, wal) if path.exists())
    live = found.records - found.archived
    if not found.faults:
        yield ok("log", f"{live} records in {size(length)}, every one as it was written")
    if found.archived and not found.faults and not found.away:
        yield ok("archive", f"{found.archived} records in {layout.segments}, every one as it was written")
    for away in found.away:
        place, records = layout.segments / away.file, f"positions {away.first} to {away.last}"
        remedy = f"Put it back to read them. Until then a start needs {layout.snapshot.name}."
        yield warning("archive", f"{place} is not here: {records} cannot be read", remedy)
    yield from _unnamed(layout)
    for fault in found.faults[:_MOST_NAMED]:
        if fault.what.partition(":")[0].endswith(SUFFIX):
            remedy = f"Put that file back into {layout.segments} from a backup; the rest can be read meanwhile."
        elif fault.position is not None and fault.position == found.snapshot:
            remedy = f"Stop the server, and remove {layout.snapshot}: it only ever saves time, the records say it all."
        else:
            remedy = _restore(layout)
        where = "" if fault.position is None else f"position {fault.position}: "
        yield problem("log", f"{where}{fault.what}", remedy)
    if found.fault_count > _MOST_NAMED:
        remedy = f"`modelforge verify --data-dir {layout.root}` lists them all."
        yield problem("log", f"{found.fault_count - _MOST_NAMED} more faults", remedy)


def _unnamed(layout: Layout) -> Iterator[Finding]:
    """Segments that the log does not name: they were begun, and their records are in the log itself."""
    if not layout.segments.is_dir():
        return
    with audit.opened(layout) as reader:
        named = {segment.name for segment in reader.segments()}
    for path in sorted(layout.segments.iterdir()):
        if path.name not in named:
            remedy = "It was left by an archiving that was ended, and nothing of it is used: remove it."
            yield warning("archive", f"{path} is not in the log", remedy)


def _restore(layout: Layout) -> str:
    return f"Stop the server, and put a backup in place of {layout.log} (without its -wal and -shm)."


def rebuilt_state(layout: Layout) -> Rebuilt:
    """What the records say, up to the last one; nothing where there is no log yet."""
    if not layout.log.exists() or layout.log.stat().st_size == 0:
        return nothing()
    with audit.opened(layout) as reader:
        try:
            return rebuild(reader)
        except SegmentAway:
            return rebuild(reader, layout.snapshot)
