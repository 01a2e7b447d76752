"""Starting and stopping a training, and how far it is."""

from pathlib import Path
from typing import Literal

import msgspec
from aiohttp import web
from msgspec import Struct

from modelforge.admission.mixture import FoundDatasets
from modelforge.admission.training import (
    Preflight,
    StartTrainingBody,
    admit_training,
    preflight_training,
)
from modelforge.domain import job
from modelforge.domain.messages import Message
from modelforge.domain.state import check_key
from modelforge.http.jobs import ONE_JOB, followed_stream
from modelforge.http.plumbing.body import idempotency_key, json_response, read_body
from modelforge.http.plumbing.disconnect import cancel_on_disconnect
from modelforge.http.plumbing.identities import actor_of
from modelforge.http.plumbing.keys import ADMISSION, DATASET_STORE, EVENT_LOG, HANDLER, LAYOUT, PROJECTOR, SUBSCRIBERS
from modelforge.http.plumbing.query import int_query, text_query
from modelforge.http.plumbing.route import AFTER, Query, Route
from modelforge.http.plumbing.subscribers import Following
from modelforge.layout import Layout
from modelforge.projections.jobs import Status, TrainingStatus
from modelforge.projections.read_models import ReadModels
from trainer_entry import wire

_RECORDS = Query("records", Literal["true", "false"], "`true`: each message has its record as `/api/events` has it.")
_ENDS = {
    "stopped": "Training stopped successfully",
    "completed": "Training had already come to its end",
    "failed": "Training failed before it could be stopped",
}


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
    return _started(*await begin_training(request, await read_body(request, StartTrainingBody)))


async def begin_training(request: web.Request, body: StartTrainingBody) -> tuple[Message, str]:
    """Admit a training and record it: the event of that, and the job's id. A key that was used gives what it gave.

    Raises:
        ForgeError: it cannot be trained so, or not now.
    """
    handler = request.app[HANDLER]
    key = await idempotency_key(request)
    use = check_key(handler.state, key)
    if use is not None:
        return await _begun_before(request, use.position), use.stream
    admitted = await cancel_on_disconnect(request, admit_training(request.app[ADMISSION], body))
    try:
        spec, places = with_places(admitted.spec, admitted.found, request.app[LAYOUT])
        async with request.app[DATASET_STORE].stored(places):
            outcome = await handler.submit(
                job.StartTraining(spec=spec, queue=body.queue, key=key), actor=actor_of(request)
            )
    finally:
        await admitted.found.discard_staged()
    if outcome.repeated:
        return await _begun_before(request, outcome.position), outcome.stream
    return outcome.events[0], outcome.stream


async def preflight(request: web.Request) -> web.Response:
    """Say whether a training could be started, and what it takes; nothing is started."""
    body = await read_body(request, StartTrainingBody)
    return json_response(await cancel_on_disconnect(request, preflight_training(request.app[ADMISSION], body)))


def with_places(spec: wire.JobSpec, found: FoundDatasets, layout: Layout) -> tuple[wire.JobSpec, dict[Path, Path]]:
    """The spec with the places that staged records get, and these places by the files that go there."""
    staged = {str(path) for path in found.staged}
    by_place = {layout.dataset(file.content): Path(file.path) for file in spec.files if file.path in staged}

    def placed(file: wire.DatasetFile) -> wire.DatasetFile:
        parts = tuple(msgspec.structs.replace(part, dataset=placed(part.dataset)) for part in file.parts)
        path = str(layout.dataset(file.content)) if file.path in staged else file.path
        return msgspec.structs.replace(file, path=path, parts=parts)

    work = spec.work
    if isinstance(work, wire.Evaluate):
        work = msgspec.structs.replace(work, dataset=placed(work.dataset))
    spec = msgspec.structs.replace(
        spec,
        work=work,
        dataset=placed(spec.dataset),
        validation=None if spec.validation is None else placed(spec.validation),
    )
    return spec, {path: place for place, path in by_place.items()}


async def _begun_before(request: web.Request, position: int) -> Message:
    """What came of the command at a position of the log."""
    records = await request.app[EVENT_LOG].read(lambda reader: [*reader.records(after=position, limit=1)])
    return records[0].message


def _started(requested: Message, job_id: str) -> web.Response:
    queued = isinstance(requested, job.TrainingRequested) and requested.queued
    return json_response(
        Started(
            status="queued" if queued else "started",
            job_id=job_id,
            message="Training queued" if queued else "Training started successfully",
        )
    )


async def get_training_status(request: web.Request) -> web.Response:
    """How far the active job is, else the last one."""
    return json_response(request.app[PROJECTOR].read_models.status())


async def stop_training(request: web.Request) -> web.Response:
    """Stop the current job; answers once all its processes are gone."""
    key = await idempotency_key(request)
    outcome = await request.app[HANDLER].submit(job.StopTraining(key=key), actor=actor_of(request))
    job_id, jobs = outcome.stream, request.app[PROJECTOR].read_models.jobs
    await request.app[PROJECTOR].until(lambda: jobs[job_id].status in job.FINAL)
    status = jobs[job_id].status
    return json_response(Stopped(status=status, message=_ENDS[status], job_id=job_id))


async def training_socket(request: web.Request) -> web.WebSocketResponse:
    """Progress of every job as it comes, as WebSocket messages."""
    head = request.app[PROJECTOR].read_models.position
    following = Following(
        after=int_query(request, "after", -1, maximum=head) if "after" in request.query else None,
        stream=followed_stream(request),
        records=text_query(request, "records") == "true",
    )
    return await request.app[SUBSCRIBERS].serve_socket(request, following)


ROUTES = (
    Route(
        method="POST",
        path="/api/start_training",
        handler=start_training,
        body=StartTrainingBody,
        answer=Started,
        errors=(400, 404, 409, 507),
    ),
    Route(
        method="POST",
        path="/api/preflight",
        handler=preflight,
        body=StartTrainingBody,
        answer=Preflight,
        errors=(400,),
    ),
    Route(
        method="GET",
        path="/api/training_status",
        handler=get_training_status,
        answer=TrainingStatus,
        instant=ReadModels.status,
    ),
    Route(
        method="POST",
        path="/api/stop_training",
        handler=stop_training,
        answer=Stopped,
        errors=(409, 507),
    ),
    Route(
        method="GET",
        path="/ws/training",
        handler=training_socket,
        answer=None,
        query=(AFTER, ONE_JOB, _RECORDS),
        status=101,
        errors=(400, 404),
    ),
)
