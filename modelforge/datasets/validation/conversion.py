"""The records of a file that is no plain JSON lines, written as JSON lines; each remembers where it came from."""

import array
import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from modelforge.datasets.validation.columns import Columns
from modelforge.datasets.validation.error_types import RecordError, UnreadableFile, too_large
from modelforge.datasets.validation.file_formats import FileFormat, rows_of
from modelforge.datasets.validation.file_notes import FileNotes
from modelforge.datasets.validation.line_validator import LISTED
from modelforge.datasets.validation.protocol import CheckRequest
from modelforge.datasets.validation.values_as_texts import ValuesAsTexts
from modelforge.errors import LineError
from modelforge.machine.disk_space import check_room

_REPORT_EVERY = 8 << 20
_BYTES = 8  # of a number
_NUMBERS = 1 << 13


class Converted(Struct, kw_only=True, gc=False):
    """What was written, its hash and size, where the file could not be read, and what is to be said of it."""

    records: int = 0
    size: int = 0
    sha256: str = ""
    errors: list[LineError] = []
    error_count: int = 0
    notes: FileNotes = msgspec.field(default_factory=FileNotes)

    def add_error(self, line: int, field: str | None, message: str) -> None:
        """Count an error, and list it if it is among the first."""
        self.error_count += 1
        if len(self.errors) < LISTED:
            self.errors.append(LineError(line, field, message))


def convert(
    path: Path,
    request: CheckRequest,
    kind: FileFormat,
    columns: Columns,
    origins: Path,
    on_progress: Callable[[int], None],
    as_texts: ValuesAsTexts | None = None,
) -> Converted:
    """Write the records of a file where the request wants them, and the line that each came from into `origins`.

    `on_progress` gets how many bytes were written, now and then. `as_texts`: what makes texts of numbers, where the
    file has some.

    Raises:
        OSError: the file cannot be read, or the disk is full.
    """
    done = Converted()
    digest = hashlib.sha256()
    numbers: array.array[int] = array.array("q")
    last_reported = 0
    with Path(request.records).open("wb") as out, origins.open("wb") as beside:
        try:
            for line, row in rows_of(path, kind, request.limit, columns, done.notes):
                if isinstance(row, RecordError):
                    done.add_error(line, row.field, row.message)
                    continue
                if as_texts is not None:
                    row = as_texts.record(line, row)  # noqa: PLW2901 - the same record
                if done.size + len(row) > request.limit:
                    raise too_large(line, "As JSON lines, the records are", request.limit, path.stat().st_size)
                data = row + b"\n"
                out.write(data)
                digest.update(data)
                numbers.append(line)
                done.records += 1
                done.size += len(data)
                if done.size - last_reported > _REPORT_EVERY:
                    last_reported = done.size
                    check_room(out.fileno(), request.reserve)
                    on_progress(done.size)
                if len(numbers) > _NUMBERS:
                    beside.write(numbers.tobytes())
                    del numbers[:]
        except UnreadableFile as unusable:
            done.add_error(unusable.line, None, unusable.message)
        beside.write(numbers.tobytes())
    if as_texts is not None:
        done.notes.warnings += as_texts.warnings()
    done.sha256 = digest.hexdigest()
    return done


class Origins:
    """The lines that records came from, as they were noted beside them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def line(self, record: int) -> int:
        """The line of the file for a record; records count from 1."""
        with self._path.open("rb") as file:
            file.seek((record - 1) * _BYTES)
            found: array.array[int] = array.array("q", file.read(_BYTES))
        return found[0]

    def traced(self, error: LineError) -> LineError:
        """An error of a record, at the line of the file that the record came from."""
        return msgspec.structs.replace(error, line=self.line(error.line))
