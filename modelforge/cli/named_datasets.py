"""The datasets of a training as they are typed: files that are sent first, and names of those that the server has."""

import math
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from msgspec import Struct

from modelforge.cli.answers import Uploaded
from modelforge.cli.connection import path_of
from modelforge.cli.flags import WrongUsage
from modelforge.cli.screen import Screen
from modelforge.cli.terminal import show_warnings, upload_with_bar
from modelforge.cli.wording import counted
from modelforge.connection import Connection
from modelforge.server_answers import RequestRefused

Dataset = Annotated[
    Path | None,
    Parameter(help="a file of records (JSONL, JSON, CSV, Parquet, packed or not), or the name of an uploaded one"),
]
Datasets = Annotated[
    list[str] | None,
    Parameter(
        name="--dataset",
        help="NAME[:WEIGHT[:MAX_SAMPLES]], one of several datasets to train on together, as in --dataset a.jsonl:2; "
        "WEIGHT times its records are taken, and at most MAX_SAMPLES; may be repeated",
    ),
]
Validation = Annotated[
    str | None, Parameter(name="--validation-dataset", help="a file, or the name of a dataset, to evaluate on")
]

_NOT_FOUND = 404
_HUB = "hf://"
_PARTS = 3


class Named(Struct, frozen=True, omit_defaults=True):
    """One of several datasets, as the API takes it."""

    dataset: str
    weight: float = 1.0
    max_samples: int | None = None


def named(dataset: Path | None, datasets: list[str] | None) -> str | list[Named]:
    """The datasets that were typed: a name alone, or a list where one has a weight or there are several.

    Raises:
        WrongUsage: there is none, or one says nothing.
    """
    listed = [named_by(text) for text in datasets or ()]
    if dataset is not None:
        listed.insert(0, Named(str(dataset)))
    if not listed:
        raise WrongUsage("There is nothing to train on", "Name a file or a dataset, or several with --dataset.")
    return listed[0].dataset if listed == [Named(listed[0].dataset)] else listed


def named_by(text: str) -> Named:
    """A dataset by NAME[:WEIGHT[:MAX_SAMPLES]].

    Raises:
        WrongUsage: it says which part is none.
    """
    scheme, rest = (_HUB, text.removeprefix(_HUB)) if text.startswith(_HUB) else ("", text)
    name, *numbers = rest.split(":")
    if not name or len(numbers) >= _PARTS:
        raise WrongUsage("--dataset cannot be used", f"{text!r} is not NAME[:WEIGHT[:MAX_SAMPLES]], as in a.jsonl:2.")
    weight, most = [*numbers, "", ""][:2]
    try:
        share = float(weight or 1)
    except ValueError:
        share = math.nan
    if not (0 < share < math.inf):
        raise WrongUsage("--dataset cannot be used", f"{weight!r} in {text!r} is no weight: give a number above 0.")
    if most and not (most.isascii() and most.isdecimal() and int(most) > 0):
        raise WrongUsage("--dataset cannot be used", f"{most!r} in {text!r} is no MAX_SAMPLES: give a number from 1.")
    return Named(scheme + name, share, int(most) if most else None)


def names_of(datasets: str | list[Named]) -> list[str]:
    """The names alone."""
    return [datasets] if isinstance(datasets, str) else [one.dataset for one in datasets]


def file_of(name: str) -> Path | None:
    """The file of a name, if one is here."""
    path = Path(name)
    return path.resolve() if path.is_file() else None


def check_names(names: list[str]) -> None:
    """Refuse two files of one name: the server would have them as revisions of one dataset.

    Raises:
        WrongUsage: it names both.
    """
    taken: dict[str, Path] = {}
    for file in filter(None, map(file_of, names)):
        if taken.setdefault(file.name, file) != file:
            raise WrongUsage(
                "Two files have one name", f"{taken[file.name]} and {file}: rename one, or upload it first."
            )


def renamed(datasets: str | list[Named], names: dict[str, str]) -> str | list[Named]:
    """The same by the names that the server has for them."""
    if isinstance(datasets, str):
        return names[datasets]
    return [Named(names[one.dataset], one.weight, one.max_samples) for one in datasets]


async def sent(client: Connection, name: str, console: Screen) -> str:
    """What the server calls a dataset; a file is sent first.

    Raises:
        RequestRefused: there is none, or it cannot be trained on.
    """
    if (file := file_of(name)) is None:
        return await name_of_uploaded(client, name)
    uploaded = await upload_with_bar(client, file, console, Uploaded)
    console.show(f"Uploaded {uploaded.filename}: {counted(uploaded.num_examples, 'example')}, {uploaded.format}")
    show_warnings(uploaded.validation, uploaded.filename, console)
    return uploaded.filename


async def name_of_uploaded(client: Connection, name: str) -> str:
    """The name of a dataset that the server has, or can fetch.

    Raises:
        RequestRefused: it has none of that name, and neither is it a file.
    """
    if name.startswith(_HUB):
        return name
    if "/" not in name:
        try:
            await client.ask("GET", path_of("datasets", name))
        except RequestRefused as refusal:
            if refusal.status != _NOT_FOUND:
                raise
        else:
            return name
    raise RequestRefused("No such dataset", f"There is no file {name}, and none of that name was uploaded.")
