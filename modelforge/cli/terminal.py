"""Trainings on a terminal: a line that moves where there is a screen, lines that stay where there is none."""

from collections.abc import AsyncIterator

from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column, Table

from modelforge.cli.screen import Screen
from modelforge.domain.job import FINAL
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


async def show_training(messages: AsyncIterator[StatusMessage], job_id: str, console: Screen) -> StatusMessage:
    """Show a job until its end; its last message is returned."""
    columns = (
        TextColumn("{task.description:<20}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[steps]:>11}", markup=False),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, refresh_per_second=4) as progress:
        bar = progress.add_task("starting", total=100, steps="", figures="")
        shown = ""
        async for message in messages:
            if message.job_id != job_id:
                continue
            _move(progress, bar, message)
            line = plain_line(message)
            if not console.is_terminal and line != shown and is_worth_a_line(message):
                console.show(line)
                shown = line
            if message.status in FINAL:
                return message
    raise AssertionError("the messages end only with an error")


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
    return "stalled" if job.stalled else job.status


def jobs_table(jobs: list[JobDetails]) -> Table:
    """The jobs, one a row."""
    table = Table(
        Column("job", no_wrap=True),
        Column("status", no_wrap=True),
        "progress",
        "loss",
        "model",
        "dataset",
        "started",
        box=None,
    )
    for job in jobs:
        table.add_row(
            job.job_id,
            _status(job),
            f"{job.progress:.1f} %",
            "" if job.loss is None else f"{job.loss:.4f}",
            visible(job.model_name),
            visible(job.dataset.filename),
            job.started_at or "",
        )
    return table
