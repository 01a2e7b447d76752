"""Which columns of a file are the fields of a format: as they were given, and as they may be meant."""

import difflib
import re
from collections.abc import Mapping

from modelforge.datasets.validation.error_types import UnreadableFile
from modelforge.datasets.validation.fields import REFUSED
from modelforge.datasets.validation.recognition import required_fields
from trainer_entry import wire
from trainer_entry.wire.formats import FORMATS

FIELDS = frozenset(name for kind in FORMATS.values() for name in kind.__struct_encode_fields__)
"""Every field of every format."""

_ALIASES: dict[str, tuple[str, ...]] = {
    "input": ("question", "query", "prompt", "user", "human", "source", "problem", "instruction", "request"),
    "output": ("answer", "response", "reply", "completion", "assistant", "target", "solution", "chosen_response"),
    "instruction": ("task", "command"),
    "document": ("text", "article", "content", "body", "dialogue", "passage", "source"),
    "summary": ("highlights", "abstract", "headline", "tldr", "target"),
    "context": ("passage", "paragraph", "document", "text"),
    "question": ("query", "problem"),
    "answer": ("answer_text", "span"),
    "prompt": ("question", "query", "instruction", "input"),
    "chosen": ("preferred", "accepted", "winner", "better", "response_chosen", "chosen_response"),
    "rejected": ("dispreferred", "loser", "worse", "response_rejected", "rejected_response"),
    "messages": ("conversation", "dialog", "dialogue", "chat", "turns"),
    "text": ("content", "body", "document"),
}
_TRIED: tuple[wire.DatasetFormat, ...] = (
    "preferences",
    "question_answer",
    "document_summary",
    "alpaca",
    "input_output",
    "messages",
    "text",
)
_OPTIONAL = {"alpaca": {"input": ("context", "passage", "document")}}
"""Columns that are taken for a field that may be missing."""
_NEVER_DROPPED = REFUSED | {"context", "input", "instruction", "passage", "prompt", "question"}
"""A mapping that leaves out one of these would lose what the answers are to."""
_CLOSE = 0.8
LONGEST_COLUMN = 200
"""Characters of the name of a column that can be given."""


class Columns:
    """Names of columns, by the field that each is: `{"input": "question"}` says that `question` is the input."""

    def __init__(self, given: Mapping[str, str] | None) -> None:
        self.given = dict(given or {})
        self._fields = {column: field for field, column in self.given.items()}

    def __bool__(self) -> bool:
        return bool(self.given)

    def field(self, column: str) -> str:
        """What a column is called in its format. A column that makes room for another is put aside."""
        if column in self._fields:
            return self._fields[column]
        return f"{column} (column)" if column in self.given else column


def check_columns(columns: Columns, found: list[str], line: int = 1) -> None:
    """Refuse a mapping that names columns which are not there.

    Raises:
        UnreadableFile: the message says which are.
    """
    for field, column in columns.given.items():
        if column not in found:
            there = ", ".join(repr(name[:40]) for name in found[:20]) or "none"
            raise UnreadableFile(line, f"There is no column {column!r} for {field!r}; there are {there}.")


def propose(found: list[str], *, alone: bool) -> dict[str, str] | None:
    """A mapping by which records with these columns have a format, where the names are near enough.

    `alone`: it may be a format of one field.
    """
    named = [name for name in found if len(name) <= LONGEST_COLUMN]
    plain = {re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"): name for name in named}
    for dataset_format in _TRIED:
        fields = ("prompt", *required_fields(dataset_format))[dataset_format != "preferences" :]
        if len(fields) == 1 and not alone:
            continue
        mapping: dict[str, str] = {}
        for field in fields:
            column = _near(field, plain, taken=set(mapping.values()))
            if column is None:
                break
            mapping[field] = column
        else:
            for field, aliases in _OPTIONAL.get(dataset_format, {}).items():
                column = next((plain[name] for name in (field, *aliases) if name in plain), None)
                if column is not None and column not in mapping.values():
                    mapping[field] = column
            known = FORMATS[dataset_format].__struct_encode_fields__
            dropped = {name for name, column in plain.items() if column not in {*mapping.values(), *known}}
            changed = {field: column for field, column in mapping.items() if field != column}
            if changed and not dropped & _NEVER_DROPPED:
                return changed
    return None


def _near(field: str, plain: Mapping[str, str], taken: set[str]) -> str | None:
    """The column that is meant by a field: of its name, of one that means the same, or of one that is misspelled."""
    for name in (field, *_ALIASES.get(field, ())):
        if name in plain and plain[name] not in taken:
            return plain[name]
    close = difflib.get_close_matches(field, [name for name in plain if plain[name] not in taken], 1, _CLOSE)
    return plain[close[0]] if close else None
