"""The records of a dataset, format by format, and how the format of one is recognised."""

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from trainer_entry import wire


class InputOutput(Struct, frozen=True, gc=False):
    """A prompt and the answer to learn."""

    input: str
    output: str


class Message(Struct, frozen=True, gc=False):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class PromptCompletion(Struct, frozen=True, gc=False):
    """A prompt and what follows it, as texts or as turns."""

    prompt: str | list[Message]
    completion: str | list[Message]


class Alpaca(Struct, frozen=True, gc=False):
    """An instruction, what it is to be applied to where there is something, and the answer to learn."""

    instruction: str
    output: str
    input: str | None = None


class Conversation(Struct, frozen=True, gc=False):
    """A conversation whose assistant turns are to be learned."""

    messages: list[Message]


class SharedTurn(Struct, frozen=True, gc=False):
    """One turn as ShareGPT spells it, or as OpenAI does."""

    sender: str | None = field(name="from", default=None)
    value: str | None = None
    role: str | None = None
    content: str | None = None


class SharedConversation(Struct, frozen=True, gc=False):
    """A conversation as ShareGPT spells it."""

    conversations: list[SharedTurn]


class Text(Struct, frozen=True, gc=False):
    """A text to learn as it stands."""

    text: str


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


Record = (
    InputOutput
    | PromptCompletion
    | Alpaca
    | Conversation
    | SharedConversation
    | Text
    | DocumentSummary
    | ArticleHighlights
    | QuestionAnswer
    | Squad
    | Preference
)

EXPECTED = (
    'A record has "input" and "output"; or "prompt" and "completion"; or "instruction" and "output"; or "messages"; '
    'or "conversations"; or "text"; or "document" and "summary"; or "article" and "highlights"; or "context", '
    '"question" and "answer" (or "answers"); or "prompt", "chosen" and "rejected".'
)
KINDS: dict[wire.DatasetFormat, type[Record]] = {
    "input_output": InputOutput,
    "prompt_completion": PromptCompletion,
    "alpaca": Alpaca,
    "messages": Conversation,
    "conversations": SharedConversation,
    "text": Text,
    "document_summary": DocumentSummary,
    "article_highlights": ArticleHighlights,
    "question_answer": QuestionAnswer,
    "squad": Squad,
    "preferences": Preference,
}
ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
}
"""What the speakers of a ShareGPT conversation are."""

fields_of = msgspec.json.Decoder(dict[str, msgspec.Raw])


def required_fields(dataset_format: wire.DatasetFormat) -> tuple[str, ...]:
    """The fields that every record of a format has."""
    kind = KINDS[dataset_format]
    optional = len(kind.__struct_defaults__)
    return kind.__struct_encode_fields__[: len(kind.__struct_fields__) - optional]


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
    found = ", ".join(repr(name[:40]) for name in list(fields)[:10]) or "none"
    return Fault(None, f"The fields show no known format: found {found}.")


def format_shown_by(fields: Iterable[str]) -> wire.DatasetFormat | None:
    """The format that is meant by these fields, if one can be told."""
    has = frozenset(fields)
    choices: tuple[tuple[wire.DatasetFormat, bool], ...] = (
        ("preferences", has >= {"chosen", "rejected"}),  # some have the chosen conversation as messages beside them
        ("messages", "messages" in has),
        ("preferences", bool(has & {"chosen", "rejected"})),
        ("conversations", "conversations" in has),
        ("alpaca", "instruction" in has),
        ("input_output", bool(has & {"input", "output"})),
        ("prompt_completion", bool(has & {"prompt", "completion"})),
        ("squad", "answers" in has and bool(has & {"context", "question"})),
        ("question_answer", len(has & {"context", "question", "answer"}) > 1),
        ("article_highlights", bool(has & {"article", "highlights"})),
        ("document_summary", bool(has & {"document", "summary"})),
        ("text", "text" in has),
    )
    return next((name for name, holds in choices if holds), None)


def texts_of(record: Record) -> tuple[str, ...]:
    """All texts of a record, with the roles that say who speaks: two records with the same ones teach the same.

    There is at least one, be it empty.
    """
    return TEXTS[type(record)](record)


def _shared(record: SharedConversation) -> tuple[str, ...]:
    turned = (
        (turn.role or "", turn.content or "") if turn.sender is None else (turn.sender, turn.value or "")
        for turn in record.conversations
    )
    return tuple(part for turn in turned for part in turn) or ("",)


def _spoken(turns: str | list[Message]) -> tuple[str, ...]:
    if isinstance(turns, str):
        return (turns,)
    return tuple(part for turn in turns for part in (turn.role, turn.content)) or ("",)


TEXTS: dict[type[Record], Callable[[Any], tuple[str, ...]]] = {
    InputOutput: attrgetter("input", "output"),
    PromptCompletion: lambda record: (*_spoken(record.prompt), *_spoken(record.completion)),
    Alpaca: lambda record: (record.instruction, record.input or "", record.output),
    Conversation: lambda record: _spoken(record.messages),
    SharedConversation: _shared,
    Text: lambda record: (record.text,),
    DocumentSummary: attrgetter("document", "summary"),
    ArticleHighlights: attrgetter("article", "highlights"),
    QuestionAnswer: attrgetter("context", "question", "answer"),
    Squad: lambda record: (record.context, record.question, *record.answers.text),
    Preference: lambda record: (*_spoken(record.prompt), *_spoken(record.chosen), *_spoken(record.rejected)),
}
