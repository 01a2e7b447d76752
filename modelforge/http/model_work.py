"""Work on a trained model after its training, each as a job: merge, export, push, evaluate."""

from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from modelforge.admission.evaluation import EvaluateBody, admit_evaluation
from modelforge.admission.gguf import admit_gguf, quantization_of
from modelforge.admission.training import LONGEST_NAME, OutputName
from modelforge.admission.work import check_hub_access, resolve_export_place, work_spec
from modelforge.domain import job, model
from modelforge.domain.idempotency import IdempotencyKey
from modelforge.domain.state import check_key
from modelforge.errors import BadInput
from modelforge.event_log.sqlite import LogReader
from modelforge.http.jobs import job_detail
from modelforge.http.models import find_model
from modelforge.http.plumbing.body import idempotency_key, json_response, read_body
from modelforge.http.plumbing.disconnect import cancel_on_disconnect
from modelforge.http.plumbing.identities import actor_of
from modelforge.http.plumbing.keys import ADMISSION, DATASET_STORE, EVENT_LOG, HANDLER, LAYOUT
from modelforge.http.plumbing.route import Route
from modelforge.http.training import with_places
from modelforge.projections.jobs import JobDetails
from trainer_entry import wire

_MERGED = "-merged"
_REPOSITORY = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$(?!\n)"


class MergeBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to merge an adapter into its base. `dtype`: of the merged weights; by default that of the base."""

    output_name: OutputName | None = None
    dtype: wire.Dtype | None = None
    queue: bool = False


class ExportBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a model is copied, and as what. `path`: by default one in the data directory.

    `quantization`: of a `gguf`, the type of its numbers, as llama.cpp names them; by default f16.
    """

    format: wire.ExportFormat = "folder"
    quantization: wire.Quantization | None = None
    path: Annotated[str, Meta(min_length=1, max_length=4000)] | None = None
    queue: bool = False


class PushBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which repository of the hub gets the model. The token is the server's own, from HF_TOKEN."""

    repo_id: Annotated[str, Meta(pattern=_REPOSITORY)]
    private: bool = True
    queue: bool = False


class _Source(Struct, frozen=True):
    """A trained model, as the log has it."""

    registered: model.ModelRegistered
    base_revision: str | None


async def merge_model(request: web.Request) -> web.Response:
    """Merge an adapter into its base model; the result is a model of its own."""
    key = await idempotency_key(request)
    body = await read_body(request, MergeBody) if await request.read() else MergeBody()
    if (again := _answered_before(request, key)) is not None:
        return again
    source = await _source(request)
    registered = source.registered
    if registered.model.kind != "adapter":
        raise BadInput(
            "There is nothing to merge",
            f"Model {registered.model_id} has all of its weights: export or push it as it is.",
        )
    work = wire.Merge(
        model_id=registered.model_id,
        name=registered.name,
        path=registered.model.path,
        dtype=body.dtype,
        base_revision=source.base_revision,
        metrics=registered.model.metrics,
    )
    name = body.output_name or f"{registered.name[: LONGEST_NAME - len(_MERGED)]}{_MERGED}"
    return await _start(request, registered, work, name, key, queue=body.queue)


async def export_model(request: web.Request) -> web.Response:
    """Copy a model out, as a folder or as an archive."""
    key = await idempotency_key(request)
    body = await read_body(request, ExportBody) if await request.read() else ExportBody()
    if (again := _answered_before(request, key)) is not None:
        return again
    quantization = quantization_of(body.format, body.quantization)
    source = await _source(request)
    registered = source.registered
    place = await resolve_export_place(request.app[ADMISSION], body.path)
    merges = body.format == "gguf" and registered.model.kind == "adapter"
    work = wire.Export(
        model_id=registered.model_id,
        name=registered.name,
        path=registered.model.path,
        format=body.format,
        to=place.to,
        root=place.root,
        quantization=quantization,
        merges=merges,
        base_revision=source.base_revision if merges else None,
    )
    work = await admit_gguf(request.app[ADMISSION].settings, registered.spec, work)
    return await _start(request, registered, work, registered.name, key, queue=body.queue)


async def push_model(request: web.Request) -> web.Response:
    """Upload a model to the Hugging Face hub."""
    key = await idempotency_key(request)
    body = await read_body(request, PushBody)
    if (again := _answered_before(request, key)) is not None:
        return again
    registered = (await _source(request)).registered
    await check_hub_access()
    work = wire.Push(
        model_id=registered.model_id,
        name=registered.name,
        path=registered.model.path,
        repo_id=body.repo_id,
        private=body.private,
    )
    return await _start(request, registered, work, registered.name, key, queue=body.queue)


async def evaluate_model(request: web.Request) -> web.Response:
    """Judge a model, or what it was trained from, on a dataset."""
    key = await idempotency_key(request)
    body = await read_body(request, EvaluateBody)
    if (again := _answered_before(request, key)) is not None:
        return again
    source = await _source(request)
    admitted = await cancel_on_disconnect(
        request, admit_evaluation(request.app[ADMISSION], source.registered, source.base_revision, body)
    )
    try:
        spec, places = with_places(admitted.spec, admitted.found, request.app[LAYOUT])
        async with request.app[DATASET_STORE].stored(places):
            outcome = await request.app[HANDLER].submit(
                job.StartTraining(spec=spec, queue=body.queue, key=key), actor=actor_of(request)
            )
    finally:
        await admitted.found.discard_staged()
    return json_response(job_detail(request, outcome.stream), status=202)


def _answered_before(request: web.Request, key: IdempotencyKey | None) -> web.Response | None:
    """The job that a key stands for already."""
    use = check_key(request.app[HANDLER].state, key)
    return None if use is None else json_response(job_detail(request, use.stream), status=202)


async def _source(request: web.Request) -> _Source:
    details = find_model(request, request.match_info["model_id"])
    return await request.app[EVENT_LOG].read(lambda reader: _read_source(reader, details.id, details.job_id))


def _read_source(reader: LogReader, model_id: int, job_id: str) -> _Source:
    (made,) = reader.records(streams=(model.stream_of(model_id),), types=("ModelRegistered",))
    if not isinstance(made.message, model.ModelRegistered):
        raise TypeError(f"Position {made.position} is no registration of a model.")
    base_revision = None
    for record in reader.records(streams=(job.stream_of(job_id),), types=("TrainingStarted",)):
        if isinstance(record.message, job.TrainingStarted):
            base_revision = record.message.report.base_revision
    return _Source(made.message, base_revision)


async def _start(
    request: web.Request,
    source: model.ModelRegistered,
    work: wire.Merge | wire.Export | wire.Push,
    output_name: str,
    key: IdempotencyKey | None,
    *,
    queue: bool,
) -> web.Response:
    """Submit the job."""
    spec = work_spec(request.app[ADMISSION], source, work, output_name)
    outcome = await request.app[HANDLER].submit(
        job.StartTraining(spec=spec, queue=queue, key=key), actor=actor_of(request)
    )
    return json_response(job_detail(request, outcome.stream), status=202)


ROUTES = (
    Route(
        method="POST",
        path="/api/models/{model_id}/merge",
        handler=merge_model,
        body=MergeBody,
        answer=JobDetails,
        status=202,
        errors=(400, 404, 409, 410, 507),
    ),
    Route(
        method="POST",
        path="/api/models/{model_id}/export",
        handler=export_model,
        body=ExportBody,
        answer=JobDetails,
        status=202,
        errors=(400, 404, 409, 410, 507),
    ),
    Route(
        method="POST",
        path="/api/models/{model_id}/push",
        handler=push_model,
        body=PushBody,
        answer=JobDetails,
        status=202,
        errors=(400, 404, 409, 410, 507),
    ),
    Route(
        method="POST",
        path="/api/models/{model_id}/evaluate",
        handler=evaluate_model,
        body=EvaluateBody,
        answer=JobDetails,
        status=202,
        errors=(400, 404, 409, 410, 507),
    ),
)
