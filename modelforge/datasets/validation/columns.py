"""The columns of a file as the fields of a format: renamed, put together, or taken out of an object."""

import re
from collections.abc import Mapping

import msgspec

from modelforge.datasets.validation.error_types import RecordError, UnreadableFile
from trainer_entry.wire.formats import FORMATS
from trainer_entry.wire.turns import role_named

FIELDS = frozenset(name for kind in FORMATS.values() for name in kind.__struct_encode_fields__)
"""Every field of every format."""
COMPOSED = FIELDS - {"messages", "conversations", "answers", "history", "tools", "answer_start", "label"}
"""The fields that are, or may be, one text."""
PUT_ASIDE = " (column)"
"""After the name of a column that another one takes the place of."""
LONGEST_COLUMN = 200
"""Characters of the name of a column that can be given."""
LONGEST_TEMPLATE = 10_000
"""Characters of a template."""

Source = str | list[str]
"""A column; or several, whose texts are joined by an empty line; or a template that names some, as `{question}`."""

_PLACES = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
_TURNS = ("prompt", "chosen", "rejected")
_NUMBERS = frozenset(bytes([letter]) for letter in b"-0123456789tf")


def columns_of(source: Source) -> list[str]:
    """The columns that a field is made of."""
    if isinstance(source, list):
        return source
    return [found[1] for found in _PLACES.finditer(source) if found[1]] or [source]


def is_composed(source: Source) -> bool:
    """Whether a field is put together, and not a column as it is."""
    return isinstance(source, list) or any(found[1] for found in _PLACES.finditer(source))


class Columns:
    """Columns by the field that each is: `{"input": "question"}` says that `question` is the input.

    A column may be named with a field of the object in it, as `input.messages`. `bare`: the field that a record is
    which is no object but a list. `spelled`: turns of preferences are spelled as messages are. `every`: each column is
    to be read, whatever its name. `inferred`: nobody gave these.
    """

    def __init__(
        self,
        given: Mapping[str, Source] | None = None,
        *,
        bare: str | None = None,
        spelled: bool = False,
        every: bool = False,
        inferred: bool = False,
    ) -> None:
        self.given = dict(given or {})
        self.bare, self.spelled, self.every, self.inferred = bare, spelled, every, inferred
        self.sources = frozenset(name for source in self.given.values() for name in columns_of(source))
        """The columns that are named."""
        self._paths = sorted(name for name in self.sources if "." in name)
        self._composed = {field: source for field, source in self.given.items() if is_composed(source)}
        self._fields = {
            source: field
            for field, source in self.given.items()
            if isinstance(source, str) and field not in self._composed
        }

    def __bool__(self) -> bool:
        return bool(self.given) or self.bare is not None or self.spelled

    def field(self, column: str) -> str:
        """What a column is called in its format. A column that makes room for another is put aside."""
        if column in self._fields:
            return self._fields[column]
        return f"{column}{PUT_ASIDE}" if column in self.given else column

    def is_source(self, column: str) -> bool:
        """Whether a column is one of those that are named, or has what is named."""
        return column in self.sources or any(name.partition(".")[0] == column for name in self.sources)

    def compose(self, row: dict[str, object]) -> dict[str, object]:
        """The record of a row whose columns have the names of fields already: with those that are to be made.

        Raises:
            NotComposable: a column that is to be a part of a text is none.
        """
        for column in self._paths:
            field = self._fields.get(column, column)
            if field not in row:
                self._take_out(row, column, field)
        made = {field: self._text(source, row) for field, source in self._composed.items()}
        for source in self._composed.values():
            for column in columns_of(source):
                if column not in self._fields:
                    row.pop(self.field(column), None)
        row |= made
        if self.spelled:
            row |= {field: _spelled(_value(row[field])) for field in _TURNS if field in row}
        return row

    def _take_out(self, row: dict[str, object], column: str, field: str) -> None:
        """Make a field of what stands in an object; what else is in there stays, under its own name."""
        root, *names = column.split(".")
        path, key = root, self.field(root)
        while key not in row and names:  # another field was taken out of the same object
            path = key = f"{path}.{names.pop(0)}"
        if key not in row:
            return
        others: dict[str, object] = {}
        value = row[key]
        for name in names:
            inside = _object(value)
            if inside is None or name not in inside:
                return
            others |= {f"{path}.{other}": item for other, item in inside.items() if other != name}
            path, value = f"{path}.{name}", inside[name]
        del row[key]
        row |= others | {field: value}

    def _text(self, source: Source, row: Mapping[str, object]) -> str:
        texts = {column: _as_text(column, row.get(self.field(column))) for column in columns_of(source)}
        if isinstance(source, list):
            return "\n\n".join(text for text in map(texts.__getitem__, source) if text.strip())
        return _PLACES.sub(lambda found: texts[found[1]] if found[1] else found[0][0], source)


class NotComposable(Exception):
    """A column cannot be a part of a text."""

    def __init__(self, error: RecordError) -> None:
        super().__init__(error.message)
        self.error = error


def _value(value: object) -> object:
    return msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value


def _object(value: object) -> dict[str, object] | None:
    """The fields of an object, with what stands in them as it is written; None for anything else."""
    if isinstance(value, msgspec.Raw) and bytes(value).lstrip().startswith(b"{"):
        return dict(msgspec.json.decode(value, type=dict[str, msgspec.Raw]))
    return value if isinstance(value, dict) else None


def is_text_or_texts(value: object) -> bool:
    """Whether a value can be a part of a text."""
    values = value if isinstance(value, list) else [value]
    return all(item is None or isinstance(item, str | int | float) for item in values)


def _as_text(column: str, raw: object) -> str:
    """A column as a text: numbers as they are written, and several texts on a line each."""
    if isinstance(raw, msgspec.Raw) and bytes(raw)[:1] in _NUMBERS:
        return bytes(raw).decode()
    value = _value(raw)
    if value is None or isinstance(value, str):
        return value or ""
    if not is_text_or_texts(value):
        raise NotComposable(RecordError(column, "It is no text, and a field is put together of texts only."))
    if isinstance(value, list):
        return "\n".join(_as_text(column, item) for item in value)
    return msgspec.json.encode(value).decode()


def _spelled(value: object) -> object:
    """Turns with `role` and `content`, one turn alone or turns as ShareGPT spells them; anything else as it is."""
    turns = [value] if isinstance(value, dict) else value
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return value
    return [
        {"role": role_named(turn["from"]) or turn["from"], "content": turn.get("value")}
        | {name: item for name, item in turn.items() if name not in {"from", "value"}}
        if isinstance(turn.get("from"), str)
        else turn
        for turn in turns
    ]


def check_columns(columns: Columns, found: list[str], line: int = 1) -> None:
    """Refuse a mapping that names columns which are not there.

    Raises:
        UnreadableFile: the message says which are.
    """
    for field, source in columns.given.items():
        for column in columns_of(source):
            if column not in found and column.partition(".")[0] not in found:
                there = ", ".join(repr(name[:40]) for name in found[:20]) or "none"
                raise UnreadableFile(line, f"There is no column {column!r} for {field!r}; there are {there}.")
