"""The error of one record, and that of a whole file."""

from msgspec import Struct


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
