"""The rows of tables, which are CSV or Parquet, as records in JSON; a part at a time."""

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from modelforge.datasets.validation.columns import FIELDS, LONGEST_COLUMN, Columns, NotComposable, check_columns
from modelforge.datasets.validation.error_types import RecordError, UnreadableFile, short
from modelforge.datasets.validation.field_names import REFUSED
from modelforge.datasets.validation.file_notes import FileNotes
from modelforge.datasets.validation.lines import LONGEST_LINE
from modelforge.datasets.validation.proposals import propose
from modelforge.datasets.validation.readings import read_columns
from modelforge.datasets.validation.recognition import format_shown_by, required_fields
from modelforge.datasets.validation.text_encoding import not_utf8

Row = tuple[int, bytes | RecordError]
"""The line of the file at which a record begins, and the record as one line of JSON, or what is wrong there."""

_SEPARATOR = re.compile(r'"?sep=([,;\t|:~^!])"?[;,\s]*', re.IGNORECASE)
_MOST_ROWS = 256  # of Parquet at a time
_ROWS_BYTES = 2 << 20
_BUFFER = 1 << 20
_QUOTED = 200  # characters of a library's message
_STRUCTURED = frozenset({"messages", "conversations", "answers", "history", "tools"})
_MAY_BE_EMPTY = frozenset({"history", "tools"})
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
    text = _TextLines(file)
    first = next((line for line in text if line.strip()), "")
    said = _SEPARATOR.fullmatch(first)
    if said is not None:
        first = next((line for line in text if line.strip()), "")
    skipped = before = text.number - bool(first)
    header: list[str] = []
    nameless: list[int] = []
    try:
        delimiter = said[1] if said is not None else "\t" if is_tsv else _delimiter(first)
        rows = csv.reader(itertools.chain([first], text), delimiter=delimiter, strict=True)
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
            else:
                notes.ignored.update(f"column {at + 1}" for at in nameless if cells[at].strip())
                named = zip(header, cells, strict=False)
                yield number, composed({name: _cell(name, cell) for name, cell in named if name}, columns)
    except csv.Error as error:
        value = str(error)
        if value.startswith("new-line character"):
            value = "a carriage return (CR) stands alone; end lines with LF, and quote cells with line breaks"
        raise UnreadableFile(before + 1, f"The table cannot be read: {value}.") from error


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


def rows_of_parquet(path: Path, columns: Columns, limit: int) -> Iterator[Row]:
    """The rows of a Parquet file, of the columns that are fields.

    Raises:
        UnreadableFile: the file cannot be read to its end, or says that it is larger than `limit` bytes.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER) as file:
            groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
            if sum(group.total_byte_size for group in groups) > limit:
                raise UnreadableFile(1, f"Unpacked, the file is larger than {limit} bytes, which are accepted.")
            schema = file.schema_arrow
            check_columns(columns, schema.names)
            read = [name for name in schema.names if _is_read(name, columns)] or schema.names[:10]
            packed = {columns.field(column.name) for column in schema if "binary" in str(column.type)}
            longest = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
            at_once = max(1, min(_MOST_ROWS, _ROWS_BYTES // max(1, longest)))
            for batch in file.iter_batches(batch_size=at_once, columns=read, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, _row({columns.field(name): value for name, value in row.items()}, packed, columns)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UnreadableFile(number + 1, f"The Parquet file cannot be read: {_first_line(error)}.") from error


def _is_read(name: str, columns: Columns) -> bool:
    return columns.every or columns.field(name) in FIELDS | REFUSED or columns.is_source(name)


def columns_not_read(path: Path, columns: Columns) -> list[str]:
    """The columns of a Parquet file that could be read that are none of a format."""
    from pyarrow import parquet

    return [name for name in parquet.read_schema(path).names if not _is_read(name, columns)]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:_QUOTED]


def _row(values: dict[str, object], packed: set[str], columns: Columns) -> bytes | RecordError:
    """A row in JSON. `packed`: the fields in which bytes stand for text."""
    for field in packed & values.keys():
        try:
            values[field] = _as_text(values[field])
        except UnicodeDecodeError:
            return RecordError(field, "It is no text, and not in UTF-8.")
    try:
        return composed(values, columns)
    except (ValueError, UnicodeError) as error:
        return RecordError(None, f"The row cannot be written as JSON: {error}.")


def _as_text(value: object) -> object:
    """A value with its bytes as text, wherever they are in it."""
    match value:
        case bytes():
            return value.decode()
        case list():
            return [_as_text(item) for item in value]
        case dict():
            return {name: _as_text(item) for name, item in value.items()}
        case _:
            return value
