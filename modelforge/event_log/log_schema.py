"""The tables of a log: those of this release, and what a log of an older one is given."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import aiosqlite

from modelforge.errors import LogUnusable
from modelforge.event_log.log_errors import translated

_SCHEMAS = ("schema.sql", "schema_2.sql", "schema_3.sql")
"""Each adds to the one before it, and is never changed once it was released."""
SCHEMA = len(_SCHEMAS)
PAGE_BYTES = 8192
"""Of a new log: rows of ten packed steps leave a seventh of a page of 4096 empty. An older log keeps its own."""
_ASKED_EVERY = 100_000
"""Instructions of SQLite's machine, some thousand records of an index."""
_HEADER_BYTES = 100
_USER_VERSION = slice(60, 64)  # https://www.sqlite.org/fileformat2.html#the_database_header


def log_schema(number: int = SCHEMA) -> str:
    """The statements that make the tables of a log that has a schema's number."""
    return "".join(Path(__file__).with_name(name).read_text() for name in _SCHEMAS[:number])


async def upgrade(
    path: Path, writer: aiosqlite.Connection, on_upgrade: Callable[[int], None], is_given_up: Callable[[], bool]
) -> None:
    """Make the tables in a new file, or add to those of an older release: all of it, or nothing.

    `on_upgrade` is told how many records a log of an older release has, before anything is added to it.

    Raises:
        LogUnusable: the file is another program's database.
    """
    async with writer.execute("PRAGMA user_version") as cursor:
        row = await cursor.fetchone()
    number = int(row[0]) if row else 0
    if number >= SCHEMA:
        return
    if number == 0:
        async with writer.execute("SELECT name FROM sqlite_schema LIMIT 1") as cursor:
            foreign = await cursor.fetchone()
        if foreign is not None:
            raise LogUnusable(
                "The event log is another program's database",
                f"{path} has {foreign[0]!r} in it and was left as it is; move it away to begin anew.",
            )
    else:
        async with writer.execute("SELECT coalesce(max(position), 0) FROM records") as cursor:
            on_upgrade(*await cursor.fetchone() or (0,))
    missing = log_schema().removeprefix(log_schema(number))
    # Of a new file before WAL, so that the number stands in the file's header, where it is read without SQLite.
    await writer.set_progress_handler(is_given_up, _ASKED_EVERY)
    try:
        await writer.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a file that has pages it changes nothing
        await writer.executescript(f"BEGIN IMMEDIATE; {missing} PRAGMA user_version = {SCHEMA}; COMMIT;")
    except sqlite3.DatabaseError:
        await writer.rollback()
        raise
    finally:
        await writer.set_progress_handler(None, 0)  # type: ignore[arg-type] # as sqlite3 has it


def refuse_foreign(path: Path) -> None:
    """Check, without touching it, that a file is a log of this release or of an older one, or none yet.

    Raises:
        LogUnusable: it is none, or a newer release wrote it.
    """
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not header.startswith(b"SQLite format 3\0"):
        raise LogUnusable("The event log is no SQLite file", f"{path} was left as it is; move it away to begin anew.")
    version = int.from_bytes(header[_USER_VERSION], "big")
    if path.with_name(f"{path.name}-wal").exists():  # the number may stand in the WAL alone; mode=ro keeps both
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
                version = max(version, int(connection.execute("PRAGMA user_version").fetchone()[0]))
        except sqlite3.DatabaseError as error:
            raise translated(path, error) from error
    if version > SCHEMA:
        raise LogUnusable(
            "A newer release wrote the event log",
            f"{path} has schema {version}, this release knows {SCHEMA}; it was left as it is. "
            "Install the newer release.",
        )
