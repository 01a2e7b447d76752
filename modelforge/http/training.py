"""Starting and stopping a training, and how far it is."""

import asyncio
import importlib.util
import re
import uuid
from pathlib import Path
from typing import Annotated, Literal

from aiohttp import web
from msgspec import Meta, Struct

from modelforge.dataset_check import check_dataset
from modelforge.devices import visible_gpus
from modelforge.domain import job
from modelforge.domain.combinations import Purpose, check_combination, check_format
from modelforge.domain.idempotency import IdempotencyKey
from modelforge.domain.state import check_key
from modelforge.errors import BadInput, NotFound
from modelforge.fields import narrowed
from modelforge.http.keys import EVENT_LOG, HANDLER, LAYOUT, PROJECTOR, SETTINGS, SUBSCRIBERS
from modelforge.http.messages import answer, idempotency_key, int_query, read_body
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
    outcome = await handler.submit(await _command(request, body, key))
    return await _started(request, outcome.position, outcome.stream)


async def preflight(request: web.Request) -> web.Response:
    """Say whether a training could be started, and what it takes; nothing is started."""
    body = await read_body(request, StartTrainingBody)
    problems = Problems()
    spec = await _spec(request, body, problems)
    fit = await fitting(request, body.per_device_train_batch_size, spec, problems, queue=body.queue)
    return answer(Preflight(ok=not problems.all, problems=problems.all, memory=fit.memory, disk=fit.disk))


async def _command(request: web.Request, body: StartTrainingBody, key: IdempotencyKey | None) -> job.StartTraining:
    problems = Problems()
    spec = await _spec(request, body, problems)
    await fitting(request, body.per_device_train_batch_size, spec, problems, queue=body.queue)
    problems.refuse()
    if spec is None:
        raise AssertionError("without a spec something was refused")
    return job.StartTraining(spec=spec, queue=body.queue, key=key)


async def _spec(request: web.Request, body: StartTrainingBody, problems: Problems) -> wire.JobSpec | None:
    """The job that is asked for; None where it names what is not there, or must not be used."""
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
        dataset = await _dataset(request, body.dataset)
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


async def _dataset(request: web.Request, name: str) -> wire.DatasetFile:
    """An uploaded dataset by its filename, or a file by its path, which is read and checked now."""
    if not Path(name).is_absolute():
        summary = request.app[PROJECTOR].read_models.datasets.get(name)
        if summary is None:
            raise NotFound(
                "No such dataset",
                f"dataset: {name!r} was not uploaded; GET /api/datasets lists those that were. "
                "A file on the server's disk is named by its absolute path.",
            )
        return wire.DatasetFile(
            filename=name,
            path=str(request.app[LAYOUT].dataset(summary.records_sha256 or summary.sha256)),
            sha256=summary.sha256,
            format=summary.format,
            num_examples=summary.num_examples,
            records_sha256=summary.records_sha256,
            revision=summary.revision,
        )
    path = await asyncio.to_thread(allowed_file, name, request.app[SETTINGS].dataset_roots)
    found = await check_dataset(
        path,
        "dataset",
        filename=path.name,
        records=request.app[LAYOUT].temporary / uuid.uuid4().hex,
        limit=request.app[SETTINGS].max_upload_bytes,
    )
    return wire.DatasetFile(
        filename=path.name,
        path=str(path),
        sha256=found.sha256,
        format=found.format,
        num_examples=found.num_examples,
    )


def allowed_file(name: str, roots: tuple[Path, ...]) -> Path:
    """The file that a path names.

    Raises:
        BadInput: it is no regular file under the dataset roots.
        NotFound: it is not there.
    """
    try:
        path = Path(name).resolve()
        inside = any(path.is_relative_to(root) for root in roots)
        is_file, exists = path.is_file(), path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput("The dataset's path cannot be read", f"{name}: {error}", field="dataset") from error
    if not inside:
        raise BadInput(
            "The dataset lies outside the dataset roots",
            f"{name} is in none of {', '.join(map(str, roots))}; upload it, "
            "or start the server with --dataset-root to allow its folder.",
            field="dataset",
        )
    if not exists:
        raise NotFound("No such dataset", f"dataset: there is no file {name}.")
    if not is_file:
        raise BadInput("The dataset is no regular file", f"{name} is a folder or a device.", field="dataset")
    return path


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
