"""What kind of file a dataset is, and its records as JSON lines where it is not JSON lines itself.

Everything here reads a part at a time: a file of any size takes the same memory.
"""

import io
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

from modelforge.datasets.validation.columns import Columns, check_columns
from modelforge.datasets.validation.error_types import RecordError, UnreadableFile
from modelforge.datasets.validation.lines import LONGEST_LINE, chunks, split
from modelforge.datasets.validation.recognition import fields_of
from modelforge.datasets.validation.tables import Row, rows_of_parquet, rows_of_table
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
_LAID_OUT = (
    "An object begins here that is laid out over several lines. Write each record on one line, or all of them as one "
    "list, in [ ] and with commas between; records that stand in a field of an object, as in data, must be taken out."
)
_STRUCTURE = re.compile(rb'\\.|["\[\]{},\n]', re.DOTALL)


class FileFormat(Struct, frozen=True, gc=False):
    """What a file is. `bom`: it begins with a byte order mark."""

    container: wire.Container
    compression: wire.Compression | None
    bom: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether a trainer can read the file as it stands."""
        return self.container == "jsonl" and self.compression is None and not self.bom


def detect_file_format(path: Path, filename: str, limit: int) -> FileFormat:
    """What a file is, by its first bytes; its name decides only whether a text is a table.

    Raises:
        OSError: it cannot be read.
        UnreadableFile: it is nothing that can be read; the message says what it is.
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
            raise UnreadableFile(1, f"A Parquet file is compressed in itself; send it without {compression}.")
        return FileFormat("parquet", None)
    _refuse_unknown(head)
    bom = head.startswith(BOM)
    first = head.removeprefix(BOM).lstrip()[:1]
    if name.endswith((".csv", ".tsv")) and first not in {b"{", b"["}:
        return FileFormat("csv", compression, bom)
    if first == b"[" and (name.endswith(".json") or not _is_line(head, bom=bom)):
        return FileFormat("json", compression, bom)
    before, opened, after = head.partition(b"{")
    line, ended, _ = after.partition(b"\n")
    if opened and ended and first == b"{" and not line.strip():
        raise UnreadableFile(before.count(b"\n") + 1, _LAID_OUT)
    return FileFormat("jsonl", compression, bom)


def _is_line(head: bytes, *, bom: bool) -> bool:
    """Whether a whole list stands on the first line of many: then each line is meant to be a record."""
    first, found, rest = head.removeprefix(BOM if bom else b"").lstrip().partition(b"\n")
    if not found or not rest.strip():
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_unknown(head: bytes) -> None:
    for mark, name in (*_UTF32.items(), *_UTF16.items()):
        if head.startswith(mark):
            raise UnreadableFile(1, f"The file is {name}; save it as UTF-8.")
    for mark, name in _ARCHIVES.items():
        if head.startswith(mark):
            raise UnreadableFile(1, f"The file is {name}; send the records plain, or compressed with gzip or zstd.")
    for zeros, others, name in ((head[1::2], head[::2], "little-endian"), (head[::2], head[1::2], "big-endian")):
        if zeros.count(0) * 2 > len(zeros) and not others.count(0):
            raise UnreadableFile(1, f"The file looks like UTF-16 ({name}); save it as UTF-8.")


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
            raise UnreadableFile(self._lines, f"The compressed file is damaged or cut off: {error}.") from error
        self._left -= len(data)
        self._lines += data.count(b"\n")
        if self._left < 0:
            raise UnreadableFile(
                self._lines, f"Unpacked, the file is larger than {self._limit} bytes, which are accepted."
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def unpacked(path: Path, compression: wire.Compression | None, limit: int) -> BinaryIO:
    """A file's bytes, unpacked where it is compressed; reading more than `limit` of them raises UnreadableFile."""
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


def rows_of(path: Path, kind: FileFormat, limit: int, filename: str, columns: Columns) -> Iterator[Row]:
    """The records of a file of any kind, with their columns named as the formats name them.

    Raises:
        UnreadableFile: the file cannot be read to its end.
    """
    if kind.container == "parquet":
        yield from rows_of_parquet(path, columns, limit)
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
                yield from rows_of_table(file, filename, columns)
            case _:
                assert_never(kind.container)


def _renamed(rows: Iterator[Row], columns: Columns) -> Iterator[Row]:
    if not columns:
        yield from rows
        return
    checked = False
    for number, row in rows:
        if isinstance(row, RecordError):
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
                yield number, RecordError(None, f"The line is longer than {LONGEST_LINE} bytes.")
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
                raise UnreadableFile(line, _AFTER_LIST)
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
                    raise UnreadableFile(line, f"A {mark.decode()} closes what nothing has opened.")
            if (mark == b"," and depth == 1 and not quoted) or (depth == 0 and mark == b"]"):
                element += part[start : found.start()]
                if element.strip() or mark == b",":
                    yield _element(element, began)
                element, start, began = b"", found.end(), line
                closed = closed or mark == b"]"
        element += part[start:]
        if closed and element.strip():
            raise UnreadableFile(line, _AFTER_LIST)
        if len(element) > LONGEST_LINE:
            raise UnreadableFile(began, f"A record is longer than {LONGEST_LINE} bytes.")
    if rest:
        raise UnreadableFile(line, _AFTER_LIST)
    if not closed:
        raise UnreadableFile(line, "The list of records is cut off: its closing bracket is missing.")


def _element(text: bytes, began: int) -> Row:
    line = began + text[: len(text) - len(text.lstrip())].count(b"\n")
    if not text.strip():
        return line, RecordError(None, "A comma, and no record before it.")
    try:
        return line, msgspec.json.format(text, indent=-1)
    except (msgspec.DecodeError, RecursionError) as error:
        return line, RecordError(None, f"The record is not valid JSON: {error}.")
