"""How long the records of a dataset are, estimated from the file's beginning."""

from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

_SAMPLE_BYTES = 16 << 20
_BYTES_A_TOKEN = 4  # of English, with JSON's own signs and the chat template's tokens about even
_FEWEST = 16
_ESCAPED = 4  # \uXXXX stands for a letter of 2 bytes, which most of such alphabets have


class Longest(Struct, frozen=True, gc=False):
    """The longest record's tokens, and those `together`, estimated. `whole`: all records were read.

    `text`, `answer`: the tokens of the longest of each, where they are read apart.
    """

    tokens: int
    together: int
    whole: bool
    text: int
    answer: int


class _Summarized(Struct, gc=False):
    """What is written of a text, in each format that has one."""

    output: str = ""
    summary: str = ""
    highlights: str = ""


def longest_record(paths: Iterable[Path]) -> Longest | None:
    """The longest of the records in the files' first 16 MB each, by its bytes; None where one cannot be read."""
    found = [_longest_in(path) for path in paths]
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found):
        return None
    return Longest(
        tokens=max(one.tokens for one in known),
        together=sum(one.together for one in known),
        whole=all(one.whole for one in known),
        text=max(one.text for one in known),
        answer=max(one.answer for one in known),
    )


def _longest_in(path: Path) -> Longest | None:
    try:
        with path.open("rb") as file:
            beginning = file.read(_SAMPLE_BYTES)
            whole = not file.read(1)
    except OSError:
        return None
    lines = beginning.split(b"\n")
    sizes = [_size(line) for line in lines]
    answers = [_answer_size(line) for line in lines]
    return Longest(
        tokens=_tokens(max(sizes)),
        together=_tokens(sum(sizes)),
        whole=whole,
        text=_tokens(max(size - answer for size, answer in zip(sizes, answers, strict=True))),
        answer=_tokens(max(answers)),
    )


def _tokens(size: int) -> int:
    return max(_FEWEST, size // _BYTES_A_TOKEN)


def _size(line: bytes) -> int:
    return len(line) - _ESCAPED * line.count(b"\\u")


def _answer_size(line: bytes) -> int:
    """The bytes of a record's answer; 0 where it has none, or the line is cut."""
    try:
        record = msgspec.json.decode(line, type=_Summarized)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0
    return len((record.output or record.summary or record.highlights).encode(errors="replace"))
