"""The fields of records: those that their format knows, and those that are passed over, each by its name.

Records are decoded strictly: a field that nothing knows stops the decoder. Then its name is noted, and the decoder is
made anew to pass over fields of this name, at the speed at which it reads the others.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from modelforge.datasets.validation.error_types import RecordError
from trainer_entry import wire
from trainer_entry.wire.formats import FORMATS, Message, Record, Text

_MOST_NAMES = 200
"""A file with more names than these has none of them listed beyond that."""
REFUSED = frozenset(
    {
        "audio",
        "function_call",
        "functions",
        "history",
        "image",
        "images",
        "label",
        "reasoning_content",
        "system",
        "tool_calls",
        "tools",
        "train",
    }
    | {"videos", "weight"}
)
"""What would change what is learned: a format that does not know such a field refuses it."""

_RARE = frozenset(
    {
        "history",
        "label",
        "name",
        "reasoning_content",
        "system",
        "tool_call_id",
        "tool_calls",
        "tools",
        "train",
        "weight",
    }
)
"""Known fields that few files have: until one is met, records are read without them, at the speed of the others."""

_NO_NAME = re.compile(r'["\\\x00-\x1f]')
"""No decoder has a field of such a name: lines with one are read one by one."""
_OF_TURNS = frozenset({"message_tree_id", "parent_id", "parent_message_id", "role", "speaker"})
"""A text with one of these is a turn of a conversation that stands on several lines, and no text by itself."""
_Place = tuple[type[Struct], str]


class Fields:
    """The fields of a file of one format.

    `used`: those that are read. `ignored`: those that nothing reads, as `messages[].id`. `plain`: no record had one
    that is rare, or a content that is no text.
    """

    def __init__(self, dataset_format: wire.DatasetFormat) -> None:
        self.kind = FORMATS[dataset_format]
        self.used: set[str] = set()
        self.ignored: set[str] = set()
        self.plain = True
        self._places: set[_Place] = set()
        self._decoder = self._new_decoder()

    def _new_decoder(self) -> msgspec.json.Decoder[Record]:
        return msgspec.json.Decoder(_strict(self.kind, frozenset(self._places), plain=self.plain))

    def decode_lines(self, data: bytes) -> list[Record]:
        """The records on some lines, with their ignored fields noted.

        Raises:
            msgspec.DecodeError: one is no record of the format, or has a field that is to be refused.
        """
        try:
            return self._decoder.decode_lines(data)
        except msgspec.ValidationError:
            new = [self.note(line) for line in data.split(b"\n")]
            if not any(new) and not self.plain:
                raise
        try:
            return self._decoder.decode_lines(data)
        except msgspec.ValidationError:
            if not self.plain:
                raise
        self.plain = False
        self._decoder = self._new_decoder()
        return self._decoder.decode_lines(data)

    def note(self, line: bytes) -> bool:
        """Note the ignored fields of a line; whether some are new."""
        try:
            record = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError):
            return False
        new = {
            place
            for path, place, value in unknown_fields(self.kind, record)
            if self._is_ignored(path, place, value) and place not in self._places and not _NO_NAME.search(place[1])
        }
        if not new or len(self._places) + len(new) > _MOST_NAMES:
            return False
        self._places |= new
        self._decoder = self._new_decoder()
        return True

    def _is_ignored(self, path: str, place: _Place, value: object) -> bool:
        if not may_be_ignored(place, value):
            return False
        if len(self.ignored) < _MOST_NAMES:
            self.ignored.add(path)
        return True

    def note_used(self, records: Sequence[Record], *, plain: bool) -> None:
        """Note the fields that these records have, of those that are read; `plain` ones have none that is rare."""
        for name in self.kind.__struct_fields__:
            if name in self.used or (plain and name in _RARE):
                continue
            if {*map(type, map(attrgetter(name), records))} != {NoneType}:
                self.used.add(name)


def errors_of_fields(dataset_format: wire.DatasetFormat, line: bytes) -> Iterator[RecordError]:
    """The fields of a record that would change what is learned, and that its format does not know.

    Raises:
        msgspec.DecodeError: it is no JSON.
    """
    for path, place, value in unknown_fields(FORMATS[dataset_format], msgspec.json.decode(line)):
        if not may_be_ignored(place, value):
            name = place[1]
            yield RecordError(
                path,
                f"A record of this format ({dataset_format}) has no {name!r}. It would change what is learned, and is"
                " not passed over: take it out, or send the records in a format that has it.",
            )


def may_be_ignored(place: _Place, value: object) -> bool:
    """Whether a field that nothing knows may be passed over; one that says nothing always may."""
    kind, name = place
    return not value or not (name in REFUSED or (kind is Text and name in _OF_TURNS))


def unknown_fields(kind: type[Struct], value: object, path: str = "") -> Iterator[tuple[str, _Place, object]]:
    """The fields in an object that its type does not know: where they stand, whose they are, and what they hold."""
    if not isinstance(value, dict):
        return
    known = _nested_fields(kind)
    for name, item in value.items():
        if name not in known:
            yield f"{path}{name}", (kind, name), item
        elif (nested := known[name]) is None:
            continue
        elif isinstance(item, list):
            for element in item:
                yield from unknown_fields(nested, element, f"{path}{name}[].")
        else:
            yield from unknown_fields(nested, item, f"{path}{name}.")


@cache
def _nested_fields(kind: type[Struct]) -> dict[str, type[Struct] | None]:
    """The fields of a type by their names in JSON, with the type of the objects that stand in them."""
    hints = get_type_hints(kind)
    return {field.encode_name: _nested(hints[field.name]) for field in msgspec.structs.fields(kind)}


def _nested(annotation: Any) -> type[Struct] | None:
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return annotation
    return next((found for part in get_args(annotation) if (found := _nested(part)) is not None), None)


@cache
def _strict(kind: type[Struct], ignored: frozenset[_Place], *, plain: bool) -> type[Any]:
    """The type with no field allowed that it does not know, but for those that are ignored.

    `plain`: without the fields that are rare, and with contents that are texts.
    """
    hints = get_type_hints(kind)
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        default = {} if field.required else {"default": field.default}
        if plain and field.name in _RARE:
            # What a type inherits cannot be taken from it: here it has a name that no record has.
            fields.append((field.name, Any, msgspec.field(name=f"{field.name} (not met)", **default)))
        elif plain and kind is Message and field.name == "content":
            fields.append((field.name, str))
        elif _nested(hints[field.name]) is not None:
            annotation = _strict_in(hints[field.name], ignored, plain=plain)
            fields.append((field.name, annotation, msgspec.field(name=field.encode_name, **default)))
    for number, (owner, name) in enumerate(sorted(ignored, key=lambda place: place[1])):
        if owner is kind:
            fields.append((f"ignored_{number}", Raw | UnsetType, msgspec.field(name=name, default=UNSET)))
    return msgspec.defstruct(
        kind.__name__, fields, bases=(kind,), forbid_unknown_fields=True, frozen=True, gc=False, kw_only=True
    )


def _strict_in(annotation: Any, ignored: frozenset[_Place], *, plain: bool) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return _strict(annotation, ignored, plain=plain)
    origin, parts = get_origin(annotation), get_args(annotation)
    if not parts:
        return annotation
    strict = tuple(_strict_in(part, ignored, plain=plain) for part in parts)
    return Union[strict] if origin in {Union, UnionType} else origin[strict]  # noqa: UP007 - made of what there is
