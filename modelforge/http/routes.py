"""The whole API as one table: what the server answers, and what `openapi.json` says of it."""

import re
from collections.abc import Awaitable, Callable
from typing import Literal

from aiohttp import web
from msgspec import Struct

from modelforge.http import (
    after_training,
    dataset_progress,
    dataset_views,
    datasets,
    events,
    jobs,
    models,
    playground,
    reruns,
    state,
    system,
    training,
    uploads,
)
from modelforge.http.preflight import Preflight
from modelforge.projections.datasets import DatasetDetails
from modelforge.projections.jobs import JobDetails, TrainingStatus
from modelforge.projections.models import ModelDetails
from modelforge.projections.projector import StateAt
from trainer_entry import wire

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Query(Struct, frozen=True):
    """A query parameter."""

    name: str
    kind: Literal["integer", "string"]
    description: str


class Route(Struct, frozen=True, kw_only=True):
    """One method of one path. `body` and `answer` are the Structs in which its JSON comes and goes.

    `may_be_empty`: a request without a body is one with all its defaults.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    handler: Handler
    answer: type[Struct] | None
    body: type[Struct] | None = None
    may_be_empty: bool = False
    query: tuple[Query, ...] = ()
    status: int = 200
    errors: tuple[int, ...] = ()
    media: str = "application/json"
    headers: tuple[str, ...] = ()
    streams: bool = False


_AFTER = Query("after", "integer", "Only what comes after this position of the log.")
_REVISION = Query("revision", "integer", "An earlier one; the last one by default.")
_LIMIT = Query("limit", "integer", "From at most so many records.")
_LOOKING = (
    Query("model_name", "string", "The model that is to see the dataset, named as for a training."),
    Query("task", "string", "The task; by default the first that the dataset's format serves."),
    Query("strategy", "string", "The strategy; by default the first that the dataset's format serves."),
    Query("provider", "string", "The provider; by default huggingface."),
    Query("max_seq_length", "integer", "Where examples are cut, in tokens; chosen as a training chooses it."),
    Query("doc_stride", "integer", "How many tokens the windows over a context share."),
    Query("max_completion_length", "integer", "For rlhf: how much room a prompt leaves."),
    _REVISION,
)

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/api/state",
        handler=state.get_state,
        answer=StateAt,
        query=(Query("at", "integer", "The position; the last one by default."),),
        errors=(400,),
    ),
    Route(method="GET", path="/api/info", handler=system.get_info, answer=system.Info),
    Route(method="GET", path="/api/health", handler=system.get_health, answer=system.Health),
    Route(method="GET", path="/api/openapi.json", handler=system.get_openapi, answer=None),
    Route(
        method="POST",
        path="/api/start_training",
        handler=training.start_training,
        body=training.StartTrainingBody,
        answer=training.Started,
        errors=(400, 404, 409, 507),
    ),
    Route(
        method="POST",
        path="/api/preflight",
        handler=training.preflight,
        body=training.StartTrainingBody,
        answer=Preflight,
        errors=(400,),
    ),
    Route(method="GET", path="/api/training_status", handler=training.get_training_status, answer=TrainingStatus),
    Route(
        method="POST",
        path="/api/stop_training",
        handler=training.stop_training,
        answer=training.Stopped,
        errors=(409, 507),
    ),
    Route(
        method="GET",
        path="/ws/training",
        handler=training.training_socket,
        answer=None,
        query=(_AFTER,),
        status=101,
        errors=(400,),
    ),
    Route(
        method="GET",
        path="/api/jobs",
        handler=jobs.list_jobs,
        answer=jobs.JobList,
        query=(
            Query("status", "string", "Only jobs with this status."),
            _LIMIT,
            Query("after", "string", "Go on after this job."),
        ),
        errors=(400,),
    ),
    Route(method="GET", path="/api/jobs/{job_id}", handler=jobs.get_job, answer=JobDetails, errors=(404,)),
    Route(
        method="POST",
        path="/api/jobs/{job_id}/stop",
        handler=jobs.stop_job,
        answer=JobDetails,
        status=202,
        errors=(404, 409, 507),
    ),
    Route(
        method="POST",
        path="/api/jobs/{job_id}/resume",
        handler=jobs.resume_job,
        answer=JobDetails,
        status=202,
        errors=(404, 409, 507),
    ),
    Route(
        method="POST",
        path="/api/jobs/{job_id}/rerun",
        handler=reruns.rerun_job,
        body=reruns.RerunBody,
        may_be_empty=True,
        answer=JobDetails,
        status=202,
        errors=(400, 404, 409, 507),
    ),
    Route(
        method="POST",
        path="/api/jobs/{job_id}/cancel",
        handler=jobs.cancel_job,
        answer=JobDetails,
        status=202,
        errors=(404, 409, 507),
    ),
    Route(
        method="POST",
        path="/api/jobs/{job_id}/checkpoint",
        handler=jobs.save_checkpoint,
        answer=JobDetails,
        status=202,
        errors=(404, 409, 507),
    ),
    Route(
        method="GET",
        path="/api/jobs/{job_id}/checkpoints",
        handler=jobs.get_checkpoints,
        answer=jobs.Checkpoints,
        errors=(404,),
    ),
    Route(
        method="GET",
        path="/api/jobs/{job_id}/metrics",
        handler=jobs.get_metrics,
        answer=jobs.Metrics,
        query=(_AFTER, _LIMIT),
        errors=(400, 404),
    ),
    Route(
        method="GET",
        path="/api/jobs/{job_id}/logs",
        handler=jobs.get_logs,
        answer=None,
        query=(
            Query("offset", "integer", "The first byte wanted."),
            Query("attempt", "integer", "Of this attempt; of the last one by default."),
        ),
        errors=(400, 404),
        media="text/plain",
        headers=("X-Next-Offset",),
    ),
    Route(method="GET", path="/api/models", handler=models.list_models, answer=models.ModelList),
    Route(method="GET", path="/api/models/{model_id}", handler=models.get_model, answer=ModelDetails, errors=(404,)),
    Route(
        method="DELETE",
        path="/api/models/{model_id}",
        handler=models.delete_model,
        answer=models.Deleted,
        errors=(404, 409, 507),
    ),
    Route(
        method="POST",
        path="/api/models/{model_id}/merge",
        handler=after_training.merge_model,
        body=after_training.MergeBody,
        answer=JobDetails,
        status=202,
        errors=(400, 404, 409, 507),
    ),
    Route(
        method="POST",
        path="/api/models/{model_id}/export",
        handler=after_training.export_model,
        body=after_training.ExportBody,
        answer=JobDetails,
        status=202,
        errors=(400, 404, 409, 507),
    ),
    Route(
        method="POST",
        path="/api/models/{model_id}/push",
        handler=after_training.push_model,
        body=after_training.PushBody,
        answer=JobDetails,
        status=202,
        errors=(400, 404, 409, 507),
    ),
    Route(
        method="POST",
        path="/api/upload_dataset",
        handler=uploads.upload_dataset,
        answer=uploads.Uploaded,
        errors=(400, 409, 413, 507),
    ),
    Route(method="GET", path="/ws/datasets", handler=dataset_progress.dataset_socket, answer=None, status=101),
    Route(method="GET", path="/api/datasets", handler=datasets.list_datasets, answer=datasets.DatasetList),
    Route(
        method="GET",
        path="/api/datasets/{filename}",
        handler=datasets.get_dataset,
        answer=DatasetDetails,
        query=(_REVISION,),
        errors=(400, 404),
    ),
    Route(
        method="DELETE",
        path="/api/datasets/{filename}",
        handler=datasets.delete_dataset,
        answer=datasets.DatasetDeleted,
        errors=(404, 409, 507),
    ),
    Route(
        method="GET",
        path="/api/datasets/{filename}/download",
        handler=datasets.download_dataset,
        answer=None,
        query=(_REVISION,),
        errors=(400, 404, 416),
        media="application/octet-stream",
        headers=("Content-Disposition", "ETag"),
    ),
    Route(
        method="GET",
        path="/api/datasets/{filename}/preview",
        handler=dataset_views.preview_dataset,
        answer=wire.DatasetPreview,
        query=(Query("limit", "integer", "How many records, from 1 to 100; 10 by default."), *_LOOKING),
        errors=(400, 404, 409, 503),
    ),
    Route(
        method="GET",
        path="/api/datasets/{filename}/statistics",
        handler=dataset_views.measure_dataset,
        answer=wire.DatasetStatistics,
        query=(Query("sample", "integer", "How many records at most; 10000 by default."), *_LOOKING),
        errors=(400, 404, 409, 503),
    ),
    Route(
        method="POST",
        path="/api/playground/generate",
        handler=playground.generate,
        body=playground.GenerateBody,
        answer=playground.Answer,
        streams=True,
        errors=(400, 404, 409),
    ),
    Route(
        method="GET",
        path="/api/events",
        handler=events.list_events,
        answer=events.Events,
        query=(
            _AFTER,
            _LIMIT,
            Query("stream", "string", "Only records of this stream."),
            Query("type", "string", "Only records of this type."),
        ),
        errors=(400,),
    ),
)


def add_routes(app: web.Application) -> None:
    """Put the table to work."""
    # A name in a path is whatever stands between two slashes: to aiohttp, without this, a brace is part of none.
    app.router.add_routes(
        [web.route(route.method, re.sub(r"{(\w+)}", r"{\1:[^/]+}", route.path), route.handler) for route in ROUTES]
    )
