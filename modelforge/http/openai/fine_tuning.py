"""Fine-tuning jobs of OpenAI's clients: the jobs of this server that are trainings."""

import contextlib
import re
from collections.abc import Iterator
from itertools import chain
from typing import Literal

from aiohttp import web
from msgspec import Struct

from modelforge.admission.training import Metadata
from modelforge.domain import job
from modelforge.errors import BadInput, Conflict, ModelNotFound, NotFound
from modelforge.http.jobs import job_detail, resuming
from modelforge.http.openai.fine_tuning_body import FineTuningBody, ModelForgeOptions
from modelforge.http.openai.fine_tuning_job import FineTuningJob, job_object
from modelforge.http.openai.fine_tuning_request import training_of
from modelforge.http.openai.identifiers import fine_tuning_job_id, job_of
from modelforge.http.openai.pages import AFTER_ID, page_of
from modelforge.http.plumbing.body import idempotency_key, json_response, read_body
from modelforge.http.plumbing.identities import actor_of
from modelforge.http.plumbing.keys import HANDLER, PROJECTOR
from modelforge.http.plumbing.query import GIVEN, text_query
from modelforge.http.plumbing.route import Query, Route, limit_to
from modelforge.http.training import begin_training
from modelforge.projections.jobs import JobDetails
from modelforge.projections.read_models import ReadModels

_JOB_ID = re.compile(r"\btrain_([0-9]{6,})\b")
_PAGE = 20
_LARGEST_PAGE = 1000
_FIELDS = {
    "model_name": "model",
    "dataset": "training_file",
    "validation_dataset": "validation_file",
    "output_name": "suffix",
    "strategy": "method",
    "seed": "seed",
    "metadata": "metadata",
}
"""The fields of `start_training` that OpenAI's body has too, most by other names; the rest stand in `modelforge`."""
_OPTIONS = frozenset(ModelForgeOptions.__struct_fields__)


class FineTuningJobList(Struct, frozen=True, kw_only=True):
    """A page of jobs, newest first."""

    object: Literal["list"] = "list"
    data: list[FineTuningJob]
    has_more: bool


def find_fine_tuning_job(request: web.Request) -> JobDetails:
    """The training that the id in the path stands for.

    Raises:
        NotFound: there is none.
    """
    wanted = request.match_info["fine_tuning_job_id"]
    job_id = _training_of(request.app[PROJECTOR].read_models, wanted)
    if job_id is None:
        raise NotFound("No such job", f"There is no job {wanted[:60]!r}; GET /v1/fine_tuning/jobs lists them.")
    return job_detail(request, job_id)


def _training_of(read_models: ReadModels, wanted: str) -> str | None:
    """The job that an id stands for, if it is a training."""
    job_id = job_of(wanted)
    listed = read_models.listed_jobs.get(job_id) if fine_tuning_job_id(job_id) == wanted else None
    return None if listed is None or listed.kind != "training" else job_id


def _answer(request: web.Request, job_id: str) -> web.Response:
    return json_response(job_object(job_detail(request, job_id), request.app[PROJECTOR].read_models))


def _field_of(field: str | None, body: FineTuningBody) -> str | None:
    """Where a field of `start_training` stands in the body that was sent."""
    if field in _FIELDS:
        return _FIELDS[field]
    options = body.modelforge or ModelForgeOptions()
    if field == "reward_functions" and not options.reward_functions and body.method is not None:
        return "method.reinforcement.grader"
    if field in {"report_to", "tracker_project", "tracker_run", "tracker_tags"} and body.integrations:
        return "integrations"
    return f"modelforge.{field}" if field is not None and re.split(r"[.\[]", field)[0] in _OPTIONS else field


async def create_fine_tuning_job(request: web.Request) -> web.Response:
    """Start a training, or let it wait."""
    read_models = request.app[PROJECTOR].read_models
    body = await read_body(request, FineTuningBody)
    try:
        _, job_id = await begin_training(request, training_of(body, read_models.datasets, read_models.models))
    except BadInput as error:
        error.field = _field_of(error.field, body)
        raise
    except ModelNotFound as error:
        error.detail = error.detail.replace("model_name: ", "", 1)
        raise
    return _answer(request, job_id)


async def list_fine_tuning_jobs(request: web.Request) -> web.Response:
    """List the trainings, newest first."""
    read_models = request.app[PROJECTOR].read_models
    wanted, after = request[GIVEN].values.get("metadata", {}), text_query(request, "after")
    last = None if after is None else _training_of(read_models, after)
    older = request.app[PROJECTOR].indexes.newest_trainings(before=last)
    found = older if after is None else () if last is None else chain((last,), older)
    trainings = (job_id for job_id in found if _has(dict(read_models.listed_jobs[job_id].metadata), wanted))
    page, has_more = page_of(request, trainings, fine_tuning_job_id, _PAGE)
    jobs = [job_object(read_models.job_detail(read_models.jobs[job_id]), read_models) for job_id in page]
    return json_response(FineTuningJobList(data=jobs, has_more=has_more))


def _has(metadata: dict[str, str], wanted: dict[str, str] | None) -> bool:
    """Whether the words of a job have all that are wanted; None: whether there are none."""
    return not metadata if wanted is None else wanted.items() <= metadata.items()


async def retrieve_fine_tuning_job(request: web.Request) -> web.Response:
    """One job."""
    return _answer(request, find_fine_tuning_job(request).job_id or "")


@contextlib.contextmanager
def _own_names() -> Iterator[None]:
    """Refusals name jobs as this surface does."""
    try:
        yield
    except Conflict as error:
        error.detail = _JOB_ID.sub(r"ftjob-\1", error.detail)
        raise


async def _end(request: web.Request) -> web.Response:
    """End a job with a checkpoint, or take it out of the queue; answers once that is done."""
    job_id = find_fine_tuning_job(request).job_id or ""
    command = job.StopTraining(job_id=job_id, key=await idempotency_key(request))
    with _own_names():
        await request.app[HANDLER].submit(command, actor=actor_of(request))
    jobs = request.app[PROJECTOR].read_models.jobs
    await request.app[PROJECTOR].until(lambda: jobs[job_id].status in job.FINAL)
    return _answer(request, job_id)


async def cancel_fine_tuning_job(request: web.Request) -> web.Response:
    """End a job; it keeps its checkpoint, and may be resumed."""
    return await _end(request)


async def pause_fine_tuning_job(request: web.Request) -> web.Response:
    """End a job with a checkpoint, from which it may be resumed."""
    return await _end(request)


async def resume_fine_tuning_job(request: web.Request) -> web.Response:
    """Go on with a job that was paused, cancelled or failed, from its newest whole checkpoint."""
    job_id = find_fine_tuning_job(request).job_id or ""
    with _own_names():
        await request.app[HANDLER].submit(await resuming(request, job_id), actor=actor_of(request))
    return _answer(request, job_id)


_METADATA = Query("metadata", Metadata, "Only jobs that have these words; null: only those without any.", pairs=True)
ROUTES = (
    Route(
        method="POST",
        path="/v1/fine_tuning/jobs",
        handler=create_fine_tuning_job,
        body=FineTuningBody,
        answer=FineTuningJob,
        errors=(400, 404, 409, 507),
    ),
    Route(
        method="GET",
        path="/v1/fine_tuning/jobs",
        handler=list_fine_tuning_jobs,
        answer=FineTuningJobList,
        query=(AFTER_ID, limit_to(_LARGEST_PAGE, _PAGE), _METADATA),
        errors=(400,),
    ),
    Route(
        method="GET",
        path="/v1/fine_tuning/jobs/{fine_tuning_job_id}",
        handler=retrieve_fine_tuning_job,
        answer=FineTuningJob,
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/v1/fine_tuning/jobs/{fine_tuning_job_id}/cancel",
        handler=cancel_fine_tuning_job,
        answer=FineTuningJob,
        errors=(404, 409, 507),
    ),
    Route(
        method="POST",
        path="/v1/fine_tuning/jobs/{fine_tuning_job_id}/pause",
        handler=pause_fine_tuning_job,
        answer=FineTuningJob,
        errors=(404, 409, 507),
    ),
    Route(
        method="POST",
        path="/v1/fine_tuning/jobs/{fine_tuning_job_id}/resume",
        handler=resume_fine_tuning_job,
        answer=FineTuningJob,
        errors=(404, 409, 507),
    ),
)
