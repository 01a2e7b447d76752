"""`modelforge datasets`: sent, listed, looked at as a model reads them, measured, deleted."""

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from msgspec import UNSET, Struct
from rich.table import Column, Table
from rich.text import Text

from modelforge.cli.answers import Uploaded
from modelforge.cli.connection import connect, path_of, read_as
from modelforge.cli.flags import LOCAL, AtServer, WrongUsage
from modelforge.cli.model_commands import delete_if_sure
from modelforge.cli.screen import Screen, say_json
from modelforge.cli.terminal import facts, moment, show_steps, show_warnings, size, upload_with_bar
from modelforge.cli.training_flags import named_model
from modelforge.cli.wording import counted
from modelforge.projections.datasets import DatasetDetails, DatasetSummary
from modelforge.visible_text import visible, visible_lines
from trainer_entry import wire

Filename = Annotated[str, Parameter(help="the dataset's name, as `modelforge datasets list` has it")]
Revision = Annotated[int | None, Parameter(help="of the uploads under this name; by default the last one")]
Model = Annotated[str | None, Parameter(help="the model that reads them, named as for a training")]


class _DatasetList(Struct, frozen=True):
    datasets: list[DatasetSummary]


async def upload(
    file: Annotated[Path, Parameter(help="JSONL, JSON, CSV or Parquet, packed or not")],
    /,
    *,
    task: Annotated[wire.Task | None, Parameter(help="refuse it unless it serves this task")] = None,
    strategy: Annotated[wire.Strategy | None, Parameter(help="refuse it unless it serves this strategy")] = None,
    column: Annotated[
        list[str] | None,
        Parameter(help="FIELD=COLUMN: a column that is to be read as a field of another name; may be repeated"),
    ] = None,
    encoding: Annotated[str | None, Parameter(help="of its text, such as windows-1252; found out by default")] = None,
    server: AtServer = LOCAL,
) -> int:
    """Send a file; every record is checked, and the file is kept under its name."""
    if not file.is_file():
        raise WrongUsage("No such dataset", f"There is no file {file}.")
    fields: dict[str, str] = {}
    fields |= {} if task is None else {"task": task}
    fields |= {} if strategy is None else {"strategy": strategy}
    fields |= {} if encoding is None else {"encoding": encoding}
    if column:
        fields["columns"] = msgspec.json.encode(_columns(column)).decode()
    console = Screen(stderr=server.json)
    async with connect(server) as client:
        taken = await upload_with_bar(client, file, console, Uploaded, **fields)
    if server.json:
        say_json(msgspec.json.encode(taken))
        return 0
    examples = counted(taken.num_examples, "example")
    console.show(f"Uploaded {taken.filename}: {examples}, {taken.format}, revision {taken.revision}")
    show_warnings(taken.validation, taken.filename, console)
    show_steps(
        console,
        (f"datasets preview {taken.filename}", "shows its first records"),
        (f"train {taken.filename} --model MODEL", "trains on it"),
    )
    return 0


def _columns(given: list[str]) -> dict[str, str | list[str]]:
    """Columns by the field that they are read as; a field that is named again has several.

    Raises:
        WrongUsage: one is no FIELD=COLUMN.
    """
    columns: dict[str, str | list[str]] = {}
    for text in given:
        field, equals, name = text.partition("=")
        if not equals:
            raise WrongUsage("--column cannot be used", f"{text!r} is not FIELD=COLUMN, as in --column input=question.")
        before = columns.get(field)
        columns[field] = name if before is None else [*([before] if isinstance(before, str) else before), name]
    return columns


async def list_all(*, server: AtServer = LOCAL) -> int:
    """List the datasets."""
    console = Screen()
    async with connect(server) as client:
        answer = read_as(await client.ask("GET", path_of("datasets")), _DatasetList, server)
    if answer is None:
        return 0
    if not answer.datasets:
        console.show("There is no dataset yet; `modelforge datasets upload FILE` sends one.")
        return 0
    table = Table(
        Column("name", overflow="fold"),
        Column("examples", no_wrap=True, justify="right"),
        Column("format", no_wrap=True),
        Column("size", no_wrap=True, justify="right"),
        Column("uploaded (UTC)", no_wrap=True),
        box=None,
        pad_edge=False,
    )
    for one in answer.datasets:
        table.add_row(
            *(visible(one.filename), str(one.num_examples), one.format),
            *(size(one.size_mb * 1_000_000), moment(one.uploaded_at)),
        )
    console.print(table)
    return 0


async def show(filename: Filename, /, *, revision: Revision = None, server: AtServer = LOCAL) -> int:
    """Show one dataset: what it is, what its check found, what it can be trained on for, and the jobs that did."""
    console = Screen()
    async with connect(server) as client:
        path = path_of("datasets", filename, revision=revision)
        answer = read_as(await client.ask("GET", path), DatasetDetails, server)
    if answer is None:
        return 0
    console.print(facts(answer, leave_out=("warnings",)))
    for warning in answer.warnings:
        field = f", {warning.field}" if warning.field else ""
        console.show(f"  line {warning.line}{field}: {warning.message}")
    return 0


async def preview(
    filename: Filename,
    /,
    *,
    model: Model = None,
    limit: Annotated[int, Parameter(help="how many records")] = 3,
    strategy: Annotated[wire.Strategy | None, Parameter(help="as this strategy trains on it")] = None,
    task: Annotated[wire.Task | None, Parameter(help="as this task trains on it")] = None,
    max_seq_length: Annotated[int | None, Parameter(help="where examples are cut, in tokens")] = None,
    revision: Revision = None,
    server: AtServer = LOCAL,
) -> int:
    """Show the first records; with --model as the model reads them.

    What it learns to say is green, or stands between > and < where there are no colours; what it only reads is plain.
    """
    console = Screen()
    reader = None if model is None else named_model(model)
    query = {"model_name": reader, "limit": limit, "strategy": strategy, "task": task}
    path = path_of("datasets", filename, "preview", max_seq_length=max_seq_length, revision=revision, **query)
    async with connect(server) as client:
        answer = read_as(await client.ask("GET", path), wire.DatasetPreview, server)
    if answer is None:
        return 0
    for record in answer.records:
        console.show(f"line {record.line}")
        if record.examples is UNSET:
            console.print(f"  {visible_lines(bytes(record.record).decode())}", soft_wrap=True)
            continue
        for example in record.examples:
            if example.left_out is not None:
                console.show(f"  not trained on: {example.left_out}")
            for sequence in example.sequences:
                learned = sum(token.loss for token in sequence.tokens)
                cut = f", cut from {sequence.length}" if sequence.length > len(sequence.tokens) else ""
                console.show(f"  {sequence.name}: {len(sequence.tokens)} tokens, {learned} of them learned{cut}")
                console.print(_read_by_model(sequence, coloured=_has_colours(console)), soft_wrap=True)
    if answer.has_more:
        console.show(f"{counted(answer.num_examples, 'record')} in all; --limit shows more, up to 100.")
    return 0


def _has_colours(console: Screen) -> bool:
    return console.is_terminal and not console.no_color and console.color_system is not None


def _read_by_model(sequence: wire.SequenceView, *, coloured: bool) -> Text:
    """The text of a sequence, with what the model learns to say marked."""
    shown = Text()
    before = False
    for token in sequence.tokens:
        if not coloured and token.loss != before:
            shown.append(">" if token.loss else "<")
        shown.append(visible_lines(token.text), style="green" if token.loss and coloured else None)
        before = token.loss
    return shown if coloured or not before else shown.append("<")


async def statistics(
    filename: Filename,
    /,
    *,
    model: Annotated[str, Parameter(help="the model whose tokens are counted, named as for a training")],
    sample: Annotated[int, Parameter(help="measure at most so many records")] = 10_000,
    strategy: Annotated[wire.Strategy | None, Parameter(help="as this strategy trains on it")] = None,
    task: Annotated[wire.Task | None, Parameter(help="as this task trains on it")] = None,
    max_seq_length: Annotated[int | None, Parameter(help="where examples are cut, in tokens")] = None,
    revision: Revision = None,
    server: AtServer = LOCAL,
) -> int:
    """Count how long the records are in a model's tokens, what is cut off, and what teaches nothing."""
    console = Screen()
    query = {"model_name": named_model(model), "sample": sample, "strategy": strategy, "task": task}
    path = path_of("datasets", filename, "statistics", max_seq_length=max_seq_length, revision=revision, **query)
    async with connect(server) as client:
        answer = read_as(await client.ask("GET", path), wire.DatasetStatistics, server)
    if answer is None:
        return 0
    console.show(
        f"{answer.measured} of {counted(answer.num_examples, 'record')} measured: "
        f"{counted(answer.examples, 'example')}, {answer.left_out} left out, {answer.cut} cut; "
        f"{counted(answer.tokens, 'token')}, {answer.loss_tokens} of them learned"
    )
    columns = ("tokens of", "count", "mean", "least", "half up to", "95 % up to", "most", "cut at", "longer")
    table = Table(
        *(Column(name, no_wrap=True, justify="right" if number else "left") for number, name in enumerate(columns)),
        box=None,
        pad_edge=False,
    )
    for lengths in answer.lengths:
        within = lengths.quantiles
        table.add_row(
            *(lengths.sequence, str(lengths.count), f"{lengths.mean:.1f}", str(within.min), str(within.p50)),
            *(str(within.p95), str(within.max), str(lengths.limit), str(lengths.truncated)),
        )
    console.print(table)
    return 0


async def delete(
    filename: Filename,
    /,
    *,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], help="ask nobody")] = False,
    server: AtServer = LOCAL,
) -> int:
    """Delete a dataset, all that was uploaded under its name, and its files."""
    return await delete_if_sure(f"the dataset {filename}", filename, path_of("datasets", filename), server, yes=yes)
