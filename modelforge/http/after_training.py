"""What is done with a trained model after its training, each as a job: merge, export, push."""

import asyncio
import os
from pathlib import Path
from typing import Annotated, assert_never

import msgspec
from aiohttp import web
from huggingface_hub import constants
from msgspec import Meta, Struct

from modelforge.domain import job, model
from modelforge.domain.idempotency import IdempotencyKey
from modelforge.domain.state import check_key
from modelforge.errors import BadInput, Conflict
from modelforge.event_log import LogReader
from modelforge.http.jobs import described
from modelforge.http.keys import EVENT_LOG, HANDLER, LAYOUT, SETTINGS
from modelforge.http.messages import answer, idempotency_key, read_body
from modelforge.http.models import find_model
from modelforge.http.training import OutputName
from modelforge.layout import Layout
from modelforge.model_check import hub_token
from modelforge.settings import Settings
from trainer_entry import wire

_REPOSITORY = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$(?!\n)"


class MergeBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to merge an adapter into its base. `dtype`: of the merged weights; by default that of the base."""

    output_name: OutputName | None = None
    dtype: wire.Dtype | None = None
    queue: bool = False


class ExportBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a model is copied, and as what. `path`: by default one in the data directory."""

    format: wire.ExportFormat = "folder"
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
    if (again := _given_before(request, key)) is not None:
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
    name = body.output_name or f"{registered.name}-merged"
    return await _start(request, registered, work, name, request.app[LAYOUT].models, key, queue=body.queue)


async def export_model(request: web.Request) -> web.Response:
    """Copy a model out, as a folder or as an archive."""
    key = await idempotency_key(request)
    body = await read_body(request, ExportBody) if await request.read() else ExportBody()
    if (again := _given_before(request, key)) is not None:
        return again
    registered = (await _source(request)).registered
    layout = request.app[LAYOUT]
    to = None if body.path is None else await asyncio.to_thread(_place, body.path, request.app[SETTINGS], layout)
    work = wire.Export(
        model_id=registered.model_id,
        name=registered.name,
        path=registered.model.path,
        format=body.format,
        to=to,
    )
    return await _start(request, registered, work, registered.name, layout.exports, key, queue=body.queue)


async def push_model(request: web.Request) -> web.Response:
    """Upload a model to the Hugging Face hub."""
    key = await idempotency_key(request)
    body = await read_body(request, PushBody)
    if (again := _given_before(request, key)) is not None:
        return again
    registered = (await _source(request)).registered
    await asyncio.to_thread(_check_hub_access)
    work = wire.Push(
        model_id=registered.model_id,
        name=registered.name,
        path=registered.model.path,
        repo_id=body.repo_id,
        private=body.private,
    )
    return await _start(request, registered, work, registered.name, request.app[LAYOUT].models, key, queue=body.queue)


def _given_before(request: web.Request, key: IdempotencyKey | None) -> web.Response | None:
    """The job that a key stands for already."""
    use = check_key(request.app[HANDLER].state, key)
    return None if use is None else answer(described(request, use.stream), status=202)


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
    output_root: Path,
    key: IdempotencyKey | None,
    *,
    queue: bool,
) -> web.Response:
    """Submit the job: it tells of the source's training, with the parameters that were in effect there."""
    made_by = source.spec
    spec = wire.JobSpec(
        job_id="",
        task=made_by.task,
        strategy=made_by.strategy,
        provider=made_by.provider,
        model_name=made_by.model_name,
        model_path=made_by.model_path,
        dataset=made_by.dataset,
        parameters=source.parameters,
        output_name=output_name,
        output_dir=str(output_root),
        checkpoint_dir=str(request.app[LAYOUT].jobs),
        grace_seconds=request.app[SETTINGS].stop_grace_seconds,
        work=work,
    )
    outcome = await request.app[HANDLER].submit(job.StartTraining(spec=spec, queue=queue, key=key))
    return answer(described(request, outcome.stream), status=202)


async def checked_work(request: web.Request, spec: wire.JobSpec) -> wire.JobSpec:
    """Work that was done once as it can be done now; whether its model is still there, the writer looks up.

    Raises:
        BadInput, Conflict: the place of an export is taken or not allowed, or the hub cannot be asked.
    """
    layout, settings = request.app[LAYOUT], request.app[SETTINGS]
    root = layout.models
    match spec.work:
        case wire.Export(to=to):
            root = layout.exports
            if to is not None:
                await asyncio.to_thread(_place, to, settings, layout)
        case wire.Push():
            await asyncio.to_thread(_check_hub_access)
        case wire.Merge() | None:
            pass
        case _:
            assert_never(spec.work)
    return msgspec.structs.replace(
        spec, output_dir=str(root), checkpoint_dir=str(layout.jobs), grace_seconds=settings.stop_grace_seconds
    )


def _place(name: str, settings: Settings, layout: Layout) -> str:
    """The place for an export, resolved: free, in a folder that is there, under a root, and not among our own files."""
    try:
        path = Path(name)
        is_absolute, path = path.is_absolute(), path.resolve()
        is_taken, has_folder = os.path.lexists(path), path.parent.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput("The path cannot be used", f"{name}: {error}", field="path") from error
    if not is_absolute:
        raise BadInput("The path is not absolute", f"{name}: begin it with a slash.", field="path")
    roots = (*settings.model_roots, layout.exports)
    is_ours = path.is_relative_to(layout.root) and not path.is_relative_to(layout.exports)
    if is_ours or path in roots or not any(path.is_relative_to(root) for root in roots):
        raise BadInput(
            "The path lies outside the model roots",
            f"{name} is in none of {', '.join(map(str, roots))}, or among the server's own files; "
            "start the server with --model-root to allow its folder.",
            field="path",
        )
    if is_taken:
        raise Conflict("There is something at the path already", f"{name}: take it away, or send another path.")
    if not has_folder:
        raise BadInput("The path's folder is not there", f"Make {path.parent} first.", field="path")
    return str(path)


def _check_hub_access() -> None:
    """Refuse a push that could only fail.

    Raises:
        Conflict: the server may not ask the hub, or has no token for it.
    """
    if constants.HF_HUB_OFFLINE:
        raise Conflict("The hub may not be asked", "The server was started with HF_HUB_OFFLINE: start it without.")
    if hub_token() is None:
        raise Conflict(
            "The server has no token for the hub",
            "Start it with HF_TOKEN set to one that may write, or log in once with `hf auth login`.",
        )
