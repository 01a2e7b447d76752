"""What kind of file a dataset is, and its records as JSON lines where it is not JSON lines itself.

Everything here reads a part at a time: a file of any size takes the same memory.
"""

import contextlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, assert_never

import msgspec
from msgspec import Struct

from modelforge.datasets.validation.columns import Columns, check_columns
from modelforge.datasets.validation.error_types import RecordError, UnreadableFile
from modelforge.datasets.validation.file_notes import FileNotes
from modelforge.datasets.validation.json_layouts import JsonLayout, json_layout, rows_of_json
from modelforge.datasets.validation.lines import LONGEST_LINE, chunks, split
from modelforge.datasets.validation.packed_files import compression_of, name_in_archive, reading, unpacked
from modelforge.datasets.validation.parquet_rows import rows_of_parquet
from modelforge.datasets.validation.recognition import fields_of
from modelforge.datasets.validation.tables import Row, composed, is_evident_table, rows_of_table
from modelforge.datasets.validation.text_encoding import encoding_by_marks, head_in_utf8, in_utf8
from trainer_entry import wire

BOM = b"\xef\xbb\xbf"
_TABS = (".tsv", ".tab")
_TABLES = (".csv", *_TABS)
_HEAD = 1 << 16
_MOST_SAMPLED, _SAMPLE_BYTES = 200, 1 << 18
"""Records by which it is found which columns a file has."""


class FileFormat(Struct, frozen=True, gc=False):
    """What a file is.

    `bom`: it begins with a byte order mark. `encoding`: Python's name of what its text is in; None for UTF-8. `layout`:
    how the records of a JSON file stand in it. `is_tsv`: the name of a table says that tabs separate its cells.
    """

    container: wire.Container
    compression: wire.Compression | None
    bom: bool = False
    encoding: str | None = None
    layout: JsonLayout = "list"
    is_tsv: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether a trainer can read the file as it stands."""
        return self.container == "jsonl" and self.compression is None and not self.bom and self.encoding is None


def detect_file_format(
    path: Path, filename: str, limit: int, columns: Columns, encoding: str | None = None
) -> FileFormat:
    """What a file is, by its first bytes; its name says which text is a table, where the first line does not.

    `encoding`: of its text, where that was said.

    Raises:
        OSError: it cannot be read.
        UnreadableFile: it is nothing that can be read; the message says what it is.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    compression = compression_of(head)
    if compression == "zip":
        filename = name_in_archive(path)
    if compression is not None:
        with unpacked(path, compression, limit) as file:
            head = reading(file)(_HEAD)
        if compression_of(head) is not None:
            raise UnreadableFile(1, f"In the {compression} file is one that is compressed again; send it packed once.")
    name = re.sub(r"\.(gz|gzip|zst|zstd)$", "", filename.lower())
    if head.startswith(b"PAR1"):
        if compression is not None:
            raise UnreadableFile(1, f"A Parquet file is compressed in itself; send it without {compression}.")
        if encoding is not None:
            raise UnreadableFile(1, "A Parquet file says itself what its texts are in; send it without encoding.")
        return FileFormat("parquet", None)
    encoding = _encoding(head, encoding)
    if encoding is not None:
        head = head_in_utf8(head, encoding)
    bom = head.startswith(BOM)
    text = head.removeprefix(BOM)
    if text.lstrip()[:1] not in {b"{", b"["} and (name.endswith(_TABLES) or is_evident_table(text, columns)):
        return FileFormat("csv", compression, bom, encoding, is_tsv=name.endswith(_TABS))
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


def rows_of(path: Path, kind: FileFormat, limit: int, columns: Columns, notes: FileNotes) -> Iterator[Row]:
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
            reading(file)(len(BOM))
        match kind.container:
            case "jsonl":
                yield from _renamed(_rows_of_lines(file), columns)
            case "json":
                yield from _renamed(rows_of_json(file, kind.layout, notes), columns)
            case "csv":
                yield from rows_of_table(file, columns, notes, is_tsv=kind.is_tsv)
            case _:
                assert_never(kind.container)


def sample_record(path: Path, kind: FileFormat, limit: int) -> object:
    """What the first records of a file have, each field with the first value that says something.

    The first one itself where it is no object; None where none can be read.
    """
    rows = rows_of(path, kind, limit, Columns(every=True), FileNotes())
    sample: dict[str, object] = {}
    size = 0
    try:
        for _, row in itertools.islice(rows, _MOST_SAMPLED):
            if isinstance(row, RecordError):
                continue
            with contextlib.suppress(msgspec.DecodeError, RecursionError):
                record = msgspec.json.decode(row.decode(errors="replace"))
                if not isinstance(record, dict):
                    return sample or record
                sample |= {name: value for name, value in record.items() if not sample.get(name)}
            size += len(row)
            if size > _SAMPLE_BYTES:
                break
    except UnreadableFile:
        pass  # the check says so
    return sample or None


def _renamed(rows: Iterator[Row], columns: Columns) -> Iterator[Row]:
    if not columns:
        yield from rows
        return
    checked = False
    for number, row in rows:
        if isinstance(row, RecordError):
            yield number, row
            continue
        if columns.bare is not None and row.startswith(b"["):
            yield number, b'{"%s":%s}' % (columns.bare.encode(), row)
            continue
        try:
            fields = fields_of.decode(row)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield number, row  # the check says what is wrong
            continue
        if not checked and not columns.inferred:
            check_columns(columns, list(fields), number)
            checked = True
        yield number, composed({columns.field(name): value for name, value in fields.items()}, columns)


def _rows_of_lines(file: BinaryIO) -> Iterator[Row]:
    number = 0
    for chunk in chunks(file):
        for line in [None] if chunk.data is None else split(chunk.data):
            number += 1
            if line is None:
                yield number, RecordError(None, f"The line is longer than {LONGEST_LINE} bytes.")
            elif line.strip():
                yield number, line
