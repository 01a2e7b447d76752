"""Starting and stopping a training, and how far it is."""

import asyncio
import contextlib
import importlib.util
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from modelforge.devices import visible_gpus
from modelforge.domain import job
from modelforge.domain.combinations import Purpose, check_combination, check_format
from modelforge.domain.state import check_key
from modelforge.errors import BadInput
from modelforge.fields import narrowed
from modelforge.http.dataset_contents import kept
from modelforge.http.keys import EVENT_LOG, HANDLER, LAYOUT, PROJECTOR, SETTINGS, SUBSCRIBERS
from modelforge.http.messages import answer, idempotency_key, int_query, read_body
from modelforge.http.named_datasets import named_dataset
from modelforge.http.preflight import Preflight, Problems
from modelforge.model_check import check_model
from modelforge.preflight.fit import Fit, fit_of, unknown_fit
from modelforge.projections.jobs import Status
from trainer_entry import wire

_ENDS = {
    "stopped": "Training stopped successfully",
    "completed": "Training had already come to its end",
    "failed": "Training failed before it could be stopped",
}
OutputName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$(?!\n)", max_length=100)]
"""What a trained model may be called."""


class StartTrainingBody(wire.TrainingParameters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to train, on what, and how: every hyperparameter stands flat in the body."""

    task: wire.Task
    model_name: Annotated[str, Meta(min_length=1, max_length=1000)]
    dataset: Annotated[str, Meta(min_length=1, max_length=4000)]
    provider: wire.Provider = "huggingface"
    strategy: wire.Strategy = "sft"
    output_name: OutputName | None = None
    queue: bool = False
    columns: dict[str, str] | None = None
    max_restarts: Annotated[int, Meta(ge=0, le=100)] = 0


class Started(Struct, frozen=True, kw_only=True):
    """The job that was accepted."""

    status: Literal["started", "queued"]
    job_id: str
    message: str


class Stopped(Struct, frozen=True, kw_only=True):
    """How the job ended. It may have come to its end by itself before the stop reached it."""

    status: Status
    message: str
    job_id: str


async def start_training(request: web.Request) -> web.Response:
    """Start a training job."""
    handler = request.app[HANDLER]
    key = await idempotency_key(request)
    body = await read_body(request, StartTrainingBody)
    use = check_key(handler.state, key)
    if use is not None:
        return await _started(request, use.position, use.stream)
    async with _records(request) as records:
        spec = await _checked(request, body, records)
        places: dict[Path, Path] = {}
        if spec.dataset.path == str(records) and spec.dataset.records_sha256 is not None:
            places[records] = request.app[LAYOUT].dataset(spec.dataset.records_sha256)
            in_place = msgspec.structs.replace(spec.dataset, path=str(places[records]))
            spec = msgspec.structs.replace(spec, dataset=in_place)
        async with kept(request.app, places):
            outcome = await handler.submit(job.StartTraining(spec=spec, queue=body.queue, key=key))
    return await _started(request, outcome.position, outcome.stream)


async def preflight(request: web.Request) -> web.Response:
    """Say whether a training could be started, and what it takes; nothing is started."""
    body = await read_body(request, StartTrainingBody)
    problems = Problems()
    async with _records(request) as records:
        spec = await _spec(request, body, problems, records)
        fit = await fitting(request, body.per_device_train_batch_size, spec, problems, queue=body.queue)
    return answer(Preflight(ok=not problems.all, problems=problems.all, memory=fit.memory, disk=fit.disk))


@contextlib.asynccontextmanager
async def _records(request: web.Request) -> AsyncIterator[Path]:
    """Where the records of a file by its path go, if they have to be made of it; they are gone afterwards."""
    records = request.app[LAYOUT].temporary / f"{uuid.uuid4().hex}.records"
    try:
        yield records
    finally:
        await asyncio.to_thread(records.unlink, missing_ok=True)


async def _checked(request: web.Request, body: StartTrainingBody, records: Path) -> wire.JobSpec:
    problems = Problems()
    spec = await _spec(request, body, problems, records)
    await fitting(request, body.per_device_train_batch_size, spec, problems, queue=body.queue)
    problems.refuse()
    if spec is None:
        raise AssertionError("without a spec something was refused")
    return spec


async def _spec(
    request: web.Request, body: StartTrainingBody, problems: Problems, records: Path
) -> wire.JobSpec | None:
    """The job that is asked for; None where it names what is not there, or must not be used.

    `records`: where those of a file by its path go, if it is no plain JSON lines.
    """
    parameters = narrowed(body, wire.TrainingParameters)
    layout, settings = request.app[LAYOUT], request.app[SETTINGS]
    roots = (*settings.model_roots, layout.models)
    purpose = Purpose(body.task, body.strategy, body.provider)
    model_path: str | None = None
    reward_model_path: str | None = None
    dataset: wire.DatasetFile | None = None
    with problems.gathered("strategy"):
        check_combination(body.task, body.strategy, body.provider, parameters)
    with problems.gathered("provider"):
        check_installed(body.provider, parameters)
    with problems.gathered("model_name"):
        model_path = await check_model(body.model_name, roots, purpose=purpose)
    with problems.gathered("reward_model"):
        if parameters.reward_model is not None:
            reward_model_path = await check_model(parameters.reward_model, roots, "reward_model")
    with problems.gathered("dataset"):
        dataset = await named_dataset(request, body.dataset, body.columns, records)
        check_format(dataset.format, body.task, body.strategy)
    if model_path is None or dataset is None:
        return None
    return wire.JobSpec(
        job_id="",
        task=body.task,
        strategy=body.strategy,
        provider=body.provider,
        model_name=body.model_name,
        model_path=model_path,
        dataset=dataset,
        parameters=parameters,
        output_name=body.output_name or output_name(model_path),
        output_dir=str(layout.models),
        checkpoint_dir=str(layout.jobs),
        reward_model_path=reward_model_path,
        grace_seconds=settings.stop_grace_seconds,
        max_restarts=body.max_restarts,
    )


async def fitting(
    request: web.Request, batch_size: int, spec: wire.JobSpec | None, problems: Problems, *, queue: bool
) -> Fit:
    """What a training takes, and in `problems` what of it is not there; without a spec little is known."""
    data_dir = request.app[LAYOUT].root
    if spec is None:
        return await unknown_fit(batch_size, data_dir)
    # Where there is no place for it now, that is the answer, and not that whoever has it leaves too little memory.
    slots, running = request.app[SETTINGS].max_concurrent_jobs, request.app[HANDLER].state.running
    fit = await fit_of(spec, data_dir, waits=queue or len(running) >= slots)
    for problem in fit.problems:
        problems.add(problem)
    return fit


def check_installed(provider: wire.Provider, parameters: wire.TrainingParameters) -> None:
    """Refuse what needs a package or a GPU that is not here.

    Raises:
        BadInput: it says how to install it, or how many there are.
    """
    if provider == "unsloth" and importlib.util.find_spec("unsloth") is None:
        raise BadInput(
            "unsloth is not installed",
            'Install it beside the server with `make setup-unsloth`, or send "provider": "huggingface".',
            field="provider",
        )
    gpus = len(visible_gpus()) if parameters.num_processes > 1 else 0
    if 0 < gpus < parameters.num_processes:
        raise BadInput(
            f"num_processes {parameters.num_processes} is more than there are GPUs",
            f'Each process trains on a GPU of its own: send "num_processes": {gpus}, or start the server with more.',
            field="num_processes",
        )
    if parameters.report_to != "none" and importlib.util.find_spec(parameters.report_to) is None:
        raise BadInput(
            f"{parameters.report_to} is not installed",
            f'Install it beside the server (pip install {parameters.report_to}), or send "report_to": "none".',
            field="report_to",
        )


def output_name(model_name: str) -> str:
    """A name for what comes of a model."""
    last = model_name.rpartition("/")[2].lower()
    return f"my-{re.sub(r'[^a-z0-9]+', '-', last)}-finetuned"


async def _started(request: web.Request, position: int, job_id: str) -> web.Response:
    """The answer to the command that was recorded at a position; the same however often it is asked for."""
    records = await request.app[EVENT_LOG].read(lambda reader: [*reader.records(after=position, limit=1)])
    requested = records[0].message
    queued = isinstance(requested, job.TrainingRequested) and requested.queued
    return answer(
        Started(
            status="queued" if queued else "started",
            job_id=job_id,
            message="Training queued" if queued else "Training started successfully",
        )
    )


async def get_training_status(request: web.Request) -> web.Response:
    """How far the active job is, else the last one."""
    return answer(request.app[PROJECTOR].read_models.status())


async def stop_training(request: web.Request) -> web.Response:
    """Stop the current job; answers once all its processes are gone."""
    key = await idempotency_key(request)
    outcome = await request.app[HANDLER].submit(job.StopTraining(key=key))
    job_id, jobs = outcome.stream, request.app[PROJECTOR].read_models.jobs
    await request.app[PROJECTOR].until(lambda: jobs[job_id].status in job.FINAL)
    status = jobs[job_id].status
    return answer(Stopped(status=status, message=_ENDS[status], job_id=job_id))


async def training_socket(request: web.Request) -> web.WebSocketResponse:
    """Progress of every job as it comes, as WebSocket messages."""
    head = request.app[PROJECTOR].read_models.position
    after = int_query(request, "after", -1, maximum=head) if "after" in request.query else None
    return await request.app[SUBSCRIBERS].serve(request, after)
