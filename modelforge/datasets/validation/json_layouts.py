"""How records stand in a file of JSON that has not one on each line, and its records; a part at a time."""

import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Literal, NamedTuple, assert_never

import msgspec

from modelforge.datasets.validation.columns import FIELDS
from modelforge.datasets.validation.error_types import RecordError, UnreadableFile, short
from modelforge.datasets.validation.field_names import REFUSED
from modelforge.datasets.validation.file_notes import FileNotes
from modelforge.datasets.validation.json_pieces import Piece, pieces
from modelforge.datasets.validation.recognition import fields_of
from modelforge.datasets.validation.squad_articles import questions_of
from modelforge.datasets.validation.tables import Row, has_all_fields
from modelforge.errors import LineError

JsonLayout = Literal["list", "wrapped", "sequence"]
"""One list; a list in a field of one object, as in `{"data": […]}`; objects that follow each other, over any lines."""

_AFTER_LIST = "Something follows the list of records: a JSON file is one list."
_AFTER_WRAPPER = "Something follows the object that the list of records stands in: a JSON file is one object."
_CUT_OFF = "The list of records is cut off: its closing bracket is missing."
_WRAPPER_CUT_OFF = "The object that the list of records stands in is cut off: its closing brace is missing."
_LISTS = frozenset({"data", "dataset", "rows", "examples", "records", "items", "samples", "entries", "train"})
"""Fields in which the records of a file are."""
_TEXT = re.compile(rb'"(?:\\.|[^"\\])*"', re.DOTALL)
_MORE_LISTS = _LISTS | {"test", "validation", "valid", "val", "dev", "eval"}


def json_layout(head: bytes, *, is_named_json: bool) -> JsonLayout | None:
    """How records stand in a file that begins so; None for one record on each line."""
    text = head.lstrip()
    first, _, rest = text.partition(b"\n")
    if text.startswith(b"["):
        return "list" if is_named_json or not (rest.strip() and _is_json(first)) else None
    if not text.startswith(b"{"):
        return None
    if _is_wrapper(text):
        return "wrapped"
    if _is_json(first):
        return "sequence" if rest.lstrip().startswith(b",") else None
    if _is_json(first.rstrip().removesuffix(b",")) or _several(first):
        return "sequence"
    # After a record that is cut off stands another one; in a list, or after a colon, an object may go on so.
    goes_on = first.rstrip().endswith(b":") or not rest.lstrip().startswith(b"{") or _innermost(first) == b"["
    return "sequence" if rest.strip() and goes_on and _is_open(first) else None


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _several(line: bytes) -> bool:
    """Whether an object stands on the line, and another after it."""
    try:
        text = line.decode()
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return text[end:].lstrip(" \t,").startswith("{")


def _is_open(line: bytes) -> bool:
    """Whether an object that begins on the line does not end there, nor a text."""
    try:
        *_, last = pieces(io.BytesIO(line), 0)
    except UnreadableFile:
        return False
    return last.text.lstrip().startswith(b"{") and _ends_outside_text(last.text)


def _innermost(line: bytes) -> bytes:
    """The bracket that the line has opened last and not closed."""
    opened = bytearray()
    for mark in _TEXT.sub(b"", line):
        if mark in b"[{":
            opened.append(mark)
        elif mark in b"]}" and opened:
            opened.pop()
    return bytes(opened[-1:])


def _ends_outside_text(text: bytes) -> bool:
    return text.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"') % 2 == 0


def _is_wrapper(text: bytes) -> bool:
    """Whether a text that begins so is one object with the list of records in it, and no record itself."""
    first, _, rest = text.partition(b"\n")
    try:
        found = _before_list(pieces(io.BytesIO(text), 2))
    except UnreadableFile:
        return False
    if found is None or _show_a_record(found[0] | _fields_in(first)):
        return False
    return not (_is_json(first) and rest.strip()) or _show_a_record(_fields_in(found[1]))


def _before_list(parts: Iterator[Piece]) -> tuple[set[str], bytes] | None:
    """The fields up to the list of records, and its first element as far as it is there; None if there is no list.

    Raises:
        UnreadableFile: it is no JSON.
    """
    names: set[str] = set()
    mark = next(parts).mark
    while mark in {b"{", b","}:
        piece = next(parts)
        if not piece.mark or not piece.text.strip():
            return None
        member, mark = _member(piece), piece.mark
        names.add(member.name)
        if member.name in _LISTS and mark == b"[":
            return names, next(parts).text
        if member.is_open:
            while (mark := next(parts).mark) == b",":
                pass
            mark = next(parts).mark if mark else b""
    return None


class _Member(NamedTuple):
    name: str
    is_open: bool


def _member(piece: Piece) -> _Member:
    """The name of a field of an object, and whether its value is a list or an object that begins with the mark.

    Raises:
        UnreadableFile: it is no field.
    """
    is_open = piece.mark in {b"[", b"{"}
    try:
        ((name, _),) = fields_of.decode(b"{%b%b}" % (piece.text, b"0" if is_open else b"")).items()
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(piece.line, f"Around the list of records is no valid JSON: {error}.") from error
    return _Member(name, is_open)


def _show_a_record(fields: Iterable[str]) -> bool:
    """Whether these are all the fields that a record must have, or those of an article of SQuAD."""
    has = {*fields}
    return "paragraphs" in has or has_all_fields(has)


def rows_of_json(file: BinaryIO, layout: JsonLayout, notes: FileNotes) -> Iterator[Row]:
    """The records of a JSON file, with what stands beside them noted.

    Raises:
        UnreadableFile: it cannot be read to its end.
    """
    match layout:
        case "list":
            rows = _rows_of_list(file)
        case "wrapped":
            rows = _Wrapper(pieces(file, 2), notes).rows()
        case "sequence":
            rows = _rows_in_sequence(file)
        case _:
            assert_never(layout)
    for number, row in rows:
        yield from questions_of(number, row, notes)


def _rows_of_list(file: BinaryIO) -> Iterator[Row]:
    parts = pieces(file, 1)
    next(parts)  # to its opening bracket
    yield from _elements(parts)
    _refuse_more(parts, _AFTER_LIST)


def _rows_in_sequence(file: BinaryIO) -> Iterator[Row]:
    after_record = False
    for piece in pieces(file, 0):
        if piece.text.strip():
            yield _element(piece)
        elif piece.mark == b"," and not after_record:
            yield piece.ended, RecordError(None, "A comma, and no record before it.")
        after_record = piece.mark != b","


def _elements(parts: Iterator[Piece]) -> Iterator[Row]:
    """The elements of a list that was opened, up to its closing bracket."""
    for piece in parts:
        if not piece.mark:
            raise UnreadableFile(piece.ended, _CUT_OFF)
        if piece.text.strip():
            yield _element(piece)
        elif piece.mark == b",":
            yield piece.ended, RecordError(None, "A comma, and no record before it.")
        if piece.mark == b"]":
            return


def _element(piece: Piece) -> Row:
    try:
        return piece.line, msgspec.json.format(piece.text, indent=-1)
    except (msgspec.DecodeError, RecursionError) as error:
        return piece.line, RecordError(None, f"The record is not valid JSON: {error}.")


def _refuse_more(parts: Iterator[Piece], message: str) -> None:
    for piece in parts:
        if piece.text.strip() or piece.mark:
            raise UnreadableFile(piece.line, message)


class _Wrapper:
    """An object with the list of records in one of its fields; the others are noted by their names."""

    def __init__(self, parts: Iterator[Piece], notes: FileNotes) -> None:
        self._parts = parts
        self._notes = notes
        self._records: str | None = None
        self._fields: set[str] = set()
        self._others: list[tuple[str, int, set[str]]] = []

    def rows(self) -> Iterator[Row]:
        """The records.

        Raises:
            UnreadableFile: the object cannot be read to its end, or has a second list of records.
        """
        next(self._parts)  # to its opening brace
        mark = b","
        while mark == b",":
            piece = self._next()
            if piece.mark == b"}" and not piece.text.strip():
                break
            member, mark = _member(piece), piece.mark
            if self._records is None and member.name in _LISTS and mark == b"[":
                self._records = member.name
                yield from self._noting_fields(_elements(self._parts))
            else:
                self._pass_over(member.name, piece)
            if member.is_open:
                after = self._next()
                if after.text.strip():
                    raise UnreadableFile(after.line, f"After {short(member.name)} a comma or a brace is missing.")
                mark = after.mark
        _refuse_more(self._parts, _AFTER_WRAPPER)
        for name, line, fields in self._others:
            if name in _MORE_LISTS or _show_a_record(fields) or fields == self._fields:
                raise UnreadableFile(
                    line,
                    f"{short(name)} is a list of records beside {short(self._records or '')}: leave one of both out, "
                    "or send each as a file of its own.",
                )

    def _next(self) -> Piece:
        piece = next(self._parts)
        if not piece.mark:
            raise UnreadableFile(piece.ended, _WRAPPER_CUT_OFF)
        return piece

    def _noting_fields(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows, with the fields of the first one noted."""
        for number, row in rows:
            if not self._fields and isinstance(row, bytes):
                self._fields = _fields_in(row)
            yield number, row

    def _pass_over(self, name: str, piece: Piece) -> None:
        """Read what is no list of records, and note its name; and the fields of its first object, if it is a list."""
        self._notes.ignored.add(name)
        if name in FIELDS | REFUSED:
            self._notes.warnings.append(
                LineError(piece.line, name, "It stands beside the list of records, and is not read.")
            )
        within, line = piece.mark, piece.line
        fields: set[str] = set()
        mark = b"," if within in {b"[", b"{"} else b""
        while mark == b",":
            piece = self._next()
            mark = piece.mark
            if piece.text.strip() and within == b"{":
                _member(piece)
            elif not fields:
                fields = _fields_in(piece.text)
        if fields:
            self._others.append((name, line, fields))


def _fields_in(text: bytes) -> set[str]:
    """The fields of an object; none of anything else."""
    try:
        return {*fields_of.decode(text)}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return set()
