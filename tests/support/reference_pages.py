"""The pages under docs/reference, and the table of parameters in docs/training.md, written from the code.

`python -m support.reference_pages`, which is `make docs`.
"""

import contextlib
import io
import os
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
from cyclopts import App

from modelforge.cli import main as run
from modelforge.cli.commands import command_line
from modelforge.cli.serving import Flags
from modelforge.domain.conflicts import CONFLICTS
from modelforge.fields import OTHER_NAMES, describe
from modelforge.parameter_meanings import MEANINGS
from modelforge.settings import Settings
from trainer_entry import wire

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
TRAINING = FOLDER.parent / "training.md"
NOTHING = {
    *("early_stopping_patience", "reward_model", "neftune_noise_alpha", "loraplus_lr_ratio", "modules_to_save"),
    *("reward_functions", "tracker_project", "tracker_run", "tracker_tags"),
}
"""Null is no choice of the trainer's here: there is none."""
_MORE_OF_IT = {
    "init_lora_weights": " (see below)",
    "weight_dtype": " (see below)",
    "loss_type": ", of the table below",
    "report_to": " (see [below](#trackers))",
}
"""What stands elsewhere on the page of trainings."""
_TABLE = re.compile(r"(?<=\n)\| Parameter \| Default \| Meaning \|\n(?:\|.*\n)+")
_WRITTEN = "What the code says, written by `make docs`; what it is good for stands in"
_COLUMNS = "100"
_DEFAULT_IN_WORDS = re.compile(r" \((?:[\d.]+|none|auto|~[^)]*|home and current directory)\)")
_OF_THE_MACHINE = {
    "data_dir": "`~/.local/share/modelforge`",
    "dataset_roots": "`~` and the current directory",
    "model_roots": "`~` and the current directory",
}
"""Defaults that are another on each machine."""


def pages() -> dict[str, str]:
    """The pages, by their names."""
    return {"parameters.md": _parameters(), "settings.md": _settings(), "commands.md": _commands()}


def training_page() -> str:
    """The page of trainings as it is, with the table of parameters as the code would write it."""
    lines = _row("Parameter", "Default", "Meaning", head=True)
    for field in msgspec.structs.fields(wire.TrainingParameters):
        meaning = MEANINGS[field.name] + _MORE_OF_IT.get(field.name, "")
        lines += _row(f"`{field.name}`", _default(field), meaning)
    return _TABLE.sub(lambda _: "\n".join([*lines, ""]), TRAINING.read_text())


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default is None:
        return "null" if field.name in NOTHING else "chosen"
    return f"`{msgspec.json.encode(field.default).decode()}`"


def _parameters() -> str:
    lines = [
        "# Parameters of a training",
        "",
        f"{_WRITTEN} [training.md](../training.md#parameters).",
        "",
        *_row("Parameter", "Takes", "Default", "Elsewhere called", head=True),
    ]
    names: dict[str, list[str]] = {}
    for other, name in OTHER_NAMES.items():
        names.setdefault(name, []).append(f"`{other}`")
    for field in msgspec.structs.fields(wire.TrainingParameters):
        lines += _row(f"`{field.name}`", _takes(field.type), _default(field), " ".join(names.get(field.name, ())))
    lines += ["", "What does not go together, and is refused by name:", ""]
    lines += _row("Parameter", "Not with", "What would work", head=True)
    for one in CONFLICTS:
        lines += _row(f"`{one.parameter}`{f' `{one.value}`' if one.value else ''}", one.other, one.remedy)
    return "\n".join([*lines, ""])


def _settings() -> str:
    hints = typing.get_type_hints(Flags, include_extras=True)
    lines = [
        "# Settings of the server",
        "",
        f"{_WRITTEN} [operations.md](../operations.md#settings).",
        "",
        *_row("Setting", "Variable", "Flag", "Takes", "Default", "Meaning", head=True),
    ]
    for field in msgspec.structs.fields(Settings):
        flag = hints[field.name].__metadata__[0]
        (named,) = flag.name or (f"--{field.name.replace('_', '-')}",)
        words = _DEFAULT_IN_WORDS.sub("", flag.help)
        value = getattr(Settings(), field.name)
        default = "none" if value in (None, ()) else f"`{msgspec.json.encode(value, enc_hook=str).decode()}`"
        default = _OF_THE_MACHINE.get(field.name, default)
        variable = f"`MODELFORGE_{field.name.upper()}`"
        lines += _row(f"`{field.name}`", variable, f"`{named}`", _takes(field.type), default, words)
    return "\n".join([*lines, ""])


def _commands() -> str:
    lines = ["# Commands", "", f"{_WRITTEN} [operations.md](../operations.md#commands)."]
    for words in ([], *_commands_of(command_line(), [])):
        lines += ["", f"## modelforge {' '.join(words)}".rstrip(), "", "```", *_help(words), "```"]
    return "\n".join([*lines, ""])


def _commands_of(app: App, words: list[str]) -> Iterator[list[str]]:
    """The words of each command, in the order of their names."""
    for name in sorted({one for one in app if not one.startswith("-")}):
        command = app[name]
        if name == command.name[0]:
            yield [*words, name]
            yield from _commands_of(command, [*words, name])


def _help(words: list[str]) -> list[str]:
    said = io.StringIO()
    plain = {"COLUMNS": _COLUMNS, "NO_COLOR": "1"}
    with patch.dict(os.environ, plain), contextlib.redirect_stdout(said):
        run([*words, "--help"])
    return [line.rstrip() for line in said.getvalue().strip().splitlines()]


def _takes(kind: Any) -> str:
    """What a field takes, in words."""
    schema, components = msgspec.json.schema_components([kind], schema_hook=lambda _: {"type": "string"})
    words = describe(_resolved(schema[0], components))
    of_paths = Path in (kind, *typing.get_args(kind))
    return words.replace("a text", "a path").replace("texts", "paths") if of_paths else words


def _resolved(schema: Any, components: dict[str, Any]) -> Any:
    match schema:
        case {"$ref": str(name)}:
            return components[name.rpartition("/")[2]]
        case {"anyOf": list(parts)}:
            return {**schema, "anyOf": [_resolved(part, components) for part in parts]}
        case _:
            return schema


def _row(*cells: str, head: bool = False) -> list[str]:
    row = "| {} |".format(" | ".join(cell.replace("|", "\\|") for cell in cells))
    return [row, "|{}".format("---|" * len(cells))] if head else [row]


def main() -> None:
    """Write them anew."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
    TRAINING.write_text(training_page())


if __name__ == "__main__":
    main()
