"""The reward functions that a request names, looked at before anything is started: patterns, schemas, files, fields."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from modelforge.admission.reward_files import QUIET, check_file
from modelforge.errors import BadInput
from modelforge.machine.reading_threads import read_apart
from trainer_entry import wire
from trainer_entry.wire.formats import ANSWER_FIELDS
from trainer_entry.wire.reward_texts import in_fields
from trainer_entry.wire.rewards import (
    ANSWER,
    OF_THE_CALL,
    JsonSchema,
    NamedReward,
    PythonFile,
    RegularExpression,
    RewardFunction,
    field_read_by,
    functions_of,
)

_LARGEST_SCHEMA = 20_000
_DEEPEST_SCHEMA = 50
_PEEKED_BYTES = 16 << 20
"""So much of a dataset is searched for the fields that functions compare with; the trainer looks at all of it."""
_fields = msgspec.json.Decoder(dict[str, Any])
_TURNS = "0"
"""In the place of an answer that is the last of some turns: a text, and a number."""


async def check_reward_functions(
    parameters: wire.TrainingParameters, roots: tuple[Path, ...]
) -> wire.TrainingParameters:
    """The parameters, in which each Python file is named by its resolved path and its SHA-256.

    Raises:
        BadInput: a pattern, a schema or a file cannot be used; `field` says which.
        NotFound: a file is not there.
    """
    if parameters.reward_functions is None:
        return parameters
    checked = await read_apart(_checked, parameters.reward_functions, roots)
    return msgspec.structs.replace(parameters, reward_functions=checked)


def _checked(
    asked: tuple[RewardFunction | NamedReward, ...], roots: tuple[Path, ...]
) -> tuple[RewardFunction | NamedReward, ...]:
    checked = []
    for place, function in enumerate(asked):
        at = f"reward_functions[{place}]"
        match function:
            case RegularExpression():
                _check_pattern(function, at)
            case JsonSchema(schema=schema):
                _check_schema(schema, f"{at}.schema")
            case PythonFile():
                function = check_file(function, roots, at)  # noqa: PLW2901 - as it is recorded
            case _:
                pass
        checked.append(function)
    return tuple(checked)


def _check_pattern(function: RegularExpression, at: str) -> None:
    try:
        with QUIET, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a later Python may read otherwise
            pattern = re.compile(function.pattern)
    except (re.error, OverflowError, RecursionError) as error:
        place = getattr(error, "pos", None)
        where = "" if place is None else f" at character {place + 1}"
        raise BadInput(
            f"The pattern cannot be read{where}",
            f"{getattr(error, 'msg', error)}. It is one of Python's re; as JSON each backslash stands twice.",
            field=f"{at}.pattern",
        ) from error
    groups = (*range(pattern.groups + 1), *pattern.groupindex)
    if function.group is not None and function.group not in groups:
        raise BadInput(
            f"The pattern has no group {function.group!r}",
            f"It has {', '.join(map(repr, groups))}; 0 is all that matches.",
            field=f"{at}.group",
        )


def _check_schema(schema: dict[str, Any], at: str) -> None:
    if len(msgspec.json.encode(schema)) > _LARGEST_SCHEMA or _depth(schema) > _DEEPEST_SCHEMA:
        raise BadInput(
            "The schema is too large",
            f"It may have {_LARGEST_SCHEMA} bytes, in {_DEEPEST_SCHEMA} levels.",
            field=at,
        )
    try:
        _try_schema(schema, at)
    except BadInput:
        raise
    except Exception as error:  # the library raises what its parts do: of addresses, of types, of numbers
        raise BadInput("The schema cannot be used", f"{type(error).__name__}: {error}"[:500], field=at) from error


def _try_schema(schema: dict[str, Any], at: str) -> None:
    """Refuse what is no schema, or refers to what is not there, and hold it against values of every type."""
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for
    from jsonschema_specifications import REGISTRY
    from referencing import Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    stated = schema.get("$schema")
    known = stated is None or isinstance(stated, str)
    kind = validator_for(schema, default=None if stated is not None else Draft202012Validator) if known else None
    if kind is None:
        raise BadInput(
            f"The schema is of {str(stated)[:100]!r}, which is not known",
            'Leave "$schema" out for 2020-12, or name a draft of json-schema.org.',
            field=f"{at}.$schema",
        )
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise BadInput(
            "The schema is no JSON Schema", f"At {error.json_path}: {error.message}"[:500], field=at
        ) from error
    resolver = REGISTRY.resolver_with_root(Resource.from_contents(schema, default_specification=DRAFT202012))
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except Unresolvable as error:
            raise BadInput(
                f"The schema refers to {reference[:100]!r}, which is not in it",
                'Nothing is fetched: put it into "$defs", and refer to it by "#/$defs/…".',
                field=at,
            ) from error
    validator = kind(schema, registry=REGISTRY)
    for value in (None, False, 0, 0.5, "", [], [0], {}, {"": 0}):
        validator.is_valid(value)


def _references(part: Any) -> Iterator[str]:
    match part:
        case dict():
            for name, value in part.items():
                if name in {"$ref", "$dynamicRef"} and isinstance(value, str):
                    yield value
                yield from _references(value)
        case list():
            for value in part:
                yield from _references(value)
        case _:
            pass


def _depth(value: Any) -> int:
    """How deep a value's objects and lists lie in each other."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        part, depth = waiting.pop()
        inside = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        waiting += [(one, depth + 1) for one in inside]
        deepest = max(deepest, depth)
    return deepest


def check_fields(dataset: wire.DatasetFile, parameters: wire.TrainingParameters) -> None:
    """Refuse a field that functions compare with and a record has not, or not as they compare.

    Raises:
        BadInput: which line it is, and which fields it has.
    """
    functions = functions_of(parameters.reward_functions)
    if all(field_read_by(one) is None for one in functions):
        return
    try:
        with Path(dataset.path).open("rb") as file:
            records = [
                (number, _fields.decode(line))
                for number, line in enumerate(file.readlines(_PEEKED_BYTES), start=1)
                if not line.isspace()
            ]
    except (OSError, ValueError, RecursionError):  # whoever reads all of it says so
        return
    own = ANSWER_FIELDS.get(dataset.format)
    for number, fields in records:
        if fields.get(ANSWER) is None and dataset.format != "prompts":
            fields[ANSWER] = fields.get(own, _TURNS) if own is not None else _TURNS
        given = {name: value for name, value in fields.items() if name not in OF_THE_CALL}
        found = in_fields(functions, {name: _TURNS if _has_turns(value) else value for name, value in given.items()})
        if found is not None:
            raise BadInput(f"Line {number} of the dataset: {found.message}", found.remedy, field=found.field)


def _has_turns(value: Any) -> bool:
    """Whether what stands there is turns, of which the last one is the text; the trainer knows which that is."""
    return isinstance(value, list) and any(isinstance(one, dict) and "role" in one for one in value)
