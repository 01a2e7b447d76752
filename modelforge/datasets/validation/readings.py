"""What the columns of a file may mean: where only one reading is possible, and where a person has to say."""

import difflib
import re
from collections.abc import Mapping

from msgspec import Struct

from modelforge.datasets.validation.columns import LONGEST_COLUMN, Columns
from modelforge.datasets.validation.fields import REFUSED
from modelforge.datasets.validation.recognition import format_shown_by, required_fields
from trainer_entry import wire
from trainer_entry.wire.formats import FORMATS

_Names = dict[str, tuple[str, ...]]
_Mapping = dict[str, str]

_ALIASES: _Names = {
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
_NEVER_DROPPED = REFUSED | {
    *("choices", "context", "input", "instruction", "options", "passage", "prompt", "question"),
    *("chain_of_thought", "complex_cot", "cot", "rationale", "reasoning", "thinking", "system_prompt"),
    *("chosen", "rejected", "messages", "conversations"),
}
"""A mapping that leaves out one of these would lose what the answers are to."""
_CLOSE = 0.8


class _Reading(Struct, frozen=True, gc=False):
    """A format, and the usual names of its fields: of those that it must have."""

    format: wire.DatasetFormat
    fields: _Names


_PROMPTS = ("question", "query", "problem", "request", "user", "human", "inputs", "source")
_ANSWERS = ("answer", "response", "reply", "completion", "assistant", "target", "targets", "solution")
_USUAL: tuple[_Reading, ...] = (
    _Reading(
        "preferences",
        {
            "prompt": ("question", "query", "instruction", "input", "conversations"),
            "chosen": ("preferred", "preferred_output", "response_chosen", "chosen_response"),
            "rejected": ("dispreferred", "non_preferred_output", "response_rejected", "rejected_response"),
        },
    ),
    _Reading(
        "document_summary",
        {
            "document": ("article", "body", "content", "dialogue", "dialog", "report", "source", "text", "transcript"),
            "summary": ("abstract", "highlights", "tldr"),
        },
    ),
    _Reading("alpaca", {"instruction": (), "output": _ANSWERS}),
    _Reading("alpaca", {"instruction": ("query", "question"), "output": _ANSWERS, "history": ()}),
    _Reading("prompt_completion", {"prompt": (), "completion": (*_ANSWERS, "output")}),
    _Reading("input_output", {"input": _PROMPTS, "output": _ANSWERS}),
    _Reading("messages", {"messages": ("chat", "conversation", "conversations", "dialog", "dialogue", "turns")}),
    _Reading("text", {"text": ("content", "body")}),
)
_BESIDE: _Names = {"system": ("system_prompt", "system_message"), "input": ("context",)}
"""The usual names of fields that may be missing."""
_NO_TEXT = frozenset(name for reading in _USUAL[:-1] for name in reading.fields) | {
    *(name for reading in _USUAL[:-1] for names in reading.fields.values() for name in names),
    *("from", "label", "message_id", "message_tree_id", "parent_id", "role", "speaker"),
} - {"content", "body", "text"}
"""Beside one of these, a column is no text to learn as it stands."""


def read_columns(record: object) -> Columns:
    """How records like this one are read, if their columns have usual names and can be read in one way only.

    `record`: with the fields that any of them has.
    """
    if isinstance(record, list):
        spelling = _spelling(record)
        return Columns(bare=spelling, inferred=True) if spelling is not None else Columns()
    if not isinstance(record, dict) or any(len(name) > LONGEST_COLUMN for name in record):
        return Columns()
    plain = {_plain(name): name for name in record}
    if len(plain) < len(record):
        return Columns()
    if _spelling(record.get("messages")) == "conversations" and "conversations" not in record:
        return Columns({"conversations": "messages"}, inferred=True)
    asked = record.get("input")
    if isinstance(asked, dict) and "messages" in asked and {"preferred_output", "non_preferred_output"} <= {*record}:
        given = {"prompt": "input.messages", "chosen": "preferred_output", "rejected": "non_preferred_output"}
        tools = {"tools": "input.tools"} if "tools" in asked else {}
        return Columns(given | tools, spelled=True, inferred=True)
    found = _only_reading(record, plain)
    if found is None:
        return Columns()
    kind, mapping = found
    mapping |= _beside(kind, record, plain, mapping)
    lost = _lost(kind, mapping, plain)
    if any(name not in REFUSED or record[plain[name]] for name in lost):  # those are refused where they say something
        mapping = {}
    spelled = kind == "preferences" and any(
        isinstance(value, dict) or _spelling(value) == "conversations"
        for value in (record.get(mapping.get(field, field)) for field in ("prompt", "chosen", "rejected"))
    )
    return Columns(_changed(mapping), spelled=spelled, inferred=True)


def _only_reading(record: dict[str, object], plain: Mapping[str, str]) -> tuple[wire.DatasetFormat, _Mapping] | None:
    shown = format_shown_by(record)
    prompted = shown != "preferences" or "prompt" in record
    if shown is not None and prompted and {*required_fields(shown)} <= record.keys():
        return shown, {}
    possible = [
        (reading.format, mapping) for reading in _USUAL if (mapping := _mapping(reading, record, plain)) is not None
    ]
    used = [
        {*mapping.values(), *(name for name in FORMATS[kind].__struct_encode_fields__ if name in record)}
        for kind, mapping in possible
    ]
    widest = [one for one, columns in zip(possible, used, strict=True) if not any(columns < other for other in used)]
    if not widest or len({frozenset(mapping.values()) for _, mapping in widest}) > 1:
        return (shown, {}) if shown == "preferences" and not prompted else None
    return widest[0]


def _mapping(reading: _Reading, record: dict[str, object], plain: Mapping[str, str]) -> _Mapping | None:
    """The columns of a record by the fields of a reading, if each field has one and no more."""
    if reading.format == "text" and any(name in _NO_TEXT for name in plain):
        return None
    mapping: _Mapping = {}
    for field, names in reading.fields.items():
        columns = _fitting(field, (field, *names), record, plain)
        if len(columns) != 1:
            return None
        mapping[field] = columns[0]
    if reading.format == "messages":
        return {_spelling(record[column]) or field: column for field, column in mapping.items()}
    return mapping if len({*mapping.values()}) == len(mapping) else None


def _beside(
    kind: wire.DatasetFormat, record: dict[str, object], plain: Mapping[str, str], mapping: _Mapping
) -> _Mapping:
    """The fields that may be missing and stand there under a usual name."""
    found: _Mapping = {}
    for field, names in _BESIDE.items():
        if field not in FORMATS[kind].__struct_encode_fields__ or field in record or field in required_fields(kind):
            continue
        columns = _fitting(field, names, record, plain)
        if len(columns) == 1 and columns[0] not in mapping.values():
            found[field] = columns[0]
    return found


def _fitting(field: str, names: tuple[str, ...], record: dict[str, object], plain: Mapping[str, str]) -> list[str]:
    """The columns of these names whose values can be what a field holds."""
    return [plain[name] for name in names if name in plain and _fits(field, record[plain[name]])]


def _lost(kind: wire.DatasetFormat, mapping: _Mapping, plain: Mapping[str, str]) -> set[str]:
    """What a mapping would leave out, and must not."""
    kept = {*mapping.values(), *FORMATS[kind].__struct_encode_fields__}
    return {name for name, column in plain.items() if column not in kept} & _NEVER_DROPPED


def _changed(mapping: _Mapping) -> _Mapping:
    return {field: column for field, column in mapping.items() if field != column}


def _fits(field: str, value: object) -> bool:
    """Whether a value can be what a field holds."""
    if field == "messages":
        return _spelling(value) is not None
    if field == "history":
        return isinstance(value, list)
    if field in {"prompt", "chosen", "rejected"} and (isinstance(value, dict) or _spelling(value) is not None):
        return True
    return value is None or isinstance(value, str | int | float)


def _spelling(value: object) -> str | None:
    """The field whose spelling turns have; None for what is no list of turns."""
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        return None
    if all("role" in turn for turn in value):
        return "messages"
    return "conversations" if all("from" in turn and "value" in turn for turn in value) else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def propose(found: list[str], *, alone: bool) -> dict[str, str] | None:
    """A mapping by which records with these columns have a format, where the names are near enough.

    `alone`: it may be a format of one field.
    """
    named = [name for name in found if len(name) <= LONGEST_COLUMN]
    plain = {_plain(name): name for name in named}
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
            changed = _changed(mapping)
            if changed and not _lost(dataset_format, mapping, plain):
                return changed
    return None


def _near(field: str, plain: Mapping[str, str], taken: set[str]) -> str | None:
    """The column that is meant by a field: of its name, of one that means the same, or of one that is misspelled."""
    for name in (field, *_ALIASES.get(field, ())):
        if name in plain and plain[name] not in taken:
            return plain[name]
    close = difflib.get_close_matches(field, [name for name in plain if plain[name] not in taken], 1, _CLOSE)
    return plain[close[0]] if close else None
