"""The warnings of a record: what does not keep it from being trained on, and yet is rarely meant."""

import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np

from modelforge.datasets.validation.error_types import RecordError
from modelforge.datasets.validation.record_texts import texts_of
from trainer_entry.wire.formats import (
    Alpaca,
    Conversation,
    InputOutput,
    Message,
    PromptCompletion,
    QuestionAnswer,
    Record,
    SharedConversation,
)
from trainer_entry.wire.turns import speaker_of, text_of

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_ESCAPED = re.compile(rb"\\(?:[bf]|u(?:00[01789]|[fF]{3}[dD]|[fF][eE][fF]{2}|200[b-fB-F]|2060))")
_UNSEEN = rb"\xe2\x80[\x8b-\x8f\xaa-\xae]|\xe2\x81\xa0|\xef\xbb\xbf"
_RAW = re.compile(rb"\xc2[\x80-\x9f]|\xef\xbf\xbd|\"(?:\s|" + _UNSEEN + rb")+\"")
_ANGLE, *_TEXT_ENDS = b">", b'>"', b'>\\n"'
_ONLY_AN_END = re.compile(rb'"(?:\s|\\[nrt])*[<\[][^ "]{1,60}>(?:\s|\\[nrt])*"')
_BETWEEN_RECORDS = re.compile(rb"\}[ \t\r]*\n[ \t\r]*(?=\{)")
_LINE_BREAK, _BACKSLASH, _DELETE, _OPEN, _CLOSE = b"\n\\\x7f{}"
_MEANT = np.zeros(256, np.bool_)
_MEANT[[*b"bfu"]] = True
_REPLACED = "\ufffd"


class Landmarks:
    """Some lines, and where in them lines end and escapes begin, but for an end or a backslash at their very end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.letters = np.frombuffer(data, np.uint8)
        inside = self.letters[:-1]
        marks = np.flatnonzero((inside == _LINE_BREAK) | (inside == _BACKSLASH))
        is_end = self.letters[marks] == _LINE_BREAK
        self.ends, self.backslashes = marks[is_end], marks[~is_end]


def suspicious_lines(marks: Landmarks) -> set[int]:
    """The places of the lines that may have a control character, or letters that were lost, in a text."""
    data, letters = marks.data, marks.letters
    escapes = marks.backslashes[_MEANT[letters[marks.backslashes + 1]]]
    offsets = [offset for offset in escapes.tolist() if _ESCAPED.match(data, offset) and _is_escape(data, offset)]
    if _DELETE in data:
        offsets += np.flatnonzero(letters == _DELETE).tolist()
    if _ANGLE in data and any(end in data for end in _TEXT_ENDS):
        offsets += [found.start() for found in _ONLY_AN_END.finditer(data)]
    if not data.isascii():
        offsets += [found.start() for found in _RAW.finditer(data)]
    if not offsets:
        return set()
    return set(np.searchsorted(marks.ends, offsets).tolist())


def _is_escape(data: bytes, offset: int) -> bool:
    """Whether a backslash is none that the one before it escapes."""
    first = offset
    while first > 0 and data[first - 1] == _BACKSLASH:
        first -= 1
    return (offset - first) % 2 == 0


def has_a_record_per_line(marks: Landmarks, records: int) -> bool:
    """Whether so many objects stand on a line each: the decoder goes on where a line ends within an object."""
    letters, ends = marks.letters, marks.ends
    if len(ends) + 1 != records:
        return False
    if not len(ends):
        return True
    if ends[0] > 0 and (letters[ends - 1] == _CLOSE).all() and (letters[ends + 1] == _OPEN).all():
        return True
    return len(_BETWEEN_RECORDS.findall(marks.data)) == len(ends)


def warnings_of(record: Record) -> Iterator[RecordError]:
    """What a person should check in a record without errors."""
    match record:
        case InputOutput(input=prompt):
            yield from _blank("input", prompt)
        case PromptCompletion(prompt=str(prompt)):
            yield from _blank("prompt", prompt)
        case Conversation(messages=turns) | PromptCompletion(prompt=turns):
            field = "messages" if isinstance(record, Conversation) else "prompt"
            for index, turn in enumerate(turns):
                if isinstance(turn, Message) and turn.role != "assistant":
                    yield from _blank(f"{field}[{index}].content", text_of(turn.content))
            if isinstance(record, Conversation):
                yield from _of_order("messages", [turn.role for turn in record.messages])
        case SharedConversation(conversations=shared):
            yield from _of_order("conversations", [*map(speaker_of, shared)])
        case Alpaca(input=given):
            if given is not None and given != "" and not given.strip():
                yield from _blank("input", given)
        case QuestionAnswer(context=context, answer=answer, answer_start=None):
            if answer and (times := context.count(answer)) > 1:
                yield RecordError(
                    "answer",
                    f"It stands in the context {times} times, and the first is learned. Say which one it is by "
                    "answer_start, the character at which it begins, from 0.",
                )
        case _:
            pass
    for text in texts_of(record):
        found = _CONTROL.search(text)
        if found is not None:
            yield RecordError(
                _field_with(record, text),
                f"It has the control character U+{ord(found[0]):04X} (character {found.start() + 1}): "
                "the model learns to write it. Take it out.",
            )
        if _REPLACED in text:
            yield RecordError(
                _field_with(record, text),
                f"It has U+FFFD (character {text.index(_REPLACED) + 1}), which stands for letters that were lost when "
                "it was read in a wrong encoding. Make the file from its source again.",
            )


def _of_order(field: str, roles: Sequence[str | None]) -> Iterator[RecordError]:
    """What is made of turns that do not alternate."""
    speakers = [role for role in roles if role not in {"system", "developer"}]
    if speakers[-1:] == ["user"] or speakers[-1:] == ["tool"]:
        yield RecordError(field, "Nothing answers the last turn: it is left out.")
    if speakers[:1] == ["assistant"]:
        yield RecordError(field, "The assistant opens the conversation: its first turn is read, and not learned.")
    if any(one == other and one in {"user", "assistant"} for one, other in itertools.pairwise(speakers)):
        yield RecordError(
            field,
            "Two turns of one speaker follow each other: they are joined where the model wants turns to alternate.",
        )


def _blank(field: str, text: str) -> Iterator[RecordError]:
    if not text.strip():
        yield RecordError(field, "It is blank.")


def _field_with(record: Record, text: str) -> str | None:
    """The field whose text it is; None where it is one of many."""
    return next((name for name in record.__struct_encode_fields__ if getattr(record, name, None) == text), None)
