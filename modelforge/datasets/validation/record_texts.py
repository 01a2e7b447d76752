"""The texts of a record, by which records are compared and looked through."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from trainer_entry.wire.formats import (
    Alpaca,
    ArticleHighlights,
    Conversation,
    DocumentSummary,
    InputOutput,
    Message,
    Preference,
    PromptCompletion,
    QuestionAnswer,
    Record,
    SharedConversation,
    Squad,
    Text,
)


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
