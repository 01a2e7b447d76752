"""Errors of fields in words for people: what msgspec says, and what the type would take."""

import difflib
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from modelforge.errors import BadInput
from modelforge.visible_text import hidden_in

_PATH = re.compile(r" - at `\$\.?(.*)`$")
_NAMED = re.compile(r"`([^`]+)`$")


_T = TypeVar("_T", bound=Struct)


def project_struct(wide: Struct, kind: type[_T], **added: object) -> _T:
    """A Struct with the fields of `kind` from one that has them all, or all but those in `added`."""
    taken = {name: getattr(wide, name) for name in kind.__struct_fields__ if name not in added}
    return kind(**taken, **added)


class FieldError(Struct, frozen=True, gc=False):
    """An error of one field; `field` is None where it lies in no single one. `remedy`: what would work."""

    field: str | None
    message: str
    remedy: str = ""


def check_label(text: str, field: str, what: str | None = None) -> None:
    """Refuse a name that would not show as what it is, wherever it is listed. `what`: the name, if not the field.

    Raises:
        BadInput: it has such a character, whose code point the message names.
    """
    hidden = hidden_in(text)
    if hidden is not None:
        raise BadInput(
            f"The {what or field} cannot be used",
            f"Character {text.index(hidden) + 1} of it is U+{ord(hidden):04X}, which does not show: names have no "
            "control characters, no ends of lines, and nothing that turns the direction of writing. Take it out.",
            field=field,
        )


def field_error(error: msgspec.ValidationError, kind: type[Struct]) -> FieldError:
    """The error that msgspec found while it decoded a `kind`."""
    text = str(error)
    path = _PATH.search(text)
    message = _PATH.sub("", text)
    inside = path[1] if path else ""
    if message.startswith("Object contains unknown field") and (named := _NAMED.search(message)):
        name = f"{inside}.{named[1]}" if inside else named[1]
        return FieldError(name, f"Unknown field {named[1]!r}", _instead(kind, inside, named[1]))
    if message.startswith("Object missing required field") and (named := _NAMED.search(message)):
        name = f"{inside}.{named[1]}" if inside else named[1]
        return FieldError(name, f"The field {named[1]!r} is missing", taken_by(kind, name))
    return FieldError(inside or None, message.replace("`", ""), taken_by(kind, inside) if inside else "")


def in_detail(field: str | None, remedy: str) -> str:
    """What would work, as a sentence that names the field."""
    if field is None or not remedy or remedy.startswith(f"{field}: "):
        return remedy or field or ""
    if remedy.startswith(_TAKES):
        return f"{field} takes{remedy.removeprefix(_TAKES)}"
    return f"{field}: {remedy[:1].lower()}{remedy[1:]}"


_TAKES = "It takes"
OTHER_NAMES = {
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "n_epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "train_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "micro_batch_size": "per_device_train_batch_size",
    "grad_accum": "gradient_accumulation_steps",
    "accumulation_steps": "gradient_accumulation_steps",
    "scheduler": "lr_scheduler_type",
    "lr_scheduler": "lr_scheduler_type",
    "warmup": "warmup_ratio",
    "wd": "weight_decay",
    "optimizer": "optim",
    "steps": "max_steps",
    "max_length": "max_seq_length",
    "seq_length": "max_seq_length",
    "sequence_length": "max_seq_length",
    "context_length": "max_seq_length",
    "rank": "lora_r",
    "r": "lora_r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "clip": "max_grad_norm",
    "validation_split": "eval_split",
    "val_split": "eval_split",
    "patience": "early_stopping_patience",
    "project": "tracker_project",
    "wandb_project": "tracker_project",
    "run_name": "tracker_run",
    "wandb_tags": "tracker_tags",
    "load_in_4bit": "use_4bit",
    "load_in_8bit": "use_8bit",
    "model": "model_name",
    "model_id": "model_name",
    "dataset_name": "dataset",
    "file": "dataset",
    "name": "output_name",
}
"""What others call it: names of other programs, and short ones."""


def nearest(name: str, known: tuple[str, ...]) -> str:
    """The known name that is meant, or all of them; what others call it comes before what it looks like."""
    meant = OTHER_NAMES.get(name.lower().replace("-", "_"))
    if meant in known:
        return f"Did you mean {meant!r}?"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known fields: {', '.join(sorted(known))}."


def taken_by(kind: type[Struct], path: str) -> str:
    """What the field at a path takes, from its schema; of several that it may stand in, what any of them does."""
    parts = _schemas_at(kind, path)
    names = [value for part in parts for value in part.get("enum", ())]
    taken = [describe({"enum": list(dict.fromkeys(names))})] if names else []
    taken += [describe(part) for part in parts if "enum" not in part]
    words = " or ".join(dict.fromkeys(filter(None, taken)))
    return f"{_TAKES} {words}." if words else ""


def _fields_at(kind: type[Struct], path: str) -> tuple[str, ...]:
    """The fields of the objects that may stand at a path."""
    (_, components) = msgspec.json.schema_components([kind], ref_template="{name}")
    parts = [one for part in _schemas_at(kind, path) for one in _apart(part, components)] if path else []
    return tuple({name: None for part in parts for name in part.get("properties", ())}) or kind.__struct_fields__


def _instead(kind: type[Struct], path: str, name: str) -> str:
    """What would work instead of an unknown field at a path, which others of the objects there may have."""
    known = _fields_at(kind, path)
    if name not in known:
        return nearest(name, known)
    (_, components) = msgspec.json.schema_components([kind], ref_template="{name}")
    objects = [one["properties"] for part in _schemas_at(kind, path) for one in _apart(part, components)
               if name in one.get("properties", {})]  # fmt: skip
    tags = [field["enum"][0] for fields in objects for field in fields.values() if len(field.get("enum", ())) == 1]
    return f"It goes with {', '.join(tags)}: leave it out."


def _schemas_at(kind: type[Struct], path: str) -> list[Mapping[str, Any]]:
    """The schemas of what may stand at a path, as `reward_functions[0].weight`."""
    (_, components) = msgspec.json.schema_components([kind], ref_template="{name}")
    found: list[Mapping[str, Any]] = [components.get(kind.__name__, {})]
    for step in re.findall(r"[^.\[\]]+|\.\.\.", path):
        apart = [one for part in found for one in _apart(part, components)]
        found = [part["properties"][step] for part in apart if step in part.get("properties", {})] or [
            part[inside]
            for part in apart
            for inside in ("items", "additionalProperties")
            if isinstance(part.get(inside), Mapping)
        ]
    return found


def _apart(part: Mapping[str, Any], components: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schemas of which a value fits one."""
    if "$ref" in part:
        return _apart(components[part["$ref"]], components)
    return [one for inside in part["anyOf"] for one in _apart(inside, components)] if "anyOf" in part else [part]


def _number_in_words(number: float) -> str:
    """A bound: a whole number with all its digits."""
    return str(number) if isinstance(number, int) else f"{number:.15g}"


def describe(schema: Mapping[str, Any]) -> str:
    """What a JSON schema takes, in words."""
    if "discriminator" in schema:
        named = schema["discriminator"]
        return f"an object whose {named['propertyName']} is one of {', '.join(named['mapping'])}"
    if "anyOf" in schema:
        return " or ".join(filter(None, (describe(part) for part in schema["anyOf"])))
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    kinds = {
        "integer": "a whole number",
        "number": "a number",
        "string": "a text",
        "boolean": "true or false",
        "array": "a list",
        "null": "null",
        "object": "an object",
    }
    words = kinds.get(schema.get("type", ""), "")
    if schema.get("type") == "array" and schema.get("items"):  # a pair has none
        items = {key: value for key, value in schema["items"].items() if key != "maxLength"}
        inside = describe(items)
        plain = inside.removeprefix("a ").removeprefix("an ")
        words = f"a list of {plain}s" if plain.replace(" ", "").isalpha() else f"a list, each {inside}"
        words = words if inside else "a list"
    bounds = [
        f"{sign} {_number_in_words(schema[key])}"
        for key, sign in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("exclusiveMaximum", "below"),
        )
        if key in schema
    ]
    if "maxLength" in schema:
        bounds.append(f"of {schema.get('minLength', 0)} to {schema['maxLength']} characters")
    return " ".join([words, *bounds])
