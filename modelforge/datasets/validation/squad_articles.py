"""Articles as SQuAD is published in: their questions stand within their paragraphs."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from modelforge.datasets.validation.error_types import RecordError, short
from modelforge.datasets.validation.field_names import may_be_ignored
from modelforge.datasets.validation.file_notes import FileNotes
from modelforge.datasets.validation.recognition import format_of
from modelforge.datasets.validation.tables import Row
from trainer_entry.wire.formats import Squad, SquadAnswers


class _Answer(Struct, frozen=True, gc=False):
    text: str
    answer_start: int


class _Question(Struct, frozen=True, gc=False):
    """`answers`: missing where they are not told, which is something else than none."""

    question: str
    answers: list[_Answer] | None = None
    is_impossible: bool = False


class _Paragraph(Struct, frozen=True, gc=False):
    context: str
    qas: list[_Question]


class _Article(Struct, frozen=True, gc=False):
    paragraphs: list[_Paragraph]


_QAS = "paragraphs[].qas[]."
_PLACES: tuple[tuple[str, type[Struct]], ...] = (
    ("", _Article),
    ("paragraphs[].", _Paragraph),
    (_QAS, _Question),
    (f"{_QAS}answers[].", _Answer),
)
_BESIDE = frozenset({f"{_QAS}is_impossible"})
"""What says no more than the answers do: it is compared with them, and not learned."""


def questions_of(line: int, row: bytes | RecordError, notes: FileNotes) -> Iterator[Row]:
    """The questions of an article as records; any other row as it is."""
    if isinstance(row, RecordError) or b'"paragraphs"' not in row:
        yield line, row
        return
    try:
        whole = msgspec.json.decode(row)
        if not isinstance(whole, dict) or "paragraphs" not in whole or isinstance(format_of(row), str):
            yield line, row
            return
        article = msgspec.convert(whole, _Article)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        yield line, RecordError("paragraphs", f"It is no article as SQuAD has them: {error}.")
        return
    refused = _passed_over(whole, notes)
    if refused is not None:
        yield line, refused
        return
    for index, paragraph in enumerate(article.paragraphs):
        for place, asked in enumerate(paragraph.qas):
            yield line, _record(paragraph.context, asked, f"paragraphs[{index}].qas[{place}].answers")


def _record(context: str, asked: _Question, field: str) -> bytes | RecordError:
    if asked.answers is None and not asked.is_impossible:
        return RecordError(
            field,
            f"The question {short(asked.question)} has no 'answers'. Where the context has none, the list is empty.",
        )
    if asked.answers and asked.is_impossible:
        return RecordError(
            field,
            f"The question {short(asked.question)} is_impossible, and has answers. Take out what is not so; "
            "answers that only seem right are called 'plausible_answers'.",
        )
    found = asked.answers or []
    answers = SquadAnswers([answer.text for answer in found], [answer.answer_start for answer in found])
    return msgspec.json.encode(Squad(context, asked.question, answers))


def _passed_over(article: Mapping[str, Any], notes: FileNotes) -> RecordError | None:
    """Note what is not read of an article; the error of what must not be passed over."""
    level: list[Any] = [article]
    for path, kind in _PLACES:
        known = kind.__struct_encode_fields__
        for item in level:
            for name, value in item.items():
                place = f"{path}{name}"
                if name in known and place not in _BESIDE:
                    continue
                if name not in known and not may_be_ignored((kind, name), value):
                    return RecordError(
                        place, "It would change what is learned, and no format has it there: take it out."
                    )
                notes.ignored.add(place)
        below = known[-1] if kind is not _Question else "answers"
        level = [inner for item in level for inner in (item.get(below) or ())] if kind is not _Answer else []
    return None
