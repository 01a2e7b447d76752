"""Every job: its state, its figures, its log, its end."""

import asyncio
import os
from itertools import islice

from aiohttp import web
from msgspec import Struct

from modelforge.checkpoints import Checkpoint, list_checkpoints, newest_valid
from modelforge.domain import job
from modelforge.domain.messages import Command
from modelforge.errors import BadInput
from modelforge.http.plumbing.body import idempotency_key, json_response
from modelforge.http.plumbing.identities import actor_of
from modelforge.http.plumbing.keys import HANDLER, LAYOUT, PROJECTOR
from modelforge.http.plumbing.query import int_query, text_query
from modelforge.http.plumbing.route import PATH_KINDS, Count, Ordinal, Query, Route, limit_to
from modelforge.layout import Layout
from modelforge.projections.jobs import JobDetails, Status

_PAGE = 50
_LARGEST_PAGE = 1000
_LOG_BYTES = 1 << 20
ONE_JOB = Query("job_id", PATH_KINDS["job_id"], "Only what is of this job.")


class JobList(Struct, frozen=True, kw_only=True):
    """Jobs, newest first."""

    jobs: list[JobDetails]
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


def followed_stream(request: web.Request) -> str | None:
    """The stream of the job that is to be followed alone, if the query names one.

    Raises:
        NotFound: there is none of that id.
    """
    job_id = text_query(request, "job_id")
    return None if job_id is None else job.stream_of(job_detail(request, job_id).job_id or "")


def _job_id(request: web.Request) -> str:
    """The id in the path, of a job that is there."""
    find_job(request)
    return request.match_info["job_id"]


async def _carry_out(request: web.Request, command: Command) -> web.Response:
    """Submit a command about the job in the path; the job as it is then is the answer."""
    await request.app[HANDLER].submit(command, actor=actor_of(request))
    return json_response(find_job(request), status=202)


async def list_jobs(request: web.Request) -> web.Response:
    """List the jobs, newest first; `after` is the last job of the page before."""
    wanted, after = text_query(request, "status"), text_query(request, "after")
    limit = int_query(request, "limit", _PAGE)
    read_models = request.app[PROJECTOR].read_models
    jobs = read_models.jobs
    if after is not None and after not in jobs:
        raise BadInput("Unknown job in the query", f"after={after!r}: the id of a job.", field="after")
    found = [*islice(request.app[PROJECTOR].indexes.newest_jobs(wanted, before=after), limit + 1)]
    page = [read_models.job_detail(jobs[job_id]) for job_id in found[:limit]]
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
    return await _carry_out(request, await resuming(request, _job_id(request)))


async def resuming(request: web.Request, job_id: str) -> job.ResumeTraining:
    """The command to go on with a job from its newest valid checkpoint, or from its beginning without one."""
    key = await idempotency_key(request)
    checkpoint = await asyncio.to_thread(newest_valid, request.app[LAYOUT].checkpoints(job_id))
    return job.ResumeTraining(job_id=job_id, resume_from=None if checkpoint is None else checkpoint.path, key=key)


async def get_checkpoints(request: web.Request) -> web.Response:
    """The checkpoints of a job, oldest first; one that was torn is listed as not valid."""
    folder = request.app[LAYOUT].checkpoints(_job_id(request))
    return json_response(Checkpoints(checkpoints=await asyncio.to_thread(list_checkpoints, folder)))


async def get_logs(request: web.Request) -> web.Response:
    """What the trainer wrote on stderr, from a byte on; `X-Next-Offset` is where the next part begins."""
    details = find_job(request)
    offset = int_query(request, "offset", 0)
    attempt = int_query(request, "attempt", max(details.attempt, 1), maximum=max(details.attempt, 1))
    text = await asyncio.to_thread(read_log, request.app[LAYOUT], _job_id(request), attempt, offset)
    headers = {"X-Next-Offset": str(offset + len(text)), "X-Content-Type-Options": "nosniff"}
    return web.Response(body=text, content_type="text/plain", charset="utf-8", headers=headers)


def read_log(layout: Layout, job_id: str, attempt: int, offset: int) -> bytes:
    """At most a mebibyte of an attempt's stderr; nothing while there is none."""
    try:
        with (layout.attempt(job_id, attempt) / "stderr.log").open("rb") as file:
            if offset >= os.fstat(file.fileno()).st_size:  # there may be no such place in any file
                return b""
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
            Query("status", Status, "Only jobs with this status."),
            limit_to(_LARGEST_PAGE, _PAGE),
            Query("after", str, "Go on after this job."),
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
        path="/api/jobs/{job_id}/logs",
        handler=get_logs,
        answer=None,
        query=(
            Query("offset", Count, "The first byte wanted."),
            Query("attempt", Ordinal, "Of this attempt; of the last one by default."),
        ),
        errors=(400, 404),
        media=("text/plain",),
        headers=("X-Next-Offset",),
    ),
)
