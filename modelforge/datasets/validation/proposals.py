"""What a person could say of the columns of a file, where nothing may be taken unasked."""

import difflib
from collections.abc import Mapping

import msgspec

from modelforge.datasets.validation.columns import LONGEST_COLUMN, Source, is_text_or_texts
from modelforge.datasets.validation.error_types import short
from modelforge.datasets.validation.field_names import REFUSED, plain_name, says_nothing
from modelforge.datasets.validation.recognition import required_fields
from modelforge.datasets.validation.usual_names import (
    AFTER_PROMPT,
    BEFORE_ANSWER,
    BEFORE_PROMPT,
    BESIDE,
    NEVER_DROPPED,
    NO_TEXT,
    PROPOSED,
    READINGS,
    Reading,
)
from trainer_entry.wire.formats import FORMATS

_CLOSE = 0.8
_TURNS = ({"role", "content"}, {"from", "value"})
_ASKED = {"input_output": ("input", "output"), "alpaca": ("instruction", "output")}
"""The formats whose prompts and answers may be put together of several columns."""


def propose(record: Mapping[str, object], *, alone: bool) -> dict[str, Source] | None:
    """A mapping by which records like this one have a format, where the names of its columns are near enough.

    `record`: with None for a value that is not known. `alone`: it may be a format of one field.
    """
    if _refused_among(record) is not None:
        return None
    plain = {plain_name(name): name for name in record if len(name) <= LONGEST_COLUMN}
    for reading in PROPOSED:
        fields = [*reading.fields] if reading.format == "preferences" else [*required_fields(reading.format)]
        if len(fields) == 1 and not (alone and (reading.format != "text" or NO_TEXT.isdisjoint(plain))):
            continue
        mapping = _mapping(fields, reading, plain)
        if mapping is None or not _holds(reading, mapping, record):
            continue
        composed = _with_others(reading, mapping, record, plain)
        if composed:
            return composed
    return None


def _refused_among(record: Mapping[str, object]) -> str | None:
    """A column that no format has and that would change what is learned; None where there is none."""
    refused = REFUSED - {*BESIDE, *BEFORE_ANSWER}
    return next(
        (name for name, value in record.items() if plain_name(name) in refused and not says_nothing(value)), None
    )


def _mapping(fields: list[str], reading: Reading, plain: Mapping[str, str]) -> dict[str, str] | None:
    usual = next((other.fields for other in READINGS if other.format == reading.format), {})
    mapping: dict[str, str] = {}
    for field in fields:
        names = (field, *usual.get(field, ()), *reading.fields.get(field, ()))
        column = _near(field, names, plain, taken={*mapping.values()})
        if column is None:
            return None
        mapping[field] = column
    return mapping


def _near(field: str, names: tuple[str, ...], plain: Mapping[str, str], taken: set[str]) -> str | None:
    """The column that is meant by a field: of its name, of one that means the same, or of one that is misspelled."""
    for name in names:
        if name in plain and plain[name] not in taken:
            return plain[name]
    close = difflib.get_close_matches(field, [name for name in plain if plain[name] not in taken], 1, _CLOSE)
    return plain[close[0]] if close else None


def _holds(reading: Reading, mapping: Mapping[str, str], record: Mapping[str, object]) -> bool:
    """Whether the values can be what the format wants, as far as they are known."""
    values = {field: record[column] for field, column in mapping.items()}
    if reading.format == "messages":
        return all(value is None or isinstance(value, list) for value in values.values())
    if not all(isinstance(value, str | int | float | None) for value in values.values()):
        return False
    if reading.format != "question_answer":
        return True
    context, answer = values["context"], values["answer"]
    return answer is None or (isinstance(answer, str) and isinstance(context, str | None) and answer in (context or ""))


def _with_others(
    reading: Reading, mapping: dict[str, str], record: Mapping[str, object], plain: Mapping[str, str]
) -> dict[str, Source] | None:
    """The mapping with what would be lost put in; None where it cannot be."""
    whole: dict[str, Source] = dict(mapping)
    known = FORMATS[reading.format].__struct_encode_fields__
    for field, names in BESIDE.items():
        found = (plain[name] for name in (field, *names) if name in plain)
        column = next((name for name in found if isinstance(record[name], str | None)), None)
        if field in known and field not in whole and column is not None and column not in mapping.values():
            whole[field] = column
    kept = {*whole.values(), *known}
    lost = {name for name, column in plain.items() if column not in kept and not says_nothing(record[column])}
    lost |= {name for name, column in plain.items() if column not in kept and record[column] is None}
    lost &= NEVER_DROPPED
    if lost:
        asked, answer = _ASKED.get(reading.format, ("", ""))
        can_be_put_in = BEFORE_PROMPT | AFTER_PROMPT | BEFORE_ANSWER
        if not asked or lost - can_be_put_in or not all(is_text_or_texts(record[plain[name]]) for name in lost):
            return None
        before, after, reasons = (
            [column for name, column in plain.items() if name in lost & names]
            for names in (BEFORE_PROMPT, AFTER_PROMPT, BEFORE_ANSWER)
        )
        whole[asked] = [*before, mapping[asked], *after] if before or after else mapping[asked]
        whole[answer] = [*reasons, mapping[answer]] if reasons else mapping[answer]
    return {field: source for field, source in whole.items() if field != source}


def hint_of(line: bytes, *, alone: bool) -> str:
    """What a message says of a record beside its fault: what could be said of its columns, so that it can be used.

    `alone`: it shows no format, and one column may be enough.
    """
    record = msgspec.json.decode(line)
    mapping = propose(record, alone=alone)
    if mapping is not None:
        return f" Or send columns={msgspec.json.encode(mapping).decode()} with the file."
    if not alone:
        return ""
    if {*record} in _TURNS:
        return ' It is a turn: write all turns of a conversation into one record, as {"messages": […]}.'
    refused = _refused_among(record)
    return "" if refused is None else f" {short(refused)} would change what is learned, and no format here has it."
