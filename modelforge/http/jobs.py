"""Every job: its state, its figures, its log, its end."""

import asyncio
import math
from collections.abc import Callable
from itertools import dropwhile, islice
from typing import get_args

from aiohttp import web
from msgspec import Struct

from modelforge.checkpoints import Checkpoint, list_checkpoints, newest_valid
from modelforge.domain import job
from modelforge.domain.messages import Command
from modelforge.errors import BadInput
from modelforge.event_log.sqlite import LogReader
from modelforge.fields import project_struct
from modelforge.http.plumbing.body import idempotency_key, int_query, json_response
from modelforge.http.plumbing.keys import EVENT_LOG, HANDLER, LAYOUT, PROJECTOR
from modelforge.http.plumbing.route import AFTER, LIMIT, Query, Route
from modelforge.layout import Layout
from modelforge.projections.jobs import JobDetails, Status
from trainer_entry import wire

_PAGE = 50
_LARGEST_PAGE = 1000
_LOG_BYTES = 1 << 20


class JobList(Struct, frozen=True, kw_only=True):
    """Jobs, newest first."""

    jobs: list[JobDetails]
    has_more: bool


class Metric(Struct, frozen=True, kw_only=True):
    """The figures of one optimizer step, and the position of the record that has them.

    `memory_mb`, `gpu_memory_mb`: the most that the trainer, and torch on its GPU, held until then, in 10^6 bytes.
    """

    position: int
    attempt: int
    step: int
    epoch: float
    loss: float | None
    learning_rate: float | None
    grad_norm: float | None
    tokens_per_second: float | None
    elapsed_seconds: float
    phase: wire.Phase
    phase_step: int | None
    phase_total_steps: int | None
    reward: float | None
    kl: float | None
    completion_length: float | None
    reward_accuracy: float | None
    reward_margin: float | None
    memory_mb: float | None
    gpu_memory_mb: float | None
    nonfinite: tuple[str, ...]


class Evaluation(Struct, frozen=True, kw_only=True):
    """The figures of one evaluation on the held-out records."""

    position: int
    attempt: int
    step: int
    epoch: float
    metrics: dict[str, float | None]


class Metrics(Struct, frozen=True, kw_only=True):
    """Figures of a job after a position, in order; go on with `?after=` the last position."""

    metrics: list[Metric]
    evaluations: list[Evaluation]
    last_position: int
    has_more: bool


class Checkpoints(Struct, frozen=True, kw_only=True):
    """The checkpoints of a job."""

    checkpoints: list[Checkpoint]


def job_detail(request: web.Request, job_id: str) -> JobDetails:
    """The job with an id, as it is now.

    Raises:
        NotFound: there is none.
    """
    read_models = request.app[PROJECTOR].read_models
    details = read_models.jobs.get(job_id)
    if details is None:
        raise job.no_such_job(job_id)
    return read_models.job_detail(details)


def find_job(request: web.Request) -> JobDetails:
    """The job in the path.

    Raises:
        NotFound: there is none of that id.
    """
    return job_detail(request, request.match_info["job_id"])


def _job_id(request: web.Request) -> str:
    """The id in the path, of a job that is there."""
    find_job(request)
    return request.match_info["job_id"]


async def _carry_out(request: web.Request, command: Command) -> web.Response:
    """Submit a command about the job in the path; the job as it is then is the answer."""
    await request.app[HANDLER].submit(command)
    return json_response(find_job(request), status=202)


async def list_jobs(request: web.Request) -> web.Response:
    """List the jobs, newest first; `after` is the last job of the page before."""
    wanted = request.query.get("status")
    if wanted is not None and wanted not in get_args(Status):
        raise BadInput("Unknown status", f"status={wanted!r}: one of {', '.join(get_args(Status))}.", field="status")
    limit = int_query(request, "limit", _PAGE, minimum=1, maximum=_LARGEST_PAGE)
    after = request.query.get("after")
    read_models = request.app[PROJECTOR].read_models
    jobs = read_models.jobs
    if after is not None and after not in jobs:
        raise BadInput("Unknown job in the query", f"after={after!r}: the id of a job.", field="after")
    newest_first = reversed(jobs.values())
    older = newest_first if after is None else islice(dropwhile(lambda one: one.job_id != after, newest_first), 1, None)
    found = [details for details in older if wanted is None or details.status == wanted]
    page = [read_models.job_detail(details) for details in found[:limit]]
    return json_response(JobList(jobs=page, has_more=len(found) > limit))


async def get_job(request: web.Request) -> web.Response:
    """One job, with everything that is known of it."""
    return json_response(find_job(request))


async def stop_job(request: web.Request) -> web.Response:
    """Ask a job to save a checkpoint and end, or take it out of the queue."""
    job_id = _job_id(request)
    return await _carry_out(request, job.StopTraining(job_id=job_id, key=await idempotency_key(request)))


async def cancel_job(request: web.Request) -> web.Response:
    """Take a job out of the queue."""
    job_id = _job_id(request)
    return await _carry_out(request, job.CancelTraining(job_id=job_id, key=await idempotency_key(request)))


async def save_checkpoint(request: web.Request) -> web.Response:
    """Ask a job for a checkpoint at its next step; it goes on after it."""
    job_id = _job_id(request)
    return await _carry_out(request, job.SaveCheckpoint(job_id=job_id, key=await idempotency_key(request)))


async def resume_job(request: web.Request) -> web.Response:
    """Go on with a job that was stopped or failed, from its newest valid checkpoint."""
    job_id = _job_id(request)
    key = await idempotency_key(request)
    checkpoint = await asyncio.to_thread(newest_valid, request.app[LAYOUT].checkpoints(job_id))
    resume_from = None if checkpoint is None else checkpoint.path
    return await _carry_out(request, job.ResumeTraining(job_id=job_id, resume_from=resume_from, key=key))


async def get_checkpoints(request: web.Request) -> web.Response:
    """The checkpoints of a job, oldest first; one that was torn is listed as not valid."""
    folder = request.app[LAYOUT].checkpoints(_job_id(request))
    return json_response(Checkpoints(checkpoints=await asyncio.to_thread(list_checkpoints, folder)))


async def get_metrics(request: web.Request) -> web.Response:
    """The figures of a job's steps and evaluations."""
    stream = job.stream_of(_job_id(request))
    after = int_query(request, "after", 0)
    limit = int_query(request, "limit", _LARGEST_PAGE, minimum=1, maximum=100_000)
    return json_response(await request.app[EVENT_LOG].read(lambda reader: read_metrics(reader, stream, after, limit)))


def read_metrics(reader: LogReader, stream: str, after: int, limit: int) -> Metrics:
    """The figures in a job's records after a position, from `limit` records at most."""
    metrics: list[Metric] = []
    evaluations: list[Evaluation] = []
    position, read = after, 0
    types = ("MetricsLogged", "EvaluationLogged")
    last_kept, evaluated_by = _last_kept(reader, stream), _evaluated_by(reader, stream)
    for record in reader.records(after=after, streams=(stream,), types=types, limit=limit + 1):
        read += 1
        if read > limit:
            break
        position = record.position
        match record.message:
            case job.MetricsLogged(steps=steps, attempt=attempt):
                metrics.extend(
                    project_struct(step, Metric, position=position, attempt=attempt)
                    for step in steps
                    if step.step <= last_kept(attempt)
                )
            case job.EvaluationLogged(report=report, attempt=attempt) if (
                report.step <= last_kept(attempt) and attempt == evaluated_by[report.step]
            ):
                evaluations.append(project_struct(report, Evaluation, position=position, attempt=attempt))
            case _:
                pass
    return Metrics(metrics=metrics, evaluations=evaluations, last_position=position, has_more=read > limit)


def _last_kept(reader: LogReader, stream: str) -> Callable[[int], float]:
    """The last step of an attempt that no later attempt made again, having gone on from an earlier checkpoint."""
    began: dict[int, int] = {}
    for record in reader.records(streams=(stream,), types=("TrainingStarted",)):
        if isinstance(record.message, job.TrainingStarted):  # one for each phase that trains: the first counts
            began.setdefault(record.message.attempt, record.message.report.resumed_step)
    return lambda attempt: min((step for later, step in began.items() if later > attempt), default=math.inf)


def _evaluated_by(reader: LogReader, stream: str) -> dict[int, int]:
    """The last attempt that evaluated after a step: one that went on from it may have done so again."""
    return {
        record.message.report.step: record.message.attempt
        for record in reader.records(streams=(stream,), types=("EvaluationLogged",))
        if isinstance(record.message, job.EvaluationLogged)
    }


async def get_logs(request: web.Request) -> web.Response:
    """What the trainer wrote on stderr, from a byte on; `X-Next-Offset` is where the next part begins."""
    details = find_job(request)
    offset = int_query(request, "offset", 0)
    attempt = int_query(request, "attempt", max(details.attempt, 1), minimum=1, maximum=max(details.attempt, 1))
    text = await asyncio.to_thread(read_log, request.app[LAYOUT], _job_id(request), attempt, offset)
    headers = {"X-Next-Offset": str(offset + len(text)), "X-Content-Type-Options": "nosniff"}
    return web.Response(body=text, content_type="text/plain", charset="utf-8", headers=headers)


def read_log(layout: Layout, job_id: str, attempt: int, offset: int) -> bytes:
    """At most a mebibyte of an attempt's stderr; nothing while there is none."""
    try:
        with (layout.attempt(job_id, attempt) / "stderr.log").open("rb") as file:
            file.seek(offset)
            return file.read(_LOG_BYTES)
    except FileNotFoundError:
        return b""


ROUTES = (
    Route(
        method="GET",
        path="/api/jobs",
        handler=list_jobs,
        answer=JobList,
        query=(
            Query("status", "string", "Only jobs with this status."),
            LIMIT,
            Query("after", "string", "Go on after this job."),
        ),
        errors=(400,),
    ),
    Route(method="GET", path="/api/jobs/{job_id}", handler=get_job, answer=JobDetails, errors=(404,)),
    Route(
        method="POST",
        path="/api/jobs/{job_id}/stop",
        handler=stop_job,
        answer=JobDetails,
        status=202,
        errors=(404, 409, 507),
    ),
    Route(
        method="POST",
        path="/api/jobs/{job_id}/resume",
        handler=resume_job,
        answer=JobDetails,
        status=202,
        errors=(404, 409, 507),
    ),
    Route(
        method="POST",
        path="/api/jobs/{job_id}/cancel",
        handler=cancel_job,
        answer=JobDetails,
        status=202,
        errors=(404, 409, 507),
    ),
    Route(
        method="POST",
        path="/api/jobs/{job_id}/checkpoint",
        handler=save_checkpoint,
        answer=JobDetails,
        status=202,
        errors=(404, 409, 507),
    ),
    Route(
        method="GET",
        path="/api/jobs/{job_id}/checkpoints",
        handler=get_checkpoints,
        answer=Checkpoints,
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/api/jobs/{job_id}/metrics",
        handler=get_metrics,
        answer=Metrics,
        query=(AFTER, LIMIT),
        errors=(400, 404),
    ),
    Route(
        method="GET",
        path="/api/jobs/{job_id}/logs",
        handler=get_logs,
        answer=None,
        query=(
            Query("offset", "integer", "The first byte wanted."),
            Query("attempt", "integer", "Of this attempt; of the last one by default."),
        ),
        errors=(400, 404),
        media="text/plain",
        headers=("X-Next-Offset",),
    ),
)
