"""Starting a job again as a new one, from its own records."""

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
from aiohttp import web
from msgspec import Struct

from modelforge.domain import job
from modelforge.domain.combinations import Purpose
from modelforge.domain.dataset import file_of
from modelforge.domain.state import check_key
from modelforge.errors import BadInput, Conflict, NotFound
from modelforge.http.after_training import checked_work
from modelforge.http.jobs import find_job
from modelforge.http.keys import HANDLER, LAYOUT, PROJECTOR, SETTINGS
from modelforge.http.messages import answer, idempotency_key, read_body
from modelforge.http.named_datasets import allowed_file
from modelforge.http.preflight import Problems
from modelforge.http.training import check_installed, fitting
from modelforge.layout import Layout
from modelforge.model_check import check_model
from modelforge.projections.jobs import DatasetReference
from trainer_entry import wire


class RerunBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`queue`: wait where there is no room now."""

    queue: bool = False


async def rerun_job(request: web.Request) -> web.Response:
    """Start a job again as a new one: the same records, model and parameters. The new job is the answer."""
    repeated = find_job(request)
    key = await idempotency_key(request)
    body = await read_body(request, RerunBody) if await request.read() else RerunBody()
    handler, read_models = request.app[HANDLER], request.app[PROJECTOR].read_models
    use = check_key(handler.state, key)
    if use is not None:
        stream = use.stream
    else:
        spec = job.again(handler.state.jobs[request.match_info["job_id"]].spec, repeated.config)
        if spec.work is None:
            _check_deleted(repeated.dataset)
            spec = await _checked(request, spec, body)
        else:
            spec = await checked_work(request, spec)
        stream = (await handler.submit(job.StartTraining(spec=spec, queue=body.queue, key=key))).stream
    return answer(read_models.as_it_stands(read_models.jobs[stream]), status=202)


def _check_deleted(dataset: DatasetReference) -> None:
    """Refuse a job whose dataset was deleted since."""
    if dataset.deleted_at is not None:
        raise NotFound(
            "The dataset was deleted",
            f"dataset: {dataset.filename} with the SHA-256 {dataset.sha256} was deleted at {dataset.deleted_at}; "
            "upload the same file again, under any name, and this job can be started again.",
        )


async def _checked(request: web.Request, spec: wire.JobSpec, body: RerunBody) -> wire.JobSpec:
    """The spec as it can be had now: what it names may have gone, or changed, since the first time."""
    layout, settings = request.app[LAYOUT], request.app[SETTINGS]
    check_installed(spec.provider, spec.parameters)
    roots = (*settings.model_roots, layout.models)
    purpose = Purpose(spec.task, spec.strategy, spec.provider)
    reward = spec.reward_model_path
    checked = msgspec.structs.replace(
        spec,
        model_path=await check_model(spec.model_path, roots, purpose=purpose),
        reward_model_path=None if reward is None else await check_model(reward, roots, "reward_model"),
        dataset=await asyncio.to_thread(
            _same_dataset, spec.dataset, layout, settings.dataset_roots, request.app[HANDLER].state.needed
        ),
        output_dir=str(layout.models),
        checkpoint_dir=str(layout.jobs),
        grace_seconds=settings.stop_grace_seconds,
    )
    problems = Problems()
    await fitting(request, spec.parameters.per_device_train_batch_size, checked, problems, queue=body.queue)
    problems.refuse()
    return checked


def _same_dataset(
    dataset: wire.DatasetFile, layout: Layout, roots: tuple[Path, ...], needed: Mapping[str, int]
) -> wire.DatasetFile:
    """The file that has the records which the job was started with: the one that is kept, or the one it named."""
    content = dataset.content
    kept = layout.dataset(content)
    is_kept = bool(needed.get(kept.name)) and kept.is_file()
    if not is_kept and file_of(dataset) is not None:
        raise NotFound(
            "The dataset is gone",
            f"dataset: {dataset.filename} with the SHA-256 {dataset.sha256} is kept no longer; upload it again.",
        )
    path = kept if is_kept else allowed_file(dataset.path, roots)
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput("The dataset cannot be read", f"{path}: {error.strerror}", field="dataset") from error
    if sha256 != content:
        raise Conflict(
            "The dataset has changed",
            f"{path} has the SHA-256 {sha256} now, and had {content} for this job. Bring back the file as it "
            "was, or POST /api/start_training to train on it as it is.",
        )
    return msgspec.structs.replace(dataset, path=str(path))
