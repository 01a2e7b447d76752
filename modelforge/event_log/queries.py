"""Which rows of a log are read, and by which index: what is read costs what is taken of it, however long the log is.

Positions and versions rise together in a stream, and both are indexed; of what is no step, types are too. A step is
found by its place among the versions of its stream.
"""

import sqlite3
from collections.abc import Iterator
from heapq import merge
from itertools import islice
from operator import itemgetter

COLUMNS = "position, stream, version, kind, type, at, cause, actor, data, digest"
StoredRow = tuple[int, str, int, str, str, int, int | None, str, str | bytes, str]
"""The columns of a record as they are stored: its data is bytes where it is packed."""
STEPS = "MetricsLogged"
"""The one type that `facts` and `types` leave out: see schema_2.sql."""
_FACT = "type <> 'MetricsLogged'"  # a partial index is used only where a query says what it is of
_SELECT = f"SELECT {COLUMNS.replace('data', 'coalesce(packed, data)')} FROM records WHERE "  # noqa: S608 - constants
_FIRST_ROWS, _MOST_ROWS = 8, 1000
_MOST_CURSORS = 64
LAST = 2**63 - 1
"""As far as positions go."""


def select_rows(
    connection: sqlite3.Connection,
    *,
    after: int,
    until: int | None,
    streams: tuple[str, ...],
    types: tuple[str, ...],
    limit: int,
) -> Iterator[StoredRow]:
    """Rows after a position, in order; of some streams or types only, if any are named; all if `limit` is negative."""
    streams, types = tuple(dict.fromkeys(streams)), tuple(dict.fromkeys(types))
    end = LAST if until is None else until
    if types and STEPS not in types:
        found = _facts(connection, after, end, streams, types, is_short=limit >= 0)
    elif streams and len(streams) <= _MOST_CURSORS:
        found = _merged([_of_stream(connection, stream, after, end, types) for stream in streams])
    else:
        where, values = _named(streams, types)
        found = _rows(connection, f"{where}position > ? AND position <= ? ORDER BY position", (*values, after, end))
    return found if limit < 0 else islice(found, limit)


def last_row(connection: sqlite3.Connection, stream: str, tag: str, until: int) -> StoredRow | None:
    """The last row of a type in a stream that does not come after a position."""
    if tag == STEPS:
        return next(rows_backwards(connection, stream, (tag,), until), None)
    where = f"stream = ? AND type = ? AND {_FACT} AND position <= ? ORDER BY position DESC LIMIT 1"
    row: StoredRow | None = connection.execute(_SELECT + where, (stream, tag, until)).fetchone()
    return row


def rows_backwards(
    connection: sqlite3.Connection, stream: str, types: tuple[str, ...], until: int
) -> Iterator[StoredRow]:
    """Rows of a stream that do not come after a position, the last one first; of some types only, if any are named."""
    where, values = _named((), types)
    behind = _first_version_after(connection, stream, until)
    backwards = f"{_SELECT}{where}stream = ? AND version < ? ORDER BY version DESC"
    return connection.execute(backwards, (*values, stream, behind))


def _facts(
    connection: sqlite3.Connection,
    after: int,
    end: int,
    streams: tuple[str, ...],
    types: tuple[str, ...],
    *,
    is_short: bool,
) -> Iterator[StoredRow]:
    """Rows of types that are indexed. A short page of several is merged: SQLite would sort all that there are."""
    between = f"{_FACT} AND position > ? AND position <= ? ORDER BY position"
    pairs = [(stream, tag) for stream in streams or (None,) for tag in types]
    if not is_short or not 1 < len(pairs) <= _MOST_CURSORS:
        where, values = _named(streams, types)
        return _rows(connection, where + between, (*values, after, end))
    return _merged(
        [
            _rows(connection, f"type = ? AND {between}", (tag, after, end))
            if stream is None
            else _rows(connection, f"stream = ? AND type = ? AND {between}", (stream, tag, after, end))
            for stream, tag in pairs
        ]
    )


def _of_stream(
    connection: sqlite3.Connection, stream: str, after: int, end: int, types: tuple[str, ...]
) -> Iterator[StoredRow]:
    first, behind = (_first_version_after(connection, stream, position) for position in (after, end))
    where, values = _named((), types)
    return _rows(
        connection,
        f"{where}stream = ? AND version >= ? AND version < ? ORDER BY version",
        (*values, stream, first, behind),
    )


def _first_version_after(connection: sqlite3.Connection, stream: str, position: int) -> int:
    """The version of the first row of a stream after a position; the one that comes next, where there is none yet."""
    step = "SELECT version, position FROM records WHERE stream = ? AND version >= ? ORDER BY version LIMIT 1"
    last = connection.execute(
        "SELECT version, position FROM records WHERE stream = ? ORDER BY version DESC LIMIT 1", (stream,)
    ).fetchone()
    if last is None or last[1] <= position:
        return 1 if last is None else int(last[0]) + 1
    low, high = 0, int(last[0])  # the row of `high` comes after the position, and none before `low` does
    while low < high:
        version, found = connection.execute(step, (stream, (low + high) // 2)).fetchone()
        if found > position:
            high = (low + high) // 2
        else:
            low = version + 1
    return high


def _named(streams: tuple[str, ...], types: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The conditions that a row is of one of these streams and types, if any are named, and their values."""
    where = ""
    for column, names in (("stream", streams), ("type", types)):
        if names:
            where += f"{column} IN ({', '.join('?' * len(names))}) AND "
    return where, (*streams, *types)


def _merged(parts: list[Iterator[StoredRow]]) -> Iterator[StoredRow]:
    return parts[0] if len(parts) == 1 else merge(*parts, key=itemgetter(0))


def _rows(connection: sqlite3.Connection, where: str, values: tuple[object, ...]) -> Iterator[StoredRow]:
    """Few at first: whoever reads may stop soon."""
    cursor = connection.execute(_SELECT + where, values)
    size = _FIRST_ROWS
    while rows := cursor.fetchmany(size):
        yield from rows
        size = min(2 * size, _MOST_ROWS)
