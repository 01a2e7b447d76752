"""How records become rows: a transaction of them in few statements, for one connection and its thread."""

import sqlite3
from collections.abc import Iterable
from itertools import chain
from typing import Any

from modelforge.domain.messages import Record
from modelforge.event_log.packing import packed
from modelforge.event_log.queries import COLUMNS

INSERT = f"INSERT OR ROLLBACK INTO records ({COLUMNS}, packed) VALUES "  # noqa: S608 - constants
"""It ends before the values. A row that is refused takes the transaction along: to take back one statement of several,
SQLite would copy every page before that changes it, which is a third of all."""
_ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SIZES = (64, 32, 16, 8, 4, 2, 1)
"""Rows of a statement. There are few, for each is kept with what it was last given."""


class AtomicConnection(sqlite3.Connection):
    """`executemany` is one transaction: a group commit costs one thread hop, not three.

    Its statements are of 64, 32, … and 1 rows: after each one its thread waits for the interpreter, which the loop has
    while it decides what comes next. With a statement a row, whichever of the two is busy keeps the other waiting.
    """

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        """Insert rows; `sql` is `INSERT`."""
        rows = [*parameters]
        if len(rows) in _SIZES:
            return self._insert(sql, rows)  # by itself it is a transaction
        with self:
            cursor = self.execute("BEGIN IMMEDIATE")
            while rows:
                size = next(size for size in _SIZES if size <= len(rows))
                cursor = self._insert(sql, rows[:size])
                del rows[:size]
        return cursor

    def _insert(self, sql: str, rows: list[Any]) -> sqlite3.Cursor:
        return self.execute(sql + ", ".join([_ROW] * len(rows)), [*chain.from_iterable(rows)])


def row_of(r: Record) -> tuple[object, ...]:
    """A record as it lies in the file: packed where that is worth it, by one thread at a time."""
    data = memoryview(r.data)
    small = packed(data)
    text = str(data, "utf-8") if small is None else ""
    return (r.position, r.stream, r.version, r.kind, r.type, r.at, r.cause, r.actor, text, r.digest, small)
