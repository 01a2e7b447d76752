"""The lines of golden files: records, less their place in a log."""

from types import UnionType
from typing import get_args

import msgspec
from msgspec import Raw, Struct

from modelforge.domain.messages import Command, Kind, Message, encode, tag_of


class Line(Struct, frozen=True, forbid_unknown_fields=True):
    """A record's columns that say what it is; `data` is as it stands in the log."""

    kind: Kind
    type: str
    data: Raw


def line_of(message: Message) -> bytes:
    """The line to append for a message."""
    kind: Kind = "command" if isinstance(message, get_args(Command)) else "event"
    return msgspec.json.encode(Line(kind, tag_of(message), Raw(encode(message))))


def tags(union: UnionType) -> set[str]:
    """The stored names of all types in a union."""
    return {str(kind.__struct_config__.tag) for kind in get_args(union)}
