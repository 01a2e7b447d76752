"""Fine-tuning jobs of OpenAI's clients: the jobs of this server that are trainings."""

import time
from typing import Any, Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from modelforge.domain import job
from modelforge.errors import BadInput, NotFound
from modelforge.http.jobs import job_detail, resuming
from modelforge.http.openai.fine_tuning_request import (
    Auto,
    FineTuningBody,
    MethodType,
    default_rate,
    method_of,
    training_of,
)
from modelforge.http.openai.identifiers import file_id, fine_tuning_job_id, job_of, model_name, unix_seconds
from modelforge.http.openai.pages import AFTER_ID, page_of
from modelforge.http.plumbing.body import idempotency_key, json_response, read_body
from modelforge.http.plumbing.identities import actor_of
from modelforge.http.plumbing.keys import HANDLER, PROJECTOR
from modelforge.http.plumbing.route import Route, limit_to
from modelforge.http.training import begin_training
from modelforge.projections.jobs import JobDetails, Status
from modelforge.projections.read_models import ReadModels

_PAGE = 20
_LARGEST_PAGE = 1000
FineTuningStatus = Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]
STATUSES: dict[Status, FineTuningStatus] = {
    "queued": "queued",
    "starting": "running",
    "training": "running",
    "stopping": "running",
    "stopped": "cancelled",
    "completed": "succeeded",
    "failed": "failed",
}
"""What OpenAI calls the states of a job. What was paused is cancelled too: it has no word for it."""
_FIELDS = {
    "model_name": "model",
    "dataset": "training_file",
    "validation_dataset": "validation_file",
    "output_name": "suffix",
    "strategy": "method",
}
"""The fields of `start_training` that have other names here; the rest stand in `modelforge`."""


class FineTuningHyperparameters(Struct, frozen=True, kw_only=True):
    """The hyperparameters in effect; `auto` until they are known. `beta` is of preferences alone."""

    n_epochs: Auto | float
    batch_size: Auto | int
    learning_rate_multiplier: Auto | float
    beta: Auto | float | UnsetType = UNSET


class MethodPart(Struct, frozen=True, kw_only=True):
    """The hyperparameters of a method."""

    hyperparameters: FineTuningHyperparameters


class FineTuningMethod(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a job trains; beside the type stands the object of its name."""

    type: MethodType
    supervised: MethodPart | None = None
    dpo: MethodPart | None = None
    reinforcement: MethodPart | None = None


class FineTuningError(Struct, frozen=True, kw_only=True):
    """Why a job failed."""

    code: str
    message: str
    param: None = None


class FineTuningJob(Struct, frozen=True, kw_only=True):
    """A fine-tuning job; `modelforge` is the job as `/api/jobs` has it."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    model: str
    fine_tuned_model: str | None
    organization_id: str = "modelforge"
    status: FineTuningStatus
    training_file: str
    validation_file: str | None = None
    result_files: tuple[str, ...] = ()
    seed: int
    hyperparameters: FineTuningHyperparameters
    method: FineTuningMethod
    error: FineTuningError | None
    finished_at: int | None
    estimated_finish: int | None
    trained_tokens: None = None
    integrations: tuple[str, ...] = ()
    metadata: dict[str, str]
    modelforge: JobDetails


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
    jobs = request.app[PROJECTOR].read_models.jobs
    details = jobs.get(job_of(wanted)) if wanted.startswith("ftjob-") else None
    if details is None or details.kind != "training":
        raise NotFound("No such job", f"There is no job {wanted[:60]!r}; GET /v1/fine_tuning/jobs lists them.")
    return job_detail(request, details.job_id or "")


def _object_of(details: JobDetails, read_models: ReadModels) -> FineTuningJob:
    model = None if details.model_id is None else read_models.models.get(details.model_id)
    validation = details.validation_dataset
    values = _hyperparameters(details)
    kind = method_of(details.strategy)
    part: dict[str, Any] = {kind: MethodPart(hyperparameters=values)}
    finish = None if details.eta_seconds is None else int(time.time() + details.eta_seconds)
    error = details.error if details.status == "failed" else None
    return FineTuningJob(
        id=fine_tuning_job_id(details.job_id or ""),
        created_at=unix_seconds(details.created_at),
        model=details.model_name,
        fine_tuned_model=None if model is None else model_name(model),
        status=STATUSES[details.status],
        training_file=file_id(details.datasets[0].filename, details.datasets[0].revision),
        validation_file=None if validation is None else file_id(validation.filename, validation.revision),
        seed=details.config.seed,
        hyperparameters=values,
        method=FineTuningMethod(type=kind, **part),
        error=None if error is None else FineTuningError(code=error.kind, message=error.message),
        finished_at=None if details.finished_at is None else unix_seconds(details.finished_at),
        estimated_finish=finish,
        metadata=details.metadata,
        modelforge=details,
    )


def _hyperparameters(details: JobDetails) -> FineTuningHyperparameters:
    config = details.config
    rate = default_rate(details.task, details.strategy, config)
    multiplier: Auto | float = "auto"
    if rate is not None and config.learning_rate is not None:
        multiplier = round(config.learning_rate / rate, 9)
    values = FineTuningHyperparameters(
        n_epochs=config.num_train_epochs or "auto",
        batch_size=config.per_device_train_batch_size,
        learning_rate_multiplier=multiplier,
    )
    if details.strategy != "dpo":
        return values
    return msgspec.structs.replace(values, beta="auto" if config.beta is None else config.beta)


def _answer(request: web.Request, job_id: str) -> web.Response:
    return json_response(_object_of(job_detail(request, job_id), request.app[PROJECTOR].read_models))


async def create_fine_tuning_job(request: web.Request) -> web.Response:
    """Start a training, or let it wait."""
    read_models = request.app[PROJECTOR].read_models
    body = await read_body(request, FineTuningBody)
    try:
        _, job_id = await begin_training(request, training_of(body, read_models.datasets, read_models.models))
    except BadInput as error:
        if error.field in _FIELDS:
            error.field = _FIELDS[error.field]
        raise
    return _answer(request, job_id)


async def list_fine_tuning_jobs(request: web.Request) -> web.Response:
    """List the trainings, newest first."""
    read_models = request.app[PROJECTOR].read_models
    trainings = [details for details in reversed(read_models.jobs.values()) if details.kind == "training"]
    page, has_more = page_of(request, trainings, lambda one: fine_tuning_job_id(one.job_id or ""), _PAGE)
    jobs = [_object_of(read_models.job_detail(details), read_models) for details in page]
    return json_response(FineTuningJobList(data=jobs, has_more=has_more))


async def retrieve_fine_tuning_job(request: web.Request) -> web.Response:
    """One job."""
    return _answer(request, find_fine_tuning_job(request).job_id or "")


async def _end(request: web.Request) -> web.Response:
    """End a job with a checkpoint, or take it out of the queue; answers once that is done."""
    job_id = find_fine_tuning_job(request).job_id or ""
    command = job.StopTraining(job_id=job_id, key=await idempotency_key(request))
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
    await request.app[HANDLER].submit(await resuming(request, job_id), actor=actor_of(request))
    return _answer(request, job_id)


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
        query=(AFTER_ID, limit_to(_LARGEST_PAGE, _PAGE)),
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
