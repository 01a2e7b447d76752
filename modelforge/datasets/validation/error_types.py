"""The error of one record, and that of a whole file."""

import re
from collections.abc import Iterator

from msgspec import Struct

from trainer_entry.wire.end_tokens import KNOWN_ENDS

_UNSEEN = "\u200b-\u200f\u202a-\u202e\u2060\ufeff"
_SILENT = re.compile(rf"(?:[\s{_UNSEEN}]|{'|'.join(map(re.escape, sorted(KNOWN_ENDS)))})*")
_SHOWN = 60  # characters of a text in a message


class RecordError(Struct, frozen=True, gc=False):
    """What is wrong with a record, and what would be right; `field` is None for an error of no single field."""

    field: str | None
    message: str


class UnreadableFile(Exception):
    """A file cannot be read as what it is, from a line on."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


def too_large(line: int, what: str, limit: int, size: int) -> UnreadableFile:
    """The error of a file that becomes more than it may; `what` it becomes, of how many bytes."""
    return UnreadableFile(line, f"{what} larger than {limit} bytes, which are accepted of a file of {size} bytes.")


def blank(field: str, text: str, why: str) -> Iterator[RecordError]:
    """The error of a text that says nothing: only spaces, signs that nobody sees, or the end of a text."""
    if _SILENT.fullmatch(text):
        yield RecordError(field, f"It is blank: {why}.")


def short(text: str) -> str:
    """A text as a message shows it."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
