"""`modelforge models`: listed, shown with what they come of, deleted."""

import sys
from typing import Annotated

from cyclopts import Parameter
from rich.table import Column, Table

from modelforge.cli.answers import ModelList, Said
from modelforge.cli.connection import connect, is_interactive, path_of, read_as
from modelforge.cli.flags import LOCAL, AtServer, Server, WrongUsage
from modelforge.cli.screen import Screen
from modelforge.cli.terminal import facts, in_figures, moment, size
from modelforge.cli.wording import counted
from modelforge.projections.models import ModelDetails
from modelforge.visible_text import visible

ModelId = Annotated[int, Parameter(help="the model's number, as `modelforge models list` has it")]


async def list_all(*, server: AtServer = LOCAL) -> int:
    """List the trained models, oldest first."""
    console = Screen()
    async with connect(server) as client:
        answer = read_as(await client.ask("GET", path_of("models")), ModelList, server)
    if answer is None:
        return 0
    if not answer.models:
        console.show("There is no model yet; `modelforge train` makes one.")
        return 0
    table = Table(
        Column("id", no_wrap=True, justify="right"),
        *(Column(name, overflow="fold") for name in ("name", "base model")),
        Column("kind", no_wrap=True),
        Column("size", no_wrap=True, justify="right"),
        Column("made (UTC)", no_wrap=True),
        box=None,
        pad_edge=False,
    )
    for one in answer.models:
        table.add_row(
            *(str(one.id), visible(one.name), visible(one.base_model)),
            *(one.kind, size(one.size_mb * 1_000_000), moment(one.created_at)),
        )
    console.print(table)
    return 0


async def show(model_id: ModelId, /, *, server: AtServer = LOCAL) -> int:
    """Show one model: what it is, what it was made of, and the models that it comes of."""
    console = Screen()
    async with connect(server) as client:
        answer = read_as(await client.ask("GET", path_of("models", model_id)), ModelDetails, server)
    if answer is None:
        return 0
    console.print(facts(answer, leave_out=("lineage", "evaluations")))
    for one in answer.evaluations:
        which = "its base on" if one.base_model else "on"
        told = f"{which} {one.dataset.filename} ({counted(one.records, 'record')}): {in_figures(one.metrics)}"
        console.show(f"evaluated {moment(one.at)} by {one.job_id}, {told}", soft_wrap=True)
    console.show("lineage, the newest first:")
    merged = "" if answer.merged_from is None else f", merged from model {answer.merged_from}"
    console.show(f"  model {answer.id}, {answer.name}: {answer.job_id}{merged}", soft_wrap=True)
    for ancestor in answer.lineage:
        console.show(f"  model {ancestor.model_id}, {ancestor.name}: {ancestor.job_id}", soft_wrap=True)
    began = answer.lineage[-1].base_model if answer.lineage else answer.base_model
    console.show(f"  {began}", soft_wrap=True)
    return 0


async def delete(
    model_id: ModelId,
    /,
    *,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], help="ask nobody")] = False,
    server: AtServer = LOCAL,
) -> int:
    """Delete a model and its files."""
    return await delete_if_sure(f"model {model_id}", model_id, path_of("models", model_id), server, yes=yes)


async def delete_if_sure(what: str, name: object, path: str, server: Server, *, yes: bool) -> int:
    """Delete what stands at a path of the API, once somebody says so; the exit code.

    Raises:
        WrongUsage: nobody can be asked, and --yes was not given.
        RequestRefused: it is not deleted, and why.
    """
    if not _sure(f"Delete {what} and its files?", yes=yes):
        return 1
    async with connect(server) as client:
        answer = read_as(await client.ask("DELETE", path), Said, server)
    if answer is not None:
        Screen().show(f"{answer.message}: {name}")
    return 0


def _sure(question: str, *, yes: bool) -> bool:
    """Whether it is to be done, asked where somebody can answer.

    Raises:
        WrongUsage: nobody can, and --yes was not given.
    """
    if yes:
        return True
    if not is_interactive():
        raise WrongUsage("Nobody is here to be asked", f"{visible(question)} Give --yes.")
    sys.stderr.write(f"{visible(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
