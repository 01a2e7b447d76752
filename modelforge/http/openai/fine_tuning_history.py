"""What happened in a fine-tuning job: its events, and the checkpoints that it has."""

import asyncio
from collections.abc import Iterable, Iterator
from typing import Literal

from aiohttp import web
from msgspec import Struct

from modelforge.checkpoints import Checkpoint, list_checkpoints
from modelforge.domain import job
from modelforge.domain.messages import Record
from modelforge.event_log.queries import LAST
from modelforge.event_log.sqlite import LogReader
from modelforge.http.openai.fine_tuning import find_fine_tuning_job
from modelforge.http.openai.identifiers import fine_tuning_job_id, unix_seconds
from modelforge.http.openai.pages import AFTER_ID, page_of
from modelforge.http.plumbing.body import json_response, whole_number
from modelforge.http.plumbing.keys import EVENT_LOG, LAYOUT
from modelforge.http.plumbing.query import text_query
from modelforge.http.plumbing.route import Route, limit_to

_EVENT = "ftevent-"
_PAGE = 20
_CHECKPOINTS = 10
_LARGEST_PAGE = 1000
_TOLD = (
    *("TrainingRequested", "AttemptLaunching", "TrainingStarted", "MetricsLogged", "EvaluationLogged"),
    *(
        "CheckpointSaved",
        "TrackerGivenUp",
        "StopRequested",
        "AttemptFailed",
        "TrainingCompleted",
        "TrainingStopped",
        "TrainingFailed",
    ),
)
_OF_EVALUATION = {"eval_loss": "valid_loss"}
"""What OpenAI calls a figure of an evaluation."""


class FineTuningEvent(Struct, frozen=True, kw_only=True):
    """Something that happened; `data` has the figures of a step or an evaluation."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"] = "info"
    message: str
    type: Literal["message", "metrics"] = "message"
    data: dict[str, float | None] = {}


class FineTuningEventList(Struct, frozen=True, kw_only=True):
    """A page of events, newest first."""

    object: Literal["list"] = "list"
    data: list[FineTuningEvent]
    has_more: bool


class CheckpointMetrics(Struct, frozen=True, kw_only=True):
    """The figures of a checkpoint's step, as far as there are any."""

    step: int
    train_loss: float | None
    full_valid_loss: float | None


class FineTuningCheckpoint(Struct, frozen=True, kw_only=True):
    """A whole checkpoint. `fine_tuned_model_checkpoint`: its folder on the server's disk."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: CheckpointMetrics


class FineTuningCheckpointList(Struct, frozen=True, kw_only=True):
    """A page of checkpoints, newest first."""

    object: Literal["list"] = "list"
    data: list[FineTuningCheckpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool


async def list_fine_tuning_events(request: web.Request) -> web.Response:
    """The events of a job, newest first."""
    stream = job.stream_of(find_fine_tuning_job(request).job_id or "")
    after = text_query(request, "after")
    last = None if after is None else whole_number(after.removeprefix(_EVENT).partition("-")[0])

    def page(reader: LogReader) -> tuple[list[FineTuningEvent], bool]:
        found = _events(reader, stream, LAST) if after is None else _from(reader, stream, last, after)
        return page_of(request, found, lambda one: one.id, _PAGE)

    events, has_more = await request.app[EVENT_LOG].read(page)
    return json_response(FineTuningEventList(data=events, has_more=has_more))


def _events(reader: LogReader, stream: str, until: int) -> Iterator[FineTuningEvent]:
    """The events of a job from the record at a position back, newest first."""
    for record in reader.records_backwards(stream, _TOLD, until=until):
        yield from reversed([*_of_record(record)])


def _from(reader: LogReader, stream: str, position: int | None, event_id: str) -> Iterable[FineTuningEvent]:
    """The events of a job from the one with an id back, whose record would lie at a position; none if it does not."""
    if position is None or position > LAST:
        return ()
    record = next(reader.records(after=position - 1, until=position, streams=(stream,), types=_TOLD, limit=1), None)
    is_there = record is not None and any(event.id == event_id for event in _of_record(record))
    return _events(reader, stream, position) if is_there else ()


def _of_record(record: Record) -> Iterator[FineTuningEvent]:
    at = record.at // 1_000_000
    if isinstance(record.message, job.MetricsLogged):
        for step in record.message.steps:
            yield FineTuningEvent(
                id=f"{_EVENT}{record.position}-{step.step}",
                created_at=at,
                message=f"Step {step.step}/{step.total_steps}: training loss={step.loss}",
                type="metrics",
                data={
                    "step": step.step,
                    "total_steps": step.total_steps,
                    "train_loss": step.loss,
                    "learning_rate": step.learning_rate,
                },
            )
        return
    if isinstance(record.message, job.EvaluationLogged):
        report = record.message.report
        yield FineTuningEvent(
            id=f"{_EVENT}{record.position}",
            created_at=at,
            message=f"Step {report.step}: evaluation loss={report.metrics.get('eval_loss')}",
            type="metrics",
            data={"step": report.step}
            | {_OF_EVALUATION.get(name, name): value for name, value in report.metrics.items()},
        )
        return
    level, message = _told(record)
    yield FineTuningEvent(id=f"{_EVENT}{record.position}", created_at=at, level=level, message=message)


def _told(record: Record) -> tuple[Literal["info", "warn", "error"], str]:
    match record.message:
        case job.TrainingRequested():
            return "info", "The job was created"
        case job.AttemptLaunching(attempt=attempt):
            return "info", f"Attempt {attempt} is launched"
        case job.TrainingStarted(report=report):
            return "info", f"Training started at step {report.resumed_step} of {report.total_steps}"
        case job.CheckpointSaved(step=step):
            return "info", f"A checkpoint was saved at step {step}"
        case job.TrackerGivenUp(tracker=tracker, message=message):
            return "warn", f"{tracker} is told nothing more: {message}"
        case job.StopRequested():
            return "info", "The job was asked to end"
        case job.AttemptFailed(kind=kind, message=message):
            return "warn", f"An attempt failed, and the next is made: {kind}: {message}"
        case job.TrainingStopped():
            return "warn", "The job was stopped; it can be resumed"
        case job.TrainingFailed(kind=kind, message=message):
            return "error", f"The job failed: {kind}: {message}"
        case _:
            return "info", "The job has succeeded"


async def list_fine_tuning_checkpoints(request: web.Request) -> web.Response:
    """The whole checkpoints of a job, newest first."""
    job_id = find_fine_tuning_job(request).job_id or ""
    found = await asyncio.to_thread(list_checkpoints, request.app[LAYOUT].checkpoints(job_id))
    own = fine_tuning_job_id(job_id)
    whole = [_checkpoint_of(one, own) for one in reversed(found) if one.valid]
    page, has_more = page_of(request, whole, lambda one: one.id, _CHECKPOINTS)
    first, last = (page[0].id, page[-1].id) if page else (None, None)
    return json_response(FineTuningCheckpointList(data=page, first_id=first, last_id=last, has_more=has_more))


def _checkpoint_of(checkpoint: Checkpoint, own: str) -> FineTuningCheckpoint:
    return FineTuningCheckpoint(
        id=f"ftckpt-{own.rpartition('-')[2]}-{checkpoint.step}",
        created_at=unix_seconds(checkpoint.created_at),
        fine_tuned_model_checkpoint=checkpoint.path,
        fine_tuning_job_id=own,
        step_number=checkpoint.step,
        metrics=CheckpointMetrics(
            step=checkpoint.step,
            train_loss=checkpoint.metrics.get("loss"),
            full_valid_loss=checkpoint.metrics.get("eval_loss"),
        ),
    )


ROUTES = (
    Route(
        method="GET",
        path="/v1/fine_tuning/jobs/{fine_tuning_job_id}/events",
        handler=list_fine_tuning_events,
        answer=FineTuningEventList,
        query=(AFTER_ID, limit_to(_LARGEST_PAGE, _PAGE)),
        errors=(400, 404, 410),
    ),
    Route(
        method="GET",
        path="/v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints",
        handler=list_fine_tuning_checkpoints,
        answer=FineTuningCheckpointList,
        query=(AFTER_ID, limit_to(_LARGEST_PAGE, _CHECKPOINTS)),
        errors=(400, 404, 410),
    ),
)
