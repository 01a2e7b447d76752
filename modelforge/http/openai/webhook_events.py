"""What an endpoint is sent: OpenAI's events of a fine-tuning job, with more in `data`, and ours of other jobs."""

from typing import Literal, assert_never

import msgspec
from msgspec import Struct

from modelforge.domain import job
from modelforge.domain.messages import Record
from modelforge.domain.state import State
from modelforge.domain.webhook import EventType
from modelforge.http.openai.identifiers import fine_tuning_job_id, model_name
from modelforge.projections.jobs import JobError
from modelforge.projections.read_models import ReadModels
from modelforge.webhooks.deliverer import Event
from trainer_entry import wire

Ending = Literal["completed", "failed", "stopped"]
_TRAININGS: dict[Ending, EventType] = {
    "completed": "fine_tuning.job.succeeded",
    "failed": "fine_tuning.job.failed",
    "stopped": "fine_tuning.job.cancelled",
}
_OTHERS: dict[Ending, EventType] = {
    "completed": "modelforge.job.succeeded",
    "failed": "modelforge.job.failed",
    "stopped": "modelforge.job.cancelled",
}


class WebhookData(Struct, frozen=True, kw_only=True):
    """The job. `id`: as /v1 names it, of a merge, an export or a push `job_id`; the rest as `/api/jobs` has it.

    `fine_tuned_model`: the trained model as /v1 names it. `position`: of the record that ended the job.
    """

    id: str
    job_id: str
    status: Ending
    kind: wire.JobKind
    name: str
    model_name: str
    model_id: int | None = None
    fine_tuned_model: str | None = None
    error: JobError | None = None
    position: int | None = None


class WebhookEvent(Struct, frozen=True, kw_only=True):
    """A delivery's body. `id` is its `webhook-id` too, and the same each time that it is sent."""

    id: str
    object: Literal["event"] = "event"
    created_at: int
    type: EventType
    data: WebhookData


def event_of(record: Record, state: State, read_models: ReadModels) -> Event:
    """What is sent of a record that ended a job."""
    ended = record.message
    if not isinstance(ended, job.TrainingCompleted | job.TrainingFailed | job.TrainingStopped):
        raise TypeError(f"{record.type} ends no job")
    job_id, status = ended.job_id, _ending_of(ended)
    error = JobError(ended.kind, ended.message) if isinstance(ended, job.TrainingFailed) else None
    spec, model_id = state.jobs[job_id].spec, read_models.jobs[job_id].model_id
    trained = None if model_id is None or status != "completed" else read_models.models.get(model_id)
    is_training = spec.kind == "training"
    data = WebhookData(
        id=fine_tuning_job_id(job_id) if is_training else job_id,
        job_id=job_id,
        status=status,
        kind=spec.kind,
        name=spec.output_name,
        model_name=spec.model_name,
        model_id=None if trained is None else trained.id,
        fine_tuned_model=None if trained is None else model_name(trained.id, trained),
        error=error,
        position=record.position,
    )
    event = WebhookEvent(
        id=f"evt_{record.digest[:32]}",
        created_at=record.at // 1_000_000,
        type=(_TRAININGS if is_training else _OTHERS)[status],
        data=data,
    )
    return Event(event_id=event.id, event_type=event.type, job_id=job_id, body=msgspec.json.encode(event))


def _ending_of(ended: job.TrainingCompleted | job.TrainingFailed | job.TrainingStopped) -> Ending:
    match ended:
        case job.TrainingCompleted():
            return "completed"
        case job.TrainingFailed():
            return "failed"
        case job.TrainingStopped():
            return "stopped"
        case _:
            assert_never(ended)


def sample(event_type: EventType, event_id: str, now: float) -> bytes:
    """A body of a type, of a job that there is not."""
    ending = next(ending for names in (_TRAININGS, _OTHERS) for ending, named in names.items() if named == event_type)
    data = WebhookData(
        id="ftjob-000000", job_id="train_000000", status=ending, kind="training", name="test", model_name="test"
    )
    return msgspec.json.encode(WebhookEvent(id=event_id, created_at=int(now), type=event_type, data=data))
