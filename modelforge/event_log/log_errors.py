"""What an error of SQLite on a log means: that there is no room, or that the log cannot be used."""

import sqlite3
from pathlib import Path

from modelforge.errors import NO_ROOM, LogUnusable, StorageFull

_FAILED_WRITES = {sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_SHMSIZE}
_PROBE_BYTES = 1 << 17


def translated(path: Path, error: sqlite3.DatabaseError) -> StorageFull | LogUnusable:
    """What an error of SQLite on a log means."""
    code = error.sqlite_errorcode
    # A write that fails for a quota, or for a limit on a file's size, is to SQLite like one that fails for the disk.
    if code == sqlite3.SQLITE_FULL or (code in _FAILED_WRITES and not _has_room(path)):
        return StorageFull(
            "No space is left on the disk", f"Free some space on the disk of {path.parent} and try again."
        )
    return LogUnusable("The event log cannot be used", f"{path}: {error}")


def _has_room(path: Path) -> bool:
    """Whether a file beside the log can become as large as the log or its WAL is, and a little larger."""
    probe = path.with_name(f"{path.name}-probe")
    files = [file for file in (path, path.with_name(f"{path.name}-wal")) if file.exists()]
    try:
        with probe.open("wb", buffering=0) as file:
            file.seek(max((file.stat().st_size for file in files), default=0))
            return file.write(bytes(_PROBE_BYTES)) == _PROBE_BYTES
    except OSError as error:
        return error.errno not in NO_ROOM
    finally:
        probe.unlink(missing_ok=True)
