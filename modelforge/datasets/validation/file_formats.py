"""What kind of file a dataset is, and its records as JSON lines where it is not JSON lines itself.

Everything here reads a part at a time: a file of any size takes the same memory.
"""

import codecs
import contextlib
import io
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
from modelforge.datasets.validation.file_notes import FileNotes
from modelforge.datasets.validation.json_layouts import JsonLayout, json_layout, rows_of_json
from modelforge.datasets.validation.lines import LONGEST_LINE, chunks, split
from modelforge.datasets.validation.recognition import fields_of
from modelforge.datasets.validation.tables import Row, rows_of_parquet, rows_of_table
from modelforge.datasets.validation.text_encoding import encoding_by_marks, in_utf8
from trainer_entry import wire

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BOM = b"\xef\xbb\xbf"
_ARCHIVES = {b"PK\x03\x04": "a ZIP archive", b"BZh": "compressed with bzip2", b"\xfd7zXZ\x00": "compressed with xz"}
_HEAD = 1 << 16
_PART = 1 << 20


class FileFormat(Struct, frozen=True, gc=False):
    """What a file is.

    `bom`: it begins with a byte order mark. `encoding`: Python's name of what its text is in; None for UTF-8. `layout`:
    how the records of a JSON file stand in it.
    """

    container: wire.Container
    compression: wire.Compression | None
    bom: bool = False
    encoding: str | None = None
    layout: JsonLayout = "list"

    @property
    def is_plain(self) -> bool:
        """Whether a trainer can read the file as it stands."""
        return self.container == "jsonl" and self.compression is None and not self.bom and self.encoding is None


def detect_file_format(path: Path, filename: str, limit: int, encoding: str | None = None) -> FileFormat:
    """What a file is, by its first bytes; its name decides only whether a text is a table.

    `encoding`: of its text, where that was said.

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
        if encoding is not None:
            raise UnreadableFile(1, "A Parquet file says itself what its texts are in; send it without encoding.")
        return FileFormat("parquet", None)
    _refuse_archives(head)
    encoding = _encoding(head, encoding)
    if encoding is not None:
        head = codecs.getincrementaldecoder(encoding)("ignore").decode(head).encode(errors="ignore")
    bom = head.startswith(BOM)
    text = head.removeprefix(BOM)
    if name.endswith((".csv", ".tsv")) and text.lstrip()[:1] not in {b"{", b"["}:
        return FileFormat("csv", compression, bom, encoding)
    layout = json_layout(text, is_named_json=name.endswith(".json"))
    if layout is None:
        return FileFormat("jsonl", compression, bom, encoding)
    return FileFormat("json", compression, bom, encoding, layout)


def _encoding(head: bytes, said: str | None) -> str | None:
    """What a text is in that begins so, where it is known to be no UTF-8."""
    if said is None:
        return encoding_by_marks(head)
    if said in {"utf-8", "utf-8-sig"}:
        return None
    if said in {"utf-16", "utf-32"}:  # without a mark, its order is that of its zeros
        shown = encoding_by_marks(head) or said
        return shown if shown.startswith(said) else said
    return said


def _refuse_archives(head: bytes) -> None:
    for mark, name in _ARCHIVES.items():
        if head.startswith(mark):
            raise UnreadableFile(1, f"The file is {name}; send the records plain, or compressed with gzip or zstd.")


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


def rows_of(
    path: Path, kind: FileFormat, limit: int, filename: str, columns: Columns, notes: FileNotes
) -> Iterator[Row]:
    """The records of a file of any kind, with their columns named as the formats name them.

    Raises:
        UnreadableFile: the file cannot be read to its end.
    """
    if kind.container == "parquet":
        yield from rows_of_parquet(path, columns, limit)
        return
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(unpacked(path, kind.compression, limit))
        if kind.encoding is not None:
            file = opened.enter_context(in_utf8(file, kind.encoding))
        if kind.bom:
            _reading(file)(len(BOM))
        match kind.container:
            case "jsonl":
                yield from _renamed(_rows_of_lines(file), columns)
            case "json":
                yield from _renamed(rows_of_json(file, kind.layout, notes), columns)
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
