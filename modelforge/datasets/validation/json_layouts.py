"""How records stand in a file of JSON that has not one on each line, and its records; a part at a time."""

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal, assert_never

import msgspec
from msgspec import Struct, field

from modelforge.datasets.validation.error_types import RecordError, UnreadableFile
from modelforge.datasets.validation.lines import LONGEST_LINE
from modelforge.datasets.validation.tables import Row
from trainer_entry.wire.formats import Squad, SquadAnswers

JsonLayout = Literal["list", "wrapped", "sequence"]
"""One list; a list in a field of one object, as in `{"data": […]}`; objects that follow each other, over any lines."""

_PART = 1 << 20
_AFTER_LIST = "Something follows the list of records: a JSON file is one list."
_STRUCTURE = re.compile(rb'\\.|["\[\]{},\n]', re.DOTALL)
_WRAPPED = re.compile(
    rb'\s*\{(?:\s*"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[\w.+-]+)\s*,)*'
    rb'\s*"(?:data|dataset|rows|examples|records|items|samples|entries|train)"\s*:\s*(?=\[)'
)


def json_layout(head: bytes, *, is_named_json: bool) -> JsonLayout | None:
    """How records stand in a file that begins so; None for one record on each line."""
    text = head.lstrip()
    first, ended, rest = text.partition(b"\n")
    if text.startswith(b"["):
        return "list" if is_named_json or not (rest.strip() and _is_json(first)) else None
    if not text.startswith(b"{"):
        return None
    if _WRAPPED.match(text):
        return "wrapped"
    if _is_json(first):
        return None
    if _is_json(first.rstrip().removesuffix(b",")) or _several(first):
        return "sequence"
    return "sequence" if ended and _is_open(first) and rest.lstrip()[:1] in b'"}[' else None


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
    """Whether an object that begins on the line does not end there."""
    depth, quoted = 0, False
    for found in _STRUCTURE.finditer(line):
        mark = found[0]
        quoted ^= mark == b'"'
        if not quoted and mark in b"[{":
            depth += 1
        elif not quoted and mark in b"]}":
            depth -= 1
    return depth > 0 and not quoted


def rows_of_json(file: BinaryIO, layout: JsonLayout) -> Iterator[Row]:
    """The records of a JSON file.

    Raises:
        UnreadableFile: it cannot be read to its end.
    """
    match layout:
        case "list":
            yield from _elements(file, b"", 1, inside=1)
        case "wrapped":
            head = file.read(_PART)
            found = _WRAPPED.match(head)
            begins = 0 if found is None else found.end()
            line = head.count(b"\n", 0, begins) + 1
            for number, row in _elements(file, head[begins:], line, inside=1, wrapped=True):
                yield from _questions(number, row)
        case "sequence":
            yield from _elements(file, b"", 1, inside=0)
        case _:
            assert_never(layout)


def _elements(file: BinaryIO, rest: bytes, line: int, *, inside: int, wrapped: bool = False) -> Iterator[Row]:
    """The elements that stand `inside` so many brackets: of one list, or one after the other."""
    began = line
    depth = 0
    quoted = closed = escaped = False
    element = b""
    while part := rest + file.read(_PART):
        rest = b""
        if escaped := (len(part) - len(part.rstrip(b"\\"))) % 2 == 1:  # an escape is not taken apart
            part, rest = part[:-1], b"\\"
            if not part:
                break
        start = 0
        for found in _STRUCTURE.finditer(part):
            mark = found[0]
            line += mark.endswith(b"\n")
            if closed and mark != b"\n":
                raise UnreadableFile(line, _AFTER_LIST)
            if mark == b'"':
                quoted = not quoted
            if quoted or mark[:1] in b'"\\':
                continue
            if mark in b"[{":
                depth += 1
                start = found.end() if depth == 1 and inside else start
            elif mark in b"]}":
                depth -= 1
                if depth < 0 or (inside and depth == 0 and mark == b"}"):
                    raise UnreadableFile(line, f"A {mark.decode()} closes what nothing has opened.")
            ends = depth == 0 and mark in b"]}"
            if ends or (mark == b"," and depth == inside):
                element += part[start : found.end() if ends and not inside else found.start()]
                if element.strip() or (inside and not ends):
                    yield _element(element, began)
                element, start, began = b"", found.end(), line
                closed = ends and bool(inside)
                if closed and wrapped:
                    return
        element += part[start:]
        if closed and element.strip():
            raise UnreadableFile(line, _AFTER_LIST)
        if len(element) > LONGEST_LINE:
            raise UnreadableFile(began, f"A record is longer than {LONGEST_LINE} bytes.")
    if escaped and closed:
        raise UnreadableFile(line, _AFTER_LIST)
    if inside and not closed:
        raise UnreadableFile(line, "The list of records is cut off: its closing bracket is missing.")
    if element.strip():
        yield _element(element, began)


def _element(text: bytes, began: int) -> Row:
    line = began + text[: len(text) - len(text.lstrip())].count(b"\n")
    if not text.strip():
        return line, RecordError(None, "A comma, and no record before it.")
    try:
        return line, msgspec.json.format(text, indent=-1)
    except (msgspec.DecodeError, RecursionError) as error:
        return line, RecordError(None, f"The record is not valid JSON: {error}.")


class _Answer(Struct, frozen=True, gc=False):
    text: str
    answer_start: int


class _Question(Struct, frozen=True, gc=False):
    question: str
    answers: list[_Answer] = []
    id: Any = None


class _Paragraph(Struct, frozen=True, gc=False):
    context: str
    qas: list[_Question]


class _Article(Struct, frozen=True, gc=False):
    """An article of SQuAD: its questions stand within its paragraphs."""

    paragraphs: list[_Paragraph] = field(name="paragraphs")


def _questions(line: int, row: bytes | RecordError) -> Iterator[Row]:
    """The questions of an article of SQuAD as records; any other row as it is."""
    if isinstance(row, RecordError) or b'"paragraphs"' not in row:
        yield line, row
        return
    try:
        article = msgspec.json.decode(row, type=_Article)
    except (msgspec.DecodeError, RecursionError) as error:
        yield line, RecordError("paragraphs", f"It is no article as SQuAD has them: {error}.")
        return
    for paragraph in article.paragraphs:
        for asked in paragraph.qas:
            answers = SquadAnswers(
                [answer.text for answer in asked.answers], [answer.answer_start for answer in asked.answers]
            )
            yield line, msgspec.json.encode(Squad(paragraph.context, asked.question, answers))
