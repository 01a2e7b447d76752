"""Trainings on a terminal: a line that moves where there is a screen, lines that stay where there is none."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from modelforge.cli.screen import Screen, say_json
from modelforge.connection import Connection
from modelforge.errors import DatasetReport
from modelforge.projections.jobs import JobDetails
from modelforge.projections.status_messages import StatusMessage
from modelforge.visible_text import visible

_PHASES = {
    "loading_model": "loading the model",
    "preparing_data": "preparing the data",
    "training": "training",
    "evaluating": "evaluating",
    "saving": "saving the model",
    "merging": "merging",
    "exporting": "exporting",
    "pushing": "pushing to the hub",
}
_PLAIN_STEP = 10
_YEAR = len("2026-")
_SHOWN_WARNINGS = 5
_WIDEST_BAR, _NARROWEST_BAR = 30, 5
_BESIDE_BAR = 73
"""Columns of what stands beside a bar, and of the `^C` that a terminal writes behind it: a full line would break."""
_WORTH_A_BAR = 1_000_000
_T = TypeVar("_T", bound=Struct)


async def show_training(messages: AsyncIterator[StatusMessage], console: Screen, *, as_json: bool = False) -> None:
    """Show a job by all of its messages. `as_json`: each of them, a line."""
    columns = (
        TextColumn("{task.description:<20}", markup=False),
        BarColumn(bar_width=min(_WIDEST_BAR, max(_NARROWEST_BAR, console.width - _BESIDE_BAR))),
        TextColumn("{task.fields[steps]:>11}", markup=False),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    with Progress(
        *columns, console=console, disable=as_json or not console.is_terminal, refresh_per_second=4
    ) as progress:
        bar = progress.add_task("starting", total=100, steps="", figures="")
        shown = ""
        async for message in messages:
            if as_json:
                say_json(msgspec.json.encode(message))
            _move(progress, bar, message)
            line = plain_line(message)
            if not as_json and not console.is_terminal and line != shown and is_worth_a_line(message):
                console.show(line)
                shown = line


def _move(progress: Progress, bar: TaskID, message: StatusMessage) -> None:
    progress.update(
        bar,
        completed=message.progress or 0,
        description=describe(message),
        steps=f"{message.current_step or 0}/{message.total_steps}" if message.total_steps else "",
        figures=figures(message),
    )


def describe(message: StatusMessage) -> str:
    """What a job does, in a few words."""
    if message.stalled:
        return "training, but silent"
    if message.waiting_for is not None:
        return f"{message.status}: {visible(message.waiting_for)}"
    if message.status in {"starting", "training"} and message.phase is not None:
        return _PHASES[message.phase]
    return message.status


def figures(message: StatusMessage) -> str:
    """Loss, epoch and time left, as far as they are known."""
    parts = []
    if message.loss is not None:
        parts.append(f"loss {message.loss:.4f}")
    if message.current_epoch is not None and message.total_epochs is not None:
        parts.append(f"epoch {message.current_epoch}/{message.total_epochs}")
    if message.eta_seconds is not None and message.status == "training":
        parts.append(f"{duration(message.eta_seconds)} left")
    elif message.phase_eta_seconds is not None and message.status == "training":
        parts.append(f"{duration(message.phase_eta_seconds)} left in this phase")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def plain_line(message: StatusMessage) -> str:
    """A job's state as one line of text."""
    steps = f" {message.current_step}/{message.total_steps}" if message.total_steps else ""
    return "  ".join(filter(None, (f"{describe(message)}{steps}", figures(message))))


def is_worth_a_line(message: StatusMessage) -> bool:
    """Where nothing can be overwritten, not every step gets a line."""
    return message.type != "MetricsLogged" or (message.current_step or 0) % _PLAIN_STEP == 0


def _status(job: JobDetails) -> str:
    """The status, and what there is to say about it."""
    if job.error is not None:
        return f"{job.status}: {visible(job.error.kind)}"
    if job.queue_position is not None:
        return f"{job.status}, {job.queue_position} in line"
    if job.waiting_for is not None:
        return f"{job.status}: {visible(job.waiting_for)}"
    return "stalled" if job.stalled else job.status


def moment(iso: str | None) -> str:
    """A moment of the API, to the minute."""
    return "" if iso is None else iso[:16].replace("T", " ")


def _in_short(model: str) -> str:
    """A model for a list: of a folder's path the end, which tells it from others."""
    return Path(model).name or model if model.startswith("/") else model


def jobs_table(jobs: list[JobDetails], *, narrow: bool) -> Table:
    """The jobs, one a row; `narrow` says less, and leaves names to be folded."""
    kinds = any(job.kind != "training" for job in jobs)
    table = Table(
        *(Column(name, no_wrap=True) for name in ("job", *(("kind",) if kinds else ()), "status")),
        *(Column(name, no_wrap=True, justify="right") for name in (*(() if narrow else ("progress",)), "loss")),
        *(Column(name, overflow="fold", no_wrap=not narrow) for name in ("model", "dataset")),
        Column("started (UTC)" if not narrow else "started", no_wrap=True),
        box=None,
        pad_edge=False,
    )
    for job in jobs:
        done = f"{job.progress:.1f} %"
        table.add_row(
            job.job_id,
            *((job.kind,) if kinds else ()),
            f"{_status(job)} {done}" if narrow and job.status == "training" else _status(job),
            *(() if narrow else (done,)),
            "" if job.loss is None else f"{job.loss:.4f}",
            visible(_in_short(job.model_name)),
            visible(job.dataset.filename),
            moment(job.started_at)[_YEAR if narrow else 0 :],
        )
    return table


def facts(thing: Struct, leave_out: tuple[str, ...] = ()) -> Table:
    """All that is known of a thing, a line each; what is null or empty is left out."""
    table = Table(Column("", no_wrap=True), Column("", overflow="fold"), box=None, pad_edge=False, show_header=False)
    for name, value in msgspec.to_builtins(thing).items():
        if name in leave_out or _is_nothing(value):
            continue
        within = value.items() if isinstance(value, dict) else ()
        lines = [f"{key} {_in_a_line(one)}" for key, one in within if not _is_nothing(one)]
        table.add_row(name, "\n".join(lines) if lines else _in_a_line(value))
    return table


def _is_nothing(value: object) -> bool:
    return value is None or (isinstance(value, str | list | tuple | dict) and not value)


def _in_a_line(value: object) -> str:
    """A value of the API for people: names and values, and no JSON but where there is no other word."""
    match value:
        case str():
            return value
        case float():
            return f"{value:.6g}"
        case dict():
            return ", ".join(f"{key} {_in_a_line(one)}" for key, one in value.items() if not _is_nothing(one))
        case list() | tuple():
            apart = "; " if any(isinstance(one, dict) for one in value) else ", "
            return apart.join(map(_in_a_line, value))
        case _:
            return msgspec.json.encode(value).decode()


def size(count: float) -> str:
    """Bytes, for people."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1e3:.1f} kB"


def show_warnings(report: DatasetReport, filename: str, console: Screen) -> None:
    """The first warnings of a dataset, for a person to check while the training starts."""
    for warning in report.warnings[:_SHOWN_WARNINGS]:
        field = f", {warning.field}" if warning.field else ""
        console.show(f"  line {warning.line}{field}: {warning.message}")
    more = report.warning_count - _SHOWN_WARNINGS
    if more > 0:
        console.show(f"  and {more} more: `modelforge datasets show {filename}` lists them")


def to_type(*steps: tuple[str, str]) -> list[str]:
    """What may be typed next, a command a line, each with what it does: so that no command is broken by an edge."""
    width = max(len(command) for command, _ in steps)
    return [f"  modelforge {command:<{width}}  {does}" for command, does in steps]


def show_steps(console: Screen, *steps: tuple[str, str]) -> None:
    """Print what may be typed next."""
    for line in to_type(*steps):
        console.show(line, soft_wrap=True)


def in_figures(metrics: Mapping[str, float | None]) -> str:
    """Figures of a model in a line."""
    return ", ".join(f"{name} {'none' if value is None else f'{value:.4f}'}" for name, value in metrics.items())


async def upload_with_bar(client: Connection, file: Path, console: Screen, kind: type[_T], **fields: str) -> _T:
    """Send a dataset; a bar moves meanwhile where there is a terminal, and the file takes a while."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    total = _size_of(file)
    hidden = not console.is_terminal or total < _WORTH_A_BAR
    with Progress(*columns, console=console, disable=hidden, transient=True) as progress:
        bar = progress.add_task(visible(f"sending {file.name}"), total=total)

        def on_sent(count: int) -> None:
            progress.advance(bar, count)
            if progress.finished:
                progress.update(bar, description="checking")

        return await client.upload(file, kind, on_sent=on_sent, **fields)


def _size_of(file: Path) -> int:
    return file.stat().st_size
