"""What does not keep a record from being trained on, and yet is rarely meant."""

import re
from collections.abc import Iterator

from modelforge.dataset_check.records import (
    Alpaca,
    Conversation,
    Fault,
    InputOutput,
    Message,
    PromptCompletion,
    Record,
    texts_of,
)

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_ESCAPED = re.compile(rb"\\(?:\\|([bf]|u(?:00[01789]|[fF]{3}[dD])))")
"""An escaped backslash is taken whole: what follows it is a letter."""
_MEANT = frozenset({b"b", b"f", b"u"})
_FEW = 2000  # in a quarter of a megabyte
_RAW = re.compile(rb"\xc2[\x80-\x9f]|\xef\xbf\xbd")
_REPLACED = "\ufffd"


def odd_lines(data: bytes) -> Iterator[int]:
    """The places of the lines that may have a control character, or letters that were lost, in a text."""
    yield from _places(data, _escapes(data))
    if b"\x7f" in data:
        yield from _places(data, (found.start() for found in re.finditer(b"\x7f", data)))
    if not data.isascii():
        yield from _places(data, (found.start() for found in _RAW.finditer(data)))


def _escapes(data: bytes) -> Iterator[int]:
    """Where the escapes are that stand for such a character."""
    hits, at = 0, data.find(b"\\")
    while at >= 0 and hits < _FEW:  # finding one byte is the fastest way, where there are few
        hits += 1
        if data[at + 1 : at + 2] in _MEANT and _ESCAPED.match(data, at):
            yield at
        at = data.find(b"\\", at + 2)
    if at >= 0:
        yield from (found.start() for found in _ESCAPED.finditer(data, at) if found[1] is not None)


def _places(data: bytes, offsets: Iterator[int]) -> Iterator[int]:
    line = last = 0
    for offset in offsets:
        line += data.count(b"\n", last, offset)
        last = offset
        yield line


def oddities_of(record: Record) -> Iterator[Fault]:
    """What a person should look at in a record without faults."""
    match record:
        case InputOutput(input=prompt):
            yield from _blank("input", prompt)
        case PromptCompletion(prompt=str(prompt)):
            yield from _blank("prompt", prompt)
        case Conversation(messages=turns) | PromptCompletion(prompt=turns):
            field = "messages" if isinstance(record, Conversation) else "prompt"
            for index, turn in enumerate(turns):
                if isinstance(turn, Message) and turn.role != "assistant":
                    yield from _blank(f"{field}[{index}].content", turn.content)
        case Alpaca(input=given):
            if given is not None and given != "" and not given.strip():
                yield from _blank("input", given)
        case _:
            pass
    for text in texts_of(record):
        found = _CONTROL.search(text)
        if found is not None:
            yield Fault(
                _field_with(record, text),
                f"It has the control character U+{ord(found[0]):04X} (character {found.start() + 1}): "
                "the model learns to write it. Take it out.",
            )
        if _REPLACED in text:
            yield Fault(
                _field_with(record, text),
                f"It has U+FFFD (character {text.index(_REPLACED) + 1}), which stands for letters that were lost when "
                "it was read in a wrong encoding. Make the file from its source again.",
            )


def _blank(field: str, text: str) -> Iterator[Fault]:
    if not text.strip():
        yield Fault(field, "It is blank.")


def _field_with(record: Record, text: str) -> str | None:
    """The field whose text it is; None where it is one of many."""
    return next((name for name in record.__struct_encode_fields__ if getattr(record, name, None) == text), None)
