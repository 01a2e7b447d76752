"""The rows of tables in text, as records in JSON; a part at a time."""

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import msgspec

from modelforge.datasets.validation.columns import LONGEST_COLUMN, Columns, NotComposable, check_columns
from modelforge.datasets.validation.error_types import RecordError, UnreadableFile, short
from modelforge.datasets.validation.file_notes import FileNotes
from modelforge.datasets.validation.lines import LONGEST_LINE
from modelforge.datasets.validation.proposals import propose
from modelforge.datasets.validation.readings import read_columns
from modelforge.datasets.validation.recognition import format_shown_by, required_fields
from modelforge.datasets.validation.text_encoding import not_utf8
from modelforge.errors import LineError

Row = tuple[int, bytes | RecordError]
"""The line of the file at which a record begins, and the record as one line of JSON, or what is wrong there."""

_SEPARATOR = re.compile(r'"?sep=([,;\t|:~^!])"?[;,\s]*', re.IGNORECASE)
_HEAD = 1 << 16
_RULE = re.compile(r":?-{3,}:?")
_STRUCTURED = frozenset({"messages", "conversations", "answers", "history", "tools"})
_VALUES = frozenset({"answer_start", "is_impossible"})
_VALUE = re.compile(r"-?\d{1,12}|true|false", re.IGNORECASE)
_MAY_BE_EMPTY = frozenset({"history", "tools"}) | _VALUES
_TEXT_OR_TURNS = frozenset({"prompt", "completion", "chosen", "rejected"})


def has_all_fields(names: Iterable[str]) -> bool:
    """Whether there are, among these, all fields that a record of some format must have."""
    has = {*names}
    shown = format_shown_by(has)
    return shown is not None and has >= {*required_fields(shown)}


def is_evident_table(head: bytes, columns: Columns) -> bool:
    """Whether a text begins with the names of columns that records can be made of."""
    lines = (line for line in head.decode(errors="replace").splitlines() if line.strip())
    first = next(lines, "")
    said = _SEPARATOR.fullmatch(first)
    if said is not None:
        first = next(lines, "")
    names = [name.strip() for name in _cells(first, _delimiter(first) if said is None else said[1]) if name.strip()]
    if len(names) < 2 or max(map(len, names)) > LONGEST_COLUMN:  # noqa: PLR2004 - any sentence is one column
        return False
    if columns.given:
        return has_all_fields(names) or columns.sources <= {*names}
    is_read = bool(read_columns(dict.fromkeys(names, "")).given)
    return has_all_fields(names) or is_read or propose(dict.fromkeys(names), alone=False) is not None


def rows_of_table(file: BinaryIO, columns: Columns, notes: FileNotes, *, is_tsv: bool) -> Iterator[Row]:
    """The rows of a table in text, whose first one names the columns; before it may stand what separates them (Excel).

    Raises:
        UnreadableFile: the table cannot be read to its end.
    """
    csv.field_size_limit(LONGEST_LINE)
    text = _TextLines(_in_lines(file))
    first = next((line for line in text if line.strip()), "")
    said = _SEPARATOR.fullmatch(first)
    if said is not None:
        first = next((line for line in text if line.strip()), "")
    skipped = before = text.number - bool(first)
    header: list[str] = []
    nameless: list[int] = []
    merged = False
    try:
        delimiter = said[1] if said is not None else "\t" if is_tsv else _delimiter(first)
        spaced = all(cell.startswith(" ") for cell in _cells(first, delimiter)[1:])
        rows = csv.reader(itertools.chain([first], text), delimiter=delimiter, strict=True, skipinitialspace=spaced)
        for cells in rows:
            text.row_length = 0
            number, before = before + 1, skipped + rows.line_num
            if not header:
                header = cells and _header(cells, columns, number)
                nameless = [at for at, name in enumerate(header) if not name]
            elif not any(cells):
                continue
            elif len(cells) != len(header) and (len(cells) < len(header) or any(cells[len(header) :])):
                yield (
                    number,
                    RecordError(
                        None,
                        f"The row has {len(cells)} cells, the header {len(header)}. Quote cells with {delimiter!r} in.",
                    ),
                )
            elif delimiter == "|" and _is_rule(cells):
                raise UnreadableFile(number, "The table is one of Markdown; save it as CSV.")
            else:
                if before > number and not merged:
                    merged = _with_rows_within(cells, delimiter, len(header))
                    if merged:
                        notes.warnings.append(_merged(number, before))
                notes.ignored.update(f"column {at + 1}" for at in nameless if cells[at].strip())
                named = zip(header, cells, strict=False)
                yield number, composed({name: _cell(name, cell) for name, cell in named if name}, columns)
    except csv.Error as error:
        value = str(error)
        if value.startswith("new-line character"):
            value = "a carriage return (CR) stands alone; end lines with LF, and quote cells with line breaks"
        raise UnreadableFile(before + 1, f"The table cannot be read: {value}.") from error


def _in_lines(file: BinaryIO) -> BinaryIO:
    """The file with its lines ended by LF, where a carriage return alone ends them."""
    buffered = io.BufferedReader(_Unread(file), _HEAD)
    head = buffered.peek(_HEAD)
    return io.BufferedReader(_LineFeeds(buffered), _HEAD) if b"\r" in head and b"\n" not in head else buffered


class _Unread(io.RawIOBase):
    """A file as `io` has raw ones."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _LineFeeds(_Unread):
    """A file with line feeds in the place of carriage returns."""

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer)).replace(b"\r", b"\n")
        buffer[: len(data)] = data
        return len(data)


def _is_rule(cells: list[str]) -> bool:
    """Whether it is the line below the names of a table in Markdown."""
    told = [cell.strip() for cell in cells if cell.strip()]
    return bool(told) and all(map(_RULE.fullmatch, told))


def _with_rows_within(cells: list[str], delimiter: str, width: int) -> bool:
    """Whether a line inside of a cell looks like a row of its own."""
    lines = (line for cell in cells for line in cell.splitlines()[1:])
    return width > 1 and any(len(_cells(line, delimiter)) == width for line in lines)


def _merged(first: int, last: int) -> LineError:
    return LineError(
        first, None, f"The lines {first} to {last} are one row, and look like several: is a quote missing, or too many?"
    )


class _TextLines:
    """The lines of a text with their ends. `number`: of the last one. `row_length`: since it was last set to 0."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.number = 0
        self.row_length = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(LONGEST_LINE + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.row_length += len(line)
        if len(line) > LONGEST_LINE:
            raise UnreadableFile(self.number, f"The line is longer than {LONGEST_LINE} bytes.")
        if self.row_length > LONGEST_LINE:
            raise UnreadableFile(self.number, f"The row that ends here, or later, is longer than {LONGEST_LINE} bytes.")
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise UnreadableFile(self.number, not_utf8(line, error.start)) from error


def _delimiter(first: str) -> str:
    """What separates the cells: what the first line has the most of."""
    return max(",;\t|", key=lambda mark: len(_cells(first, mark)))


def _cells(line: str, delimiter: str) -> list[str]:
    """The cells of a line, whatever is wrong with it; none of a line that no delimiter can separate."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _header(cells: list[str], columns: Columns, line: int) -> list[str]:
    """The names of the columns; one without a name, as that of row numbers often is, is left out of the records."""
    names = [cell.strip() for cell in cells]
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise UnreadableFile(line, f"The first row names the columns, and {short(twice[0])} names two.")
    if not any(names):
        raise UnreadableFile(line, "The first row names the columns, and it has no name.")
    check_columns(columns, [name for name in names if name], line)
    return [name and columns.field(name) for name in names]


def _cell(field: str, cell: str) -> object:
    """A text, or what it says in JSON where a field takes more than a text."""
    if not cell.strip() and field in _MAY_BE_EMPTY:
        return None
    if field in _VALUES and _VALUE.fullmatch(cell.strip()):
        told = cell.strip().lower()
        return told == "true" if told in {"true", "false"} else int(told)
    if cell[:1] in {"[", "{"} and field in _STRUCTURED | _TEXT_OR_TURNS:
        try:
            value: object = msgspec.json.decode(cell)
        except (msgspec.DecodeError, RecursionError):
            return cell
        if field in _STRUCTURED or _is_turns(value):
            return value
    return cell


def _is_turns(value: object) -> bool:
    """Whether it is a list of messages, and not an answer that happens to be JSON."""
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) and "role" in turn for turn in value)


def composed(row: dict[str, object], columns: Columns) -> bytes | RecordError:
    """The record of a row whose columns have the names of fields, in JSON."""
    if columns:
        try:
            row = columns.compose(row)
        except NotComposable as refused:
            return refused.error
        except (msgspec.DecodeError, RecursionError) as error:
            return RecordError(None, f"The record is not valid JSON: {error}.")
    return msgspec.json.encode(row, enc_hook=str)
