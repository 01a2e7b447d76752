"""What kind of file a dataset is, and its records as JSON lines where it is not JSON lines itself.

Everything here reads a part at a time: a file of any size takes the same memory.
"""

import csv
import io
import itertools
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from gzip import BadGzipFile, GzipFile
from pathlib import Path
from typing import Any, BinaryIO, assert_never

import msgspec
from msgspec import Struct

from modelforge.dataset_check.columns import FIELDS, Columns, check_columns
from modelforge.dataset_check.lines import LONGEST_LINE, chunks, split
from modelforge.dataset_check.records import Fault, fields_of
from modelforge.dataset_check.text_encoding import not_utf8
from modelforge.dataset_check.unusable import Unusable
from trainer_entry import wire

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BOM = b"\xef\xbb\xbf"
_UTF16 = {b"\xff\xfe": "UTF-16 (little-endian)", b"\xfe\xff": "UTF-16 (big-endian)"}
_UTF32 = {b"\xff\xfe\x00\x00": "UTF-32 (little-endian)", b"\x00\x00\xfe\xff": "UTF-32 (big-endian)"}
_ARCHIVES = {b"PK\x03\x04": "a ZIP archive", b"BZh": "compressed with bzip2", b"\xfd7zXZ\x00": "compressed with xz"}
_HEAD = 1 << 12
_PART = 1 << 20
_AFTER_LIST = "Something follows the list of records: a JSON file is one list."
_ROWS = 256  # of Parquet at a time
_STRUCTURE = re.compile(rb'\\.|["\[\]{},\n]', re.DOTALL)
_STRUCTURED = frozenset({"messages", "conversations", "answers", "prompt", "completion", "chosen", "rejected"})


class Kind(Struct, frozen=True, gc=False):
    """What a file is. `bom`: it begins with a byte order mark."""

    container: wire.Container
    compression: wire.Compression | None
    bom: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether a trainer can read the file as it stands."""
        return self.container == "jsonl" and self.compression is None and not self.bom


Row = tuple[int, bytes | Fault]
"""The line of the file at which a record begins, and the record as one line of JSON, or what is wrong there."""


def kind_of(path: Path, filename: str, limit: int) -> Kind:
    """What a file is, by its first bytes; its name decides only whether a text is a table.

    Raises:
        OSError: it cannot be read.
        Unusable: it is nothing that can be read; the message says what it is.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    compression: wire.Compression | None = None
    if head.startswith(b"\x1f\x8b"):
        compression = "gzip"
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        compression = "zstd"
    if compression is not None:
        with unpacked(path, compression, limit) as file:
            head = _reading(file)(_HEAD)
    name = re.sub(r"\.(gz|gzip|zst|zstd)$", "", filename.lower())
    if head.startswith(b"PAR1"):
        if compression is not None:
            raise Unusable(1, f"A Parquet file is compressed in itself; send it without {compression}.")
        return Kind("parquet", None)
    _refuse_unknown(head)
    bom = head.startswith(BOM)
    first = head.removeprefix(BOM).lstrip()[:1]
    if name.endswith((".csv", ".tsv")) and first not in {b"{", b"["}:
        return Kind("csv", compression, bom)
    if first == b"[" and (name.endswith(".json") or not _is_line(head, bom=bom)):
        return Kind("json", compression, bom)
    return Kind("jsonl", compression, bom)


def _is_line(head: bytes, *, bom: bool) -> bool:
    """Whether a whole list stands on the first line of many: then each line is meant to be a record."""
    first, found, rest = head.removeprefix(BOM if bom else b"").lstrip().partition(b"\n")
    if not found or not rest.strip():
        return False
    try:
        json.loads(first)
    except ValueError:
        return False
    return True


def _refuse_unknown(head: bytes) -> None:
    for mark, name in (*_UTF32.items(), *_UTF16.items()):
        if head.startswith(mark):
            raise Unusable(1, f"The file is {name}; save it as UTF-8.")
    for mark, name in _ARCHIVES.items():
        if head.startswith(mark):
            raise Unusable(1, f"The file is {name}; send the records plain, or compressed with gzip or zstd.")
    for zeros, others, name in ((head[1::2], head[::2], "little-endian"), (head[::2], head[1::2], "big-endian")):
        if zeros.count(0) * 2 > len(zeros) and not others.count(0):
            raise Unusable(1, f"The file looks like UTF-16 ({name}); save it as UTF-8.")


class _Bounded(io.RawIOBase):
    """Unpacked bytes, and no more of them than are allowed."""

    def __init__(self, file: GzipFile | zstd.ZstdFile, limit: int) -> None:
        self._file = file
        self._left = limit
        self._limit = limit
        self._lines = 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except (BadGzipFile, EOFError, zlib.error, zstd.ZstdError) as error:
            raise Unusable(self._lines, f"The compressed file is damaged or cut off: {error}.") from error
        self._left -= len(data)
        self._lines += data.count(b"\n")
        if self._left < 0:
            raise Unusable(self._lines, f"Unpacked, the file is larger than {self._limit} bytes, which are accepted.")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def unpacked(path: Path, compression: wire.Compression | None, limit: int) -> BinaryIO:
    """A file's bytes, unpacked where it is compressed; reading more than `limit` of them raises Unusable."""
    match compression:
        case None:
            return path.open("rb")
        case "gzip":
            return io.BufferedReader(_Bounded(GzipFile(path, "rb"), limit), _PART)
        case "zstd":
            return io.BufferedReader(_Bounded(zstd.ZstdFile(path, "rb"), limit), _PART)
        case _:
            assert_never(compression)


def _reading(file: BinaryIO) -> Callable[[int], bytes]:
    """Read what is asked for, though it comes in parts."""

    def read(size: int) -> bytes:
        data = b""
        while len(data) < size and (part := file.read(size - len(data))):
            data += part
        return data

    return read


def rows_of(path: Path, kind: Kind, limit: int, filename: str, columns: Columns) -> Iterator[Row]:
    """The records of a file of any kind, with their columns named as the formats name them.

    Raises:
        Unusable: the file cannot be read to its end.
    """
    if kind.container == "parquet":
        yield from _rows_of_parquet(path, columns, limit)
        return
    with unpacked(path, kind.compression, limit) as file:
        if kind.bom:
            _reading(file)(len(BOM))
        match kind.container:
            case "jsonl":
                yield from _renamed(_rows_of_lines(file), columns)
            case "json":
                yield from _renamed(_rows_of_list(file), columns)
            case "csv":
                yield from _rows_of_table(file, filename, columns)
            case _:
                assert_never(kind.container)


def _renamed(rows: Iterator[Row], columns: Columns) -> Iterator[Row]:
    if not columns:
        yield from rows
        return
    checked = False
    for number, row in rows:
        if isinstance(row, Fault):
            yield number, row
            continue
        try:
            fields = fields_of.decode(row)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield number, row  # the check says what is wrong
            continue
        if not checked:
            check_columns(columns, list(fields), number)
            checked = True
        yield number, msgspec.json.encode({columns.field(name): value for name, value in fields.items()})


def _rows_of_lines(file: BinaryIO) -> Iterator[Row]:
    number = 0
    for chunk in chunks(file):
        for line in [None] if chunk.data is None else split(chunk.data):
            number += 1
            if line is None:
                yield number, Fault(None, f"The line is longer than {LONGEST_LINE} bytes.")
            elif line.strip():
                yield number, line


def _rows_of_list(file: BinaryIO) -> Iterator[Row]:
    """The elements of one JSON list, however it is laid out."""
    line = began = 1
    depth = 0
    quoted = closed = False
    rest, element = b"", b""
    while part := file.read(_PART):
        part, rest = rest + part, b""
        if (len(part) - len(part.rstrip(b"\\"))) % 2:  # an escape is not taken apart
            part, rest = part[:-1], b"\\"
        start = 0
        for found in _STRUCTURE.finditer(part):
            mark = found[0]
            line += mark.endswith(b"\n")
            if closed and mark != b"\n":
                raise Unusable(line, _AFTER_LIST)
            if mark == b'"':
                quoted = not quoted
            elif quoted or mark[:1] == b"\\":
                continue
            elif mark in b"[{":
                depth += 1
                start = found.end() if depth == 1 else start
            elif mark in b"]}":
                depth -= 1
                if depth < 0 or (depth == 0 and mark == b"}"):
                    raise Unusable(line, f"A {mark.decode()} closes what nothing has opened.")
            if (mark == b"," and depth == 1 and not quoted) or (depth == 0 and mark == b"]"):
                element += part[start : found.start()]
                if element.strip() or mark == b",":
                    yield _element(element, began)
                element, start, began = b"", found.end(), line
                closed = closed or mark == b"]"
        element += part[start:]
        if closed and element.strip():
            raise Unusable(line, _AFTER_LIST)
        if len(element) > LONGEST_LINE:
            raise Unusable(began, f"A record is longer than {LONGEST_LINE} bytes.")
    if not closed:
        raise Unusable(line, "The list of records is cut off: its closing bracket is missing.")


def _element(text: bytes, began: int) -> Row:
    line = began + text[: len(text) - len(text.lstrip())].count(b"\n")
    if not text.strip():
        return line, Fault(None, "A comma, and no record before it.")
    try:
        return line, msgspec.json.format(text, indent=-1)
    except (msgspec.DecodeError, RecursionError) as error:
        return line, Fault(None, f"The record is not valid JSON: {error}.")


def _rows_of_table(file: BinaryIO, filename: str, columns: Columns) -> Iterator[Row]:
    """The rows of a table in text, whose first one names the columns."""
    csv.field_size_limit(LONGEST_LINE)
    text = _text_of(file)
    before = 0
    header: list[str] = []
    try:
        first = next(text, "")
        delimiter = _delimiter(first, filename)
        rows = csv.reader(itertools.chain([first], text), delimiter=delimiter, strict=True)
        for cells in rows:
            number, before = before + 1, rows.line_num
            if not header:
                header = _header(cells, columns)
            elif not any(cells):
                continue
            elif len(cells) != len(header):
                yield (
                    number,
                    Fault(
                        None,
                        f"The row has {len(cells)} cells, the header {len(header)}. Quote cells with {delimiter!r} in.",
                    ),
                )
            else:
                yield number, msgspec.json.encode(dict(zip(header, map(_cell, header, cells), strict=True)))
    except csv.Error as error:
        raise Unusable(before + 1, f"The table cannot be read: {error}.") from error


def _text_of(file: BinaryIO) -> Iterator[str]:
    """The lines of a text with their ends."""
    for number in itertools.count(1):
        line = file.readline(LONGEST_LINE + 1)
        if not line:
            return
        if len(line) > LONGEST_LINE:
            raise Unusable(number, f"The line is longer than {LONGEST_LINE} bytes.")
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise Unusable(number, not_utf8(line, error.start)) from error


def _delimiter(first: str, filename: str) -> str:
    """What separates the cells: what the first line has the most of."""
    if filename.lower().endswith((".tsv", ".tsv.gz", ".tsv.zst")):
        return "\t"
    return max(",;\t|", key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))


def _header(cells: list[str], columns: Columns) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = [name for name in names if names.count(name) > 1 or not name]
    if twice:
        raise Unusable(1, f"The first row names the columns, and {twice[0]!r} cannot name one, or names two.")
    check_columns(columns, names)
    return [columns.field(name) for name in names]


def _cell(field: str, cell: str) -> object:
    """A text, or what it says in JSON where a field takes more than a text."""
    if field in _STRUCTURED and cell[:1] in {"[", "{"}:
        try:
            return msgspec.json.decode(cell)
        except msgspec.DecodeError:
            return cell
    return cell


def _rows_of_parquet(path: Path, columns: Columns, limit: int) -> Iterator[Row]:
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            groups = (file.metadata.row_group(index) for index in range(file.metadata.num_row_groups))
            if sum(group.total_byte_size for group in groups) > limit:
                raise Unusable(1, f"Unpacked, the file is larger than {limit} bytes, which are accepted.")
            names = file.schema_arrow.names
            check_columns(columns, names)
            read = [name for name in names if columns.field(name) in FIELDS] or names[:10]
            for batch in file.iter_batches(batch_size=_ROWS, columns=read, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, _row({columns.field(name): value for name, value in row.items()})
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Unusable(number + 1, f"The Parquet file cannot be read: {_first_line(error)}.") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _row(values: dict[str, object]) -> bytes | Fault:
    for field, value in values.items():
        if isinstance(value, bytes):
            try:
                values[field] = value.decode()
            except UnicodeDecodeError:
                return Fault(field, "It is no text, and not in UTF-8.")
    try:
        return msgspec.json.encode(values, enc_hook=str)
    except (ValueError, UnicodeError) as error:
        return Fault(None, f"The row cannot be written as JSON: {error}.")
