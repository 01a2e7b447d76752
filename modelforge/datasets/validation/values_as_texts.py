"""Numbers and booleans where a record has a text: each is read as it is written, and that is said once."""

from functools import cache
from typing import get_args, get_type_hints

import msgspec

from modelforge.datasets.validation.field_names import plain_name
from modelforge.datasets.validation.recognition import fields_of
from modelforge.datasets.validation.usual_names import ANSWERS
from modelforge.errors import LineError
from trainer_entry import wire
from trainer_entry.wire.formats import FORMATS

_BEGINNINGS = frozenset(b"-0123456789tf")
_NO_TEXTS = frozenset({"tools"})
"""What may be JSON in a text."""


@cache
def _texts_of(dataset_format: wire.DatasetFormat) -> frozenset[str]:
    """The fields of a format that are, or may be, one text."""
    hints = get_type_hints(FORMATS[dataset_format])
    return frozenset(name for name, hint in hints.items() if str in {hint, *get_args(hint)}) - _NO_TEXTS


def has_values_for_texts(line: bytes, dataset_format: wire.DatasetFormat) -> bool:
    """Whether a record has a number or a boolean in a field that is a text.

    Raises:
        msgspec.DecodeError: it is no JSON; msgspec.ValidationError: it is no object.
    """
    return bool(_values(fields_of.decode(line), dataset_format))


def _values(fields: dict[str, msgspec.Raw], dataset_format: wire.DatasetFormat) -> list[str]:
    found = [name for name in fields.keys() & _texts_of(dataset_format) if bytes(fields[name])[0] in _BEGINNINGS]
    return [name for name in found if not _is_flag(name, fields, dataset_format)]


def _is_flag(name: str, fields: dict[str, msgspec.Raw], dataset_format: wire.DatasetFormat) -> bool:
    """Whether a value says which answer is preferred, and is none."""
    if dataset_format != "preferences" or name not in {"chosen", "rejected"}:
        return False
    return bytes(fields[name])[0] in b"tf" or any(plain_name(other) in ANSWERS for other in fields)


class ValuesAsTexts:
    """Makes texts of such values, and remembers where the first one was."""

    def __init__(self, dataset_format: wire.DatasetFormat) -> None:
        self._format = dataset_format
        self._first: tuple[int, str, str] | None = None
        self._records = 0

    def record(self, line: int, row: bytes) -> bytes:
        """The record on a line with texts for such values; any other row as it is."""
        try:
            fields = fields_of.decode(row)
            names = _values(fields, self._format)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return row  # the check says what is wrong
        if not names:
            return row
        self._records += 1
        for name in names:
            text = bytes(fields[name]).decode()
            fields[name] = msgspec.Raw(msgspec.json.encode(text))
        if self._first is None:
            first = next(name for name in fields if name in names)
            self._first = line, first, msgspec.json.decode(fields[first], type=str)
        return msgspec.json.encode(fields)

    def warnings(self) -> list[LineError]:
        """The one that says it; none if there was no such value."""
        if self._first is None:
            return []
        line, name, text = self._first
        others = f"; so are such values in {self._records - 1} more" if self._records > 1 else ""
        return [LineError(line, name, f'It is {text}, and no text: it is read as "{text}"{others}.')]
