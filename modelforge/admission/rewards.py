"""The reward functions that a request names, looked at before anything is started: patterns, schemas, files, fields.

A Python file is read and parsed here, and never run: that is for a trainer's process.
"""

import ast
import hashlib
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from modelforge.errors import BadInput, NotFound
from modelforge.fields import check_label
from modelforge.machine.reading_threads import read_apart
from trainer_entry import wire
from trainer_entry.wire.reward_texts import in_fields
from trainer_entry.wire.rewards import (
    ANSWER,
    JsonSchema,
    NamedReward,
    PythonFile,
    RegularExpression,
    RewardFunction,
    field_read_by,
    functions_of,
)

_LARGEST_FILE = 1 << 18  # Python's parser takes long for some texts that are long
_LARGEST_SCHEMA = 20_000
_DEEPEST_SCHEMA = 50
_PEEKED_BYTES = 16 << 20
"""So much of a dataset is searched for the fields that functions compare with; the trainer looks at all of it."""
CHANGED = "sha256"
"""The last part of the field of a refusal, where a file is not the one that was asked for."""
_fields = msgspec.json.Decoder(dict[str, Any])
_ANSWERS: dict[wire.DatasetFormat, str] = {
    "input_output": "output",
    "prompt_completion": "completion",
    "alpaca": "output",
    "document_summary": "summary",
    "article_highlights": "highlights",
    "preferences": "chosen",
}
"""What the answer is called in a format, where it stands in a field of its own."""
_TURNS = "0"
"""In the place of an answer that is the last of some turns: a text, and a number."""
_quiet = threading.Lock()
"""Warnings are silenced for a whole process: by one thread at a time, or they would stay so."""


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
                function = _checked_file(function, roots, at)  # noqa: PLW2901 - as it is recorded
            case _:
                pass
        checked.append(function)
    return tuple(checked)


def _check_pattern(function: RegularExpression, at: str) -> None:
    try:
        with _quiet, warnings.catch_warnings():
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


def _checked_file(asked: PythonFile, roots: tuple[Path, ...], at: str) -> PythonFile:
    field = f"{at}.path"
    check_label(asked.path, field)
    if not roots:
        raise BadInput(
            "No Python file is run as a reward function here",
            "Start the server with --reward-root and a folder: the files under it are run by trainers, with all that "
            "they may do. The other reward functions need none.",
            field=field,
        )
    path = _allowed(asked.path, roots, field)
    try:
        with path.open("rb") as file:
            source = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise BadInput("The Python file cannot be read", f"{path}: {error.strerror}", field=field) from error
    if len(source) > _LARGEST_FILE:
        raise BadInput("The Python file is too large", f"{path} may have {_LARGEST_FILE} bytes.", field=field)
    sha256 = hashlib.sha256(source).hexdigest()
    if asked.sha256 not in {None, sha256}:
        raise BadInput(
            "The Python file has changed",
            f"{path} has the SHA-256 {sha256}, and {asked.sha256} was asked for. Bring the file back as it was, or "
            "leave sha256 out to be rewarded by it as it is.",
            field=f"{at}.{CHANGED}",
        )
    _check_source(asked, source, path, at)
    return msgspec.structs.replace(asked, path=str(path), sha256=sha256)


def _allowed(name: str, roots: tuple[Path, ...], field: str) -> Path:
    """The regular file of a path, under the roots once links are resolved."""
    try:
        absolute = Path(name).is_absolute()
        path = Path(name).resolve()
        inside = absolute and any(path.is_relative_to(root) for root in roots)
        exists, is_file = path.exists(), path.exists() and stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput("The Python file's path cannot be used", f"{name}: {error}", field=field) from error
    if not inside:
        raise BadInput(
            "The Python file lies outside the reward roots",
            f"{name} is in none of {', '.join(map(str, roots))}; send an absolute path in one of them, or start the "
            "server with --reward-root to allow its folder.",
            field=field,
        )
    if not exists:
        raise NotFound("No such Python file", f"{field}: there is no file {name}.")
    if not is_file:
        raise BadInput("The Python file is no regular file", f"{name} is a folder or a device.", field=field)
    return path


def _check_source(asked: PythonFile, source: bytes, path: Path, at: str) -> None:
    """Refuse what is no Python, or plainly has no such function; what it does is for the trainer to find out."""
    try:
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source, filename=str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        raise BadInput(
            "The Python file cannot be parsed",
            f"{path}{'' if line is None else f', line {line}'}: {getattr(error, 'msg', None) or error}.",
            field=f"{at}.path",
        ) from error
    names = set(_names_in(tree.body))
    if asked.function not in names and "*" not in names:
        found = ", ".join(sorted(names)[:20]) or "none"
        raise BadInput(
            f"The Python file has no function {asked.function}",
            f"{path} has {found}: add it, or name another.",
            field=f"{at}.function",
        )


def _names_in(body: list[ast.stmt]) -> Iterator[str]:
    """The names that statements give something, at the top of a module; `*` for what cannot be known."""
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (alias.asname or alias.name for alias in names)
            case ast.Assign(targets=targets):
                yield from (node.id for one in targets for node in ast.walk(one) if isinstance(node, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.If() | ast.Try() | ast.With() | ast.For() | ast.While():
                yield "*"
            case _:
                pass


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
    own = _ANSWERS.get(dataset.format)
    for number, fields in records:
        if fields.get(ANSWER) is None and dataset.format != "prompts":
            fields[ANSWER] = fields.get(own, _TURNS) if own is not None else _TURNS
        found = in_fields(functions, {name: _TURNS if _has_turns(value) else value for name, value in fields.items()})
        if found is not None:
            raise BadInput(f"Line {number} of the dataset: {found.message}", found.remedy, field=found.field)


def _has_turns(value: Any) -> bool:
    """Whether what stands there is turns, of which the last one is the text; the trainer knows which that is."""
    return isinstance(value, list) and any(isinstance(one, dict) and "role" in one for one in value)
