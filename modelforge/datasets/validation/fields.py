"""The fields of records: those that their format knows, and those that are passed over, each by its name.

Records are decoded strictly: a field that nothing knows stops the decoder. Then its name is noted, and the decoder is
made anew to pass over fields of this name, at the speed at which it reads the others.
"""

import re
from collections.abc import Sequence
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from modelforge.datasets.validation.field_names import Place, may_be_ignored, nested_type, says_nothing, unknown_fields
from modelforge.datasets.validation.recognition import format_shown_by, required_fields
from trainer_entry import wire
from trainer_entry.wire.formats import FORMATS, Message, Record, SharedTurn

_MOST_NAMES = 200
"""A file with more names than these has none of them listed beyond that."""
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


_Nothing = (
    None
    | Annotated[str, Meta(max_length=0)]
    | Annotated[list[Raw], Meta(max_length=0)]
    | Annotated[dict[str, Raw], Meta(max_length=0)]
)
"""What an ignored field holds that has said nothing so far: where one says something, it is looked at again."""


class Fields:
    """The fields of a file of one format.

    `used`: those that are read. `ignored`: those that nothing reads, as `messages[].id`. `glimpses`: of the latter that
    stand in the records themselves, what the first values are like. `plain`: no record had a field that is rare, or a
    content that is no text.
    """

    def __init__(self, dataset_format: wire.DatasetFormat) -> None:
        self.kind = FORMATS[dataset_format]
        self.used: set[str] = set()
        self.ignored: set[str] = set()
        self.glimpses: dict[str, object] = {}
        self.plain = True
        self._format = dataset_format
        self._names = [b'"%b":' % name.encode() for name in self.kind.__struct_encode_fields__]
        self._places: dict[Place, bool] = {}
        self._decoder = self._new_decoder()

    def _new_decoder(self) -> msgspec.json.Decoder[Record]:
        return msgspec.json.Decoder(_strict(self.kind, frozenset(self._places.items()), plain=self.plain))

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

    def may_stand_twice(self, data: bytes) -> bool:
        """Whether there are more fields of some name than lines: one may stand twice in a record."""
        lines = data.count(b"\n") + (not data.endswith(b"\n"))
        return any(data.count(name) > lines for name in self._names)

    def note(self, line: bytes) -> bool:
        """Note the ignored fields of a line; whether some are new."""
        try:
            record = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError):
            return False
        if another_format(self._format, record) is not None:
            return False
        new: dict[Place, bool] = {}
        for path, place, value in unknown_fields(self.kind, record):
            says_something = not says_nothing(value)
            is_new = not self._places.get(place, False) and (says_something or place not in self._places)
            if self._is_ignored(path, place, value) and is_new and not _NO_NAME.search(place[1]):
                new[place] = says_something or new.get(place, False)
        if not new or len(self._places) + len(new) > _MOST_NAMES:
            return False
        self._places |= new
        self._decoder = self._new_decoder()
        return True

    def _is_ignored(self, path: str, place: Place, value: object) -> bool:
        if not may_be_ignored(place, value):
            return False
        if len(self.ignored) < _MOST_NAMES:
            self.ignored.add(path)
            if path == place[1] and says_nothing(self.glimpses.get(path)):
                self.glimpses[path] = _glimpse(value)
        return True

    def note_used(self, records: Sequence[Record], *, plain: bool) -> None:
        """Note the fields that these records have, of those that are read; `plain` ones have none that is rare."""
        for name in self.kind.__struct_fields__:
            if name in self.used or (plain and name in _RARE):
                continue
            if {*map(type, map(attrgetter(name), records))} != {NoneType}:
                self.used.add(name)


def another_format(dataset_format: wire.DatasetFormat, record: object) -> wire.DatasetFormat | None:
    """The format that a record shows in whole, if it is not the one of its file."""
    if not isinstance(record, dict):
        return None
    told = {name for name, value in record.items() if value is not None}
    shown = format_shown_by(told)
    if shown == "prompts" and "prompt" in FORMATS[dataset_format].__struct_encode_fields__:
        return None  # what it lacks is said by its name
    return None if shown in {None, dataset_format} or not told >= {*required_fields(shown)} else shown


def _glimpse(value: object) -> object:
    """What a value is like: of the same types, and short."""
    match value:
        case str():
            return value[:1]
        case list():
            return [_glimpse(item) for item in value[:2]]
        case dict():
            return {name: item if name in {"from", "role"} else _glimpse(item) for name, item in value.items()}
        case _:
            return value


@cache
def _strict(kind: type[Struct], ignored: frozenset[tuple[Place, bool]], *, plain: bool) -> type[Any]:
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
        elif plain and kind is SharedTurn and field.name == "content":
            fields.append((field.name, str | None, None))
        elif nested_type(hints[field.name]) is not None:
            annotation = _strict_in(hints[field.name], ignored, plain=plain)
            fields.append((field.name, annotation, msgspec.field(name=field.encode_name, **default)))
    for number, ((owner, name), says_something) in enumerate(sorted(ignored, key=lambda place: place[0][1])):
        if owner is kind:
            passed = Raw | UnsetType if says_something else _Nothing | UnsetType
            fields.append((f"ignored_{number}", passed, msgspec.field(name=name, default=UNSET)))
    return msgspec.defstruct(
        kind.__name__, fields, bases=(kind,), forbid_unknown_fields=True, frozen=True, gc=False, kw_only=True
    )


def _strict_in(annotation: Any, ignored: frozenset[tuple[Place, bool]], *, plain: bool) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return _strict(annotation, ignored, plain=plain)
    origin, parts = get_origin(annotation), get_args(annotation)
    if not parts:
        return annotation
    strict = tuple(_strict_in(part, ignored, plain=plain) for part in parts)
    return Union[strict] if origin in {Union, UnionType} else origin[strict]  # noqa: UP007 - made of what there is
