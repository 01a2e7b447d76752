"""The file of the snapshot: a row a key of every mapping, and a head. It may be taken away: the log has it all.

It is no part of the log, so that no append waits for it. Only what changed is written, in one transaction with the
head: what is there is always of one moment. It is read by whoever reads a log, and written by its server alone.
"""

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from modelforge.projections.kept import Change

TABLES = """
CREATE TABLE head (
    fold     INTEGER NOT NULL,     -- what a fold gives, and how it is kept: another number's is not read
    position INTEGER NOT NULL,     -- of the last record that is folded in
    digest   TEXT NOT NULL,        -- of that record
    parts    INTEGER NOT NULL,     -- how many there are
    checksum INTEGER NOT NULL,     -- the sum of theirs
    rest     BLOB NOT NULL,        -- what is no mapping
    own      INTEGER NOT NULL      -- the CRC of all of this
) STRICT;
CREATE TABLE parts (
    mapping  TEXT NOT NULL,
    key      ANY NOT NULL,
    data     BLOB NOT NULL,
    checksum INTEGER NOT NULL,     -- the CRC of `data`
    PRIMARY KEY (mapping, key)
) STRICT;
"""
"""The statements that make the file's tables."""
_ADD = (
    "INSERT INTO parts (mapping, key, data, checksum) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (mapping, key) DO UPDATE SET data = excluded.data, checksum = excluded.checksum"
)
_REMOVE = "DELETE FROM parts WHERE mapping = ? AND key = ?"
_READ_AT_ONCE = 1000


class Head(Struct, frozen=True, kw_only=True, gc=False):
    """What a snapshot is of. `rest`: what is in no mapping, as JSON."""

    fold: int
    position: int
    digest: str
    rest: bytes

    def checksum(self, parts: int, checksum: int) -> int:
        """The CRC of the head, with the number of parts and the sum of their checksums."""
        return zlib.crc32(msgspec.json.encode((self.fold, self.position, self.digest, parts, checksum, self.rest)))


class Damaged(Exception):
    """The file does not have what was written into it."""


class SnapshotReader:
    """A view of the file, at one moment."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            sqlite3.DatabaseError: it is not there, or cannot be read.
        """
        self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        self._connection.execute("BEGIN")
        self._expected = (0, 0)

    def close(self) -> None:
        """End the view."""
        self._connection.close()

    def copy_to(self, path: Path) -> None:
        """Write what this view sees into a new file.

        Raises:
            sqlite3.DatabaseError: it cannot be read, or not be written.
        """
        with closing(sqlite3.connect(path)) as copy:
            self._connection.backup(copy)

    def head(self) -> Head | None:
        """What it is of; None of one that was never written whole.

        Raises:
            Damaged, sqlite3.DatabaseError: it cannot be read.
        """
        row = self._connection.execute("SELECT fold, position, digest, parts, checksum, rest, own FROM head").fetchone()
        if row is None:
            return None
        fold, position, digest, parts, checksum, rest, own = row
        head = Head(fold=fold, position=position, digest=digest, rest=rest)
        if head.checksum(parts, checksum) != own:
            raise Damaged("the head")
        self._expected = (parts, checksum)
        return head

    @property
    def count(self) -> int:
        """How many parts there are, as the head says; 0 before that was read."""
        return self._expected[0]

    def parts(self) -> Iterator[tuple[str, str | int, bytes]]:
        """Mapping, key and data of each, in the order in which the keys came.

        Raises:
            Damaged, sqlite3.DatabaseError: one is not what was written, or is missing; only at the end is it known.
        """
        count = total = 0
        cursor = self._connection.execute("SELECT mapping, key, data, checksum FROM parts ORDER BY rowid")
        cursor.arraysize = _READ_AT_ONCE
        while rows := cursor.fetchmany():
            for mapping, key, data, checksum in rows:
                if zlib.crc32(data) != checksum:
                    raise Damaged(f"{mapping} {key}")
                total += checksum
                yield mapping, key, data
            count += len(rows)
        if (count, total) != self._expected:
            raise Damaged("a part is missing")


class SnapshotFile:
    """Writes the file. Each call is one in a thread; there is one at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def recover(self) -> None:
        """Undo what a server that was killed had half written; nobody else may, who only reads."""
        if self._path.exists():
            with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(self._path)) as connection:
                connection.execute("SELECT 1 FROM head").fetchone()

    def begin(self, *, anew: bool) -> None:
        """Begin a transaction. `anew`: of what the file has now, nothing is to stay.

        Raises:
            sqlite3.DatabaseError, OSError: it cannot be written.
        """
        if anew:
            self.close()
            for suffix in ("", "-journal"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            if anew:
                self._connection.executescript(f"BEGIN; {TABLES} COMMIT;")
        self._connection.execute("BEGIN IMMEDIATE")

    def put(self, mapping: str, changes: Sequence[Change]) -> None:
        """Take over changes of a mapping.

        Raises:
            sqlite3.DatabaseError: they cannot be written.
        """
        connection = self._begun()
        connection.executemany(_REMOVE, [(mapping, one.key) for one in changes if one.placed or one.data is None])
        rows = [(mapping, one.key, one.data, zlib.crc32(one.data)) for one in changes if one.data is not None]
        connection.executemany(_ADD, rows)

    def seal(self, head: Head) -> None:
        """Write the head, and make all of it last.

        Raises:
            sqlite3.DatabaseError: it cannot be written.
        """
        connection = self._begun()
        parts, checksum = connection.execute("SELECT count(*), coalesce(sum(checksum), 0) FROM parts").fetchone()
        connection.execute("DELETE FROM head")
        row = (head.fold, head.position, head.digest, parts, checksum, head.rest, head.checksum(parts, checksum))
        connection.execute("INSERT INTO head VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        connection.execute("COMMIT")

    def abandon(self) -> None:
        """Leave the file as it was before `begin`."""
        if self._connection is not None and self._connection.in_transaction:
            with suppress(sqlite3.DatabaseError):  # what failed may have ended it
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Give the file back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _begun(self) -> sqlite3.Connection:
        if self._connection is None:
            raise AssertionError("begin comes first")
        return self._connection
