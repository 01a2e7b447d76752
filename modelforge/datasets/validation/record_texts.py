"""The texts of a record, by which records are compared and looked through."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from msgspec import json

from trainer_entry.wire.formats import (
    Alpaca,
    ArticleHighlights,
    Conversation,
    DocumentSummary,
    InputOutput,
    Message,
    Preference,
    Prompt,
    PromptCompletion,
    QuestionAnswer,
    Record,
    SharedConversation,
    SharedTurn,
    Squad,
    Text,
)
from trainer_entry.wire.turns import is_learned, text_of


def texts_of(record: Record) -> tuple[str, ...]:
    """All texts of a record, with the roles that say who speaks: two records with the same ones teach the same.

    There is at least one, be it empty.
    """
    kind = type(record)
    return (TEXTS.get(kind) or TEXTS[kind.__mro__[1]])(record)  # one that is decoded strictly is of a kind


def _shared(record: SharedConversation) -> tuple[str, ...]:
    turned = (
        (
            turn.sender or turn.role or "",
            text_of(turn.content) if turn.value is None else turn.value,
            *_beside(turn.tool_calls),
            _flag(turn),
        )
        for turn in record.conversations
    )
    parts = tuple(part for turn in turned for part in turn if part is not None)
    return (*parts, *_beside(record.system), *_beside(record.tools)) or ("",)


def _flag(turn: Message | SharedTurn) -> str | None:
    return None if is_learned(turn) else "not learned"


def _beside(value: object) -> tuple[str, ...]:
    """What stands beside the turns, where there is something."""
    if value is None:
        return ()
    return (value if isinstance(value, str) else json.encode(value).decode(),)


def _spoken(turns: str | list[Message]) -> tuple[str, ...]:
    if isinstance(turns, str):
        return (turns,)
    return tuple(part for turn in turns for part in _parts_of(turn)) or ("",)


def _parts_of(turn: Message) -> tuple[str, ...]:
    flag = _flag(turn)
    return (turn.role, text_of(turn.content), *_beside(turn.tool_calls), *(() if flag is None else (flag,)))


def _plainly_shared(record: Any) -> tuple[str, ...]:
    turned = [
        (turn.role or "", turn.content or "") if turn.sender is None else (turn.sender, turn.value or "")
        for turn in record.conversations
    ]
    return tuple([part for turn in turned for part in turn]) or ("",)


def _plainly_spoken(turns: Any) -> tuple[str, ...]:
    if isinstance(turns, str):
        return (turns,)
    return tuple([part for turn in turns for part in (turn.role, turn.content)]) or ("",)


PLAIN_TEXTS: dict[type[Record], Callable[[Any], tuple[str, ...]]] = {
    InputOutput: attrgetter("input", "output"),
    PromptCompletion: lambda record: (*_plainly_spoken(record.prompt), *_plainly_spoken(record.completion)),
    Alpaca: lambda record: (record.instruction, record.input or "", record.output),
    Conversation: lambda record: _plainly_spoken(record.messages),
    SharedConversation: _plainly_shared,
    Text: lambda record: (record.text,),
    DocumentSummary: attrgetter("document", "summary"),
    ArticleHighlights: attrgetter("article", "highlights"),
    QuestionAnswer: attrgetter("context", "question", "answer"),
    Squad: lambda record: (record.context, record.question, *(answer.text for answer in record.listed)),
    Preference: lambda record: (
        *_plainly_spoken(record.prompt or ""),
        *_plainly_spoken(record.chosen),
        *_plainly_spoken(record.rejected),
    ),
    Prompt: lambda record: _plainly_spoken(record.prompt),
}
"""The same of records without rare fields (see `Fields.plain`), which are nearly all: faster."""

TEXTS: dict[type[Record], Callable[[Any], tuple[str, ...]]] = PLAIN_TEXTS | {
    InputOutput: lambda record: (record.input, record.output, *_beside(record.system)),
    PromptCompletion: lambda record: (
        *_spoken(record.prompt),
        *_spoken(record.completion),
        *_beside(record.system),
        *_beside(record.tools),
    ),
    Alpaca: lambda record: (
        *PLAIN_TEXTS[Alpaca](record),
        *_beside(record.system),
        *(part for pair in record.history or () for part in pair),
    ),
    Conversation: lambda record: (*_spoken(record.messages), *_beside(record.system), *_beside(record.tools)),
    SharedConversation: _shared,
    Preference: lambda record: (
        *_spoken(record.prompt or ""),
        *_spoken(record.chosen),
        *_spoken(record.rejected),
        *_beside(record.system),
    ),
    Prompt: lambda record: (*_spoken(record.prompt), *_beside(record.system)),
}
