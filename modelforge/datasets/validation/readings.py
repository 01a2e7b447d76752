"""What the columns of a file mean, where their usual names allow one reading only."""

from collections.abc import Mapping

from modelforge.datasets.validation.columns import FIELDS, LONGEST_COLUMN, Columns, Source
from modelforge.datasets.validation.field_names import REFUSED, plain_name, says_nothing
from modelforge.datasets.validation.recognition import format_shown_by, required_fields
from modelforge.datasets.validation.usual_names import BESIDE, NEVER_DROPPED, NO_TEXT, READINGS, Reading
from trainer_entry import wire
from trainer_entry.wire.formats import FORMATS
from trainer_entry.wire.turns import role_named

_Mapping = dict[str, str]
_OPENAI_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})


def read_columns(record: object) -> Columns:
    """How records like this one are read, if their columns have usual names and can be read in one way only.

    `record`: with the fields that any of them has.
    """
    if isinstance(record, list):
        spelling = spelling_of(record)
        return Columns(bare=spelling, inferred=True) if spelling is not None else Columns()
    if not isinstance(record, dict) or any(len(name) > LONGEST_COLUMN for name in record):
        return Columns()
    told = {name: value for name, value in record.items() if not says_nothing(value)}
    if len({plain_name(name) for name in told}) < len(told):
        return Columns()
    cased = _cased(told)
    found = _read({cased.get(name, name): value for name, value in told.items()})
    if found is None:
        return Columns()
    mapping, spelled = found
    names = {field: name for name, field in cased.items()}
    whole: dict[str, Source] = {
        field: [names.get(column, column) for column in source]
        if isinstance(source, list)
        else names.get(source, source)
        for field, source in mapping.items()
    }
    taken = {column for source in mapping.values() for column in (source if isinstance(source, list) else [source])}
    whole |= {field: name for field, name in names.items() if field not in taken and field not in whole}
    return Columns(whole, spelled=spelled, inferred=True)


def _cased(record: Mapping[str, object]) -> dict[str, str]:
    """Columns that are called as fields are, but for capitals and spaces, and the fields."""
    return {
        name: plain_name(name)
        for name in record
        if name != plain_name(name) and plain_name(name) in FIELDS | REFUSED and plain_name(name) not in record
    }


def _read(record: dict[str, object]) -> tuple[dict[str, Source], bool] | None:
    """The mapping of columns that are read, and whether turns of preferences are spelled otherwise; None for none."""
    plain = {plain_name(name): name for name in record}
    asked = record.get("input")
    if isinstance(asked, dict) and "messages" in asked and {"preferred_output", "non_preferred_output"} <= {*record}:
        given: dict[str, Source] = {
            "prompt": "input.messages",
            "chosen": "preferred_output",
            "rejected": "non_preferred_output",
        }
        return given | ({"tools": "input.tools"} if "tools" in asked else {}), True
    if spelling_of(asked) == "messages" and isinstance(record.get("output"), str | list):
        given = {"prompt": "input", "completion": "output"}
        return given | _beside("prompt_completion", record, plain, {}), False
    if {"chosen", "rejected"} <= {*record} and "prompt" not in record:
        ranked = _ranked(record, plain)
        if ranked is not None:
            return ranked, _is_spelled(record, ranked)
    elif spelling_of(record.get("messages")) == "conversations" and "conversations" not in record:
        return {"conversations": "messages", **_beside("conversations", record, plain, {})}, False
    found = _only_reading(record, plain)
    if found is None:
        return None
    kind, mapping = found
    is_named_so = all(field == column or field in BESIDE for field, column in mapping.items())
    if not is_named_so and _lost(kind, mapping, plain, record):
        return None
    spelled = kind == "preferences" and _is_spelled(record, mapping)
    return {field: column for field, column in mapping.items() if field != column}, spelled


def _ranked(record: dict[str, object], plain: Mapping[str, str]) -> dict[str, Source] | None:
    """What two answers are to where it is no one text: an instruction with its input, or turns."""
    beside = _beside("preferences", record, plain, {})
    if "instruction" in record:
        if _lost("preferences", {"prompt": "instruction", "input": "input", **beside}, plain, record):
            return None
        return {"prompt": ["instruction", "input"] if "input" in record else "instruction", **beside}
    answers = record["chosen"], record["rejected"]
    apart = all(isinstance(answer, str | dict) for answer in answers)
    return {"prompt": "messages", **beside} if apart and spelling_of(record.get("messages")) is not None else None


def _is_spelled(record: Mapping[str, object], mapping: Mapping[str, Source]) -> bool:
    sources = (mapping.get(field, field) for field in ("prompt", "chosen", "rejected"))
    values = (record.get(source) for source in sources if isinstance(source, str))
    return any(isinstance(value, dict) or spelling_of(value) == "conversations" for value in values)


def _only_reading(record: dict[str, object], plain: Mapping[str, str]) -> tuple[wire.DatasetFormat, _Mapping] | None:
    shown = format_shown_by(record)
    prompted = shown != "preferences" or "prompt" in record
    if shown is not None and prompted and {*required_fields(shown)} <= record.keys():
        return shown, _beside(shown, record, plain, {})
    possible = [
        (reading.format, mapping) for reading in READINGS if (mapping := _mapping(reading, record, plain)) is not None
    ]
    used = [
        {*mapping.values(), *(name for name in FORMATS[kind].__struct_encode_fields__ if name in record)}
        for kind, mapping in possible
    ]
    widest = [one for one, columns in zip(possible, used, strict=True) if not any(columns < other for other in used)]
    if not widest or len({frozenset(mapping.values()) for _, mapping in widest}) > 1:
        return (shown, {}) if shown == "preferences" and not prompted else None
    return widest[0]


def _mapping(reading: Reading, record: dict[str, object], plain: Mapping[str, str]) -> _Mapping | None:
    """The columns of a record by the fields of a reading, if each field has one and no more."""
    if reading.format == "text" and any(name in NO_TEXT for name in plain):
        return None
    mapping: _Mapping = {}
    for field, names in reading.fields.items():
        columns = _fitting(field, names, record, plain)
        if len(columns) != 1:
            return None
        mapping[field] = columns[0]
    if reading.format == "messages":
        spelled = {spelling_of(record[column]) or field: column for field, column in mapping.items()}
        return spelled | _beside("messages", record, plain, spelled)
    if len({*mapping.values()}) < len(mapping):
        return None
    return mapping | _beside(reading.format, record, plain, mapping)


def _beside(
    kind: wire.DatasetFormat, record: dict[str, object], plain: Mapping[str, str], mapping: _Mapping
) -> _Mapping:
    """The fields that may be missing and stand there under a usual name."""
    found: _Mapping = {}
    for field, names in BESIDE.items():
        if field not in FORMATS[kind].__struct_encode_fields__ or field in required_fields(kind):
            continue
        if not says_nothing(record.get(field)):
            continue
        columns = [name for name in _fitting(field, names, record, plain) if name not in {field, *mapping.values()}]
        if len(columns) == 1:
            found[field] = columns[0]
    return found


def _fitting(field: str, names: tuple[str, ...], record: dict[str, object], plain: Mapping[str, str]) -> list[str]:
    """The columns of these names, or of the field's own, whose values can be what a field holds."""
    return [
        plain[name] for name in dict.fromkeys((field, *names)) if name in plain and _fits(field, record[plain[name]])
    ]


def _lost(kind: wire.DatasetFormat, mapping: _Mapping, plain: Mapping[str, str], record: Mapping[str, object]) -> bool:
    """Whether a mapping would leave out what it must not; what is refused by its name is not lost."""
    kept = {*mapping.values(), *FORMATS[kind].__struct_encode_fields__}
    left = {name for name, column in plain.items() if column not in kept} & NEVER_DROPPED
    return any(name not in REFUSED or says_nothing(record[plain[name]]) for name in left)


def _fits(field: str, value: object) -> bool:
    """Whether a value can be what a field holds."""
    if field == "messages":
        return spelling_of(value) is not None
    if field == "history":
        return isinstance(value, list)
    if field in {"prompt", "chosen", "rejected"} and (isinstance(value, dict) or spelling_of(value) is not None):
        return True
    return isinstance(value, str | int | float)


def spelling_of(value: object) -> str | None:
    """The field whose spelling turns have; None for what is no list of turns."""
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        return None
    if all("role" in turn for turn in value):
        roles = [turn["role"] for turn in value]
        named = [role for role in roles if isinstance(role, str)]
        others = len(named) == len(roles) and not {*named} <= _OPENAI_ROLES
        return "conversations" if others and all(map(role_named, named)) else "messages"
    return "conversations" if all("from" in turn and "value" in turn for turn in value) else None
