"""`modelforge diff`: in what two jobs differ: parameters, data, environment, curves."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec
from cyclopts import Parameter
from msgspec import Struct
from rich.table import Column, Table

from modelforge.cli.answers import Metrics
from modelforge.cli.connection import connect, path_of
from modelforge.cli.flags import LOCAL, AtServer
from modelforge.cli.screen import Screen, say_json
from modelforge.connection import Connection
from modelforge.projections.jobs import JobDetails
from modelforge.visible_text import visible

_POINTS = 5
_ASKED = ("kind", "task", "strategy", "provider", "model_name", "base_revision", "max_restarts")
_CAME_OUT = ("status", "attempt", "restarts", "total_steps", "left_out_examples", "cut_examples")


class Difference(Struct, frozen=True):
    """Something that two jobs do not have in common; null where one of them has none."""

    part: str
    name: str
    first: str | None
    second: str | None


class _Curve(Struct, frozen=True):
    """The losses of a job by its steps, in training and on held-out records."""

    losses: dict[int, float]
    evaluations: dict[int, float]


async def diff(
    first: Annotated[str, Parameter(help="a job's id")],
    second: Annotated[str, Parameter(help="another job's id")],
    /,
    *,
    server: AtServer = LOCAL,
) -> int:
    """Say in what two jobs differ: parameters, data, environment, curves."""
    async with connect(server) as client:
        jobs = [await client.get(path_of("jobs", job_id), JobDetails) for job_id in (first, second)]
        curves = [await _curve(client, job_id) for job_id in (first, second)]
    found = [*_differences(*jobs), *_points(*curves)]
    if server.json:
        say_json(msgspec.json.encode(found))
        return 0
    console = Screen()
    if not found:
        console.show("They differ in nothing.")
        return 0
    table = Table(
        Column("", no_wrap=True),
        *(Column(visible(name), overflow="fold") for name in ("", first, second)),
        box=None,
        pad_edge=False,
    )
    for part, differences in itertools.groupby(found, key=lambda one: one.part):
        for number, one in enumerate(differences):
            table.add_row("" if number else part, *(visible(text or "-") for text in (one.name, one.first, one.second)))
    console.print(table)
    return 0


def _differences(first: JobDetails, second: JobDetails) -> Iterator[Difference]:
    """Those of what was asked, of the data, of the environment, and of the ends."""
    all_of = [msgspec.to_builtins(job) for job in (first, second)]
    yield from _between("asked", *({name: job[name] for name in _ASKED} for job in all_of))
    yield from _between("parameters", *(job["config"] for job in all_of))
    data = [{**job["dataset"], "lineage": [one["model_id"] for one in job["lineage"]] or None} for job in all_of]
    yield from _between("data", *({name: one for name, one in job.items() if name != "deleted_at"} for job in data))
    where = [job["environment"] or {} for job in all_of]
    yield from _between(
        "environment", *({name: one for name, one in job.items() if name != "versions"} for job in where)
    )
    yield from _between("versions", *(job.get("versions", {}) for job in where))
    yield from _between("came out", *({name: job[name] for name in _CAME_OUT} for job in all_of))


def _between(part: str, first: Mapping[str, object], second: Mapping[str, object]) -> Iterator[Difference]:
    for name in dict.fromkeys((*first, *second)):
        if first.get(name) != second.get(name):
            yield Difference(part, name, _shown(first.get(name)), _shown(second.get(name)))


def _shown(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def _points(first: _Curve, second: _Curve) -> Iterator[Difference]:
    """The losses at the same steps, where they are not the same: a few of all, the last one with them."""
    for name, one, other in (
        ("loss", first.losses, second.losses),
        ("eval_loss", first.evaluations, second.evaluations),
    ):
        steps = sorted(one.keys() & other.keys())
        chosen = (
            {steps[round(place * (len(steps) - 1) / (_POINTS - 1))] for place in range(_POINTS)} if steps else set()
        )
        for step in sorted(chosen):
            if one[step] != other[step]:
                yield Difference("curves", f"{name} at step {step}", f"{one[step]:.4f}", f"{other[step]:.4f}")
        if one and other and max(one) != max(other):
            last = [f"{curve[max(curve)]:.4f} at step {max(curve)}" for curve in (one, other)]
            yield Difference("curves", f"last {name}", *last)


async def _curve(client: Connection, job_id: str) -> _Curve:
    losses: dict[int, float] = {}
    evaluations: dict[int, float] = {}
    after, more = 0, True
    while more:
        page = await client.get(path_of("jobs", job_id, "metrics", after=after, limit=100_000), Metrics)
        losses |= {one.step: one.loss for one in page.metrics if one.loss is not None}
        for one in page.evaluations:
            loss = one.metrics.get("eval_loss")
            if loss is not None:
                evaluations[one.step] = loss
        after, more = page.last_position, page.has_more
    return _Curve(losses, evaluations)
