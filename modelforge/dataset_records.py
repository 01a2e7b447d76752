"""The records of a dataset, format by format, and how the format of one is recognised."""

from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec import Struct

from trainer_entry import wire


class InputOutput(Struct, frozen=True, gc=False):
    """A prompt and the answer to learn."""

    input: str
    output: str


class Message(Struct, frozen=True, gc=False):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Conversation(Struct, frozen=True, gc=False):
    """A conversation whose assistant turns are to be learned."""

    messages: list[Message]


class DocumentSummary(Struct, frozen=True, gc=False):
    """A text and its summary."""

    document: str
    summary: str


class ArticleHighlights(Struct, frozen=True, gc=False):
    """An article and its summary."""

    article: str
    highlights: str


class QuestionAnswer(Struct, frozen=True, gc=False):
    """A question, and its answer as it stands in the context; an empty one says that there is none."""

    context: str
    question: str
    answer: str


class SquadAnswers(Struct, frozen=True, gc=False):
    """Answers, and the characters of the context at which they begin."""

    text: list[str]
    answer_start: list[int]


class Squad(Struct, frozen=True, gc=False):
    """A question, and where its answers stand in the context; no answers say that there is none."""

    context: str
    question: str
    answers: SquadAnswers


class Preference(Struct, frozen=True, gc=False):
    """A prompt, the answer that is wanted, and one that is not."""

    prompt: str | list[Message]
    chosen: str | list[Message]
    rejected: str | list[Message]


class Fault(Struct, frozen=True, gc=False):
    """What is wrong with a record, and what would be right; `field` is None where it lies in no single one."""

    field: str | None
    message: str


Record = InputOutput | Conversation | DocumentSummary | ArticleHighlights | QuestionAnswer | Squad | Preference

EXPECTED = (
    'A record has "input" and "output"; or "messages"; or "document" and "summary"; or "article" and "highlights"; '
    'or "context", "question" and "answer" (or "answers"); or "prompt", "chosen" and "rejected".'
)
KINDS: dict[wire.DatasetFormat, type[Record]] = {
    "input_output": InputOutput,
    "messages": Conversation,
    "document_summary": DocumentSummary,
    "article_highlights": ArticleHighlights,
    "question_answer": QuestionAnswer,
    "squad": Squad,
    "preferences": Preference,
}
# Formats that will come, by the fields that show them: known by name, so that the refusal can name them.
_ALPACA = frozenset({"instruction", "output"})
_LATER: tuple[tuple[str, frozenset[str]], ...] = (
    ("Alpaca (instruction, output)", _ALPACA),
    ("prompt and completion", frozenset({"prompt", "completion"})),
    ("ShareGPT (conversations)", frozenset({"conversations"})),
    ("plain text", frozenset({"text"})),
)
fields_of = msgspec.json.Decoder(dict[str, msgspec.Raw])


def format_of(line: bytes) -> wire.DatasetFormat | Fault:
    """The format that a record's fields show, though one may be missing; a fault where they show none.

    Raises:
        msgspec.ValidationError: it is no object.
        msgspec.DecodeError: it is no JSON.
    """
    fields = fields_of.decode(line).keys()
    shown = format_shown_by(fields)
    if shown is not None:
        return shown
    for name, shown_by in _LATER:
        if shown_by <= fields:
            return Fault(None, f"Records of the format {name} cannot be trained on yet. {EXPECTED}")
    found = ", ".join(repr(field) for field in list(fields)[:10]) or "none"
    return Fault(None, f"The fields show no known format: found {found}. {EXPECTED}")


def format_shown_by(fields: Iterable[str]) -> wire.DatasetFormat | None:
    """The format that is meant by these fields, if one can be told."""
    has = frozenset(fields)
    choices: tuple[tuple[wire.DatasetFormat, bool], ...] = (
        ("messages", "messages" in has),
        ("preferences", bool(has & {"chosen", "rejected"})),
        ("input_output", bool(has & {"input", "output"}) and not has >= _ALPACA),
        ("squad", "answers" in has and bool(has & {"context", "question"})),
        ("question_answer", len(has & {"context", "question", "answer"}) > 1),
        ("article_highlights", bool(has & {"article", "highlights"})),
        ("document_summary", bool(has & {"document", "summary"})),
    )
    return next((name for name, holds in choices if holds), None)
