"""What a record has beside its prompt: the fields that its completions are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from trainer_entry.data.records import Conversation, InputOutput, Line, Preference, Record, Turn
from trainer_entry.wire.rewards import ANSWER, OF_THE_CALL

if TYPE_CHECKING:
    from collections.abc import Sequence

FIELDS = "fields"
"""The column of a dataset that has a record's fields, as JSON: they may be of other types in each."""
_fields = msgspec.json.Decoder(dict[str, Any])


def answer_of(record: Record) -> str | None:
    """The answer that a record has to its prompt: its output, its last turn, or the one that was chosen."""
    match record:
        case InputOutput(output=output):
            return output
        case Conversation(messages=turns) | Preference(chosen=turns):
            return _last(turns)
        case _:
            return None


def fields_of(line: Line) -> dict[str, Any]:
    """The fields of a line by which its completions may be rewarded; `answer` is its own, or else its format's."""
    given = {name: value for name, value in _fields.decode(line.content).items() if name not in OF_THE_CALL}
    answer = answer_of(line.record)
    return given if answer is None or given.get(ANSWER) is not None else {**given, ANSWER: answer}


def fields_as_json(fields: dict[str, Any]) -> str:
    """As they stand in a column."""
    return msgspec.json.encode(fields).decode()


def fields_in(text: str) -> dict[str, Any]:
    """What stands in the column."""
    return _fields.decode(text)


def _last(turns: Sequence[Turn]) -> str | None:
    return next((turn.content for turn in reversed(turns) if turn.role == "assistant"), None)
