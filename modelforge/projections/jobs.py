"""The jobs: everything that is known of each, folded from its stream."""

import math
from datetime import UTC, datetime
from typing import Literal, assert_never

import msgspec
from msgspec import Struct

from modelforge.domain import job
from modelforge.domain.job import JobStatus
from modelforge.fields import project_struct
from modelforge.projections.dataset_references import DatasetReference, reference_of
from modelforge.projections.trackers import TrackerState, become, waiting, without
from trainer_entry import wire

Status = Literal["idle", "queued", "starting", "training", "stopping", "stopped", "completed", "failed"]


def iso(micros: int) -> str:
    """Unix microseconds as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(micros // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class JobError(Struct, frozen=True, gc=False):
    """Why a job failed."""

    kind: str
    message: str


class TrainingStatus(Struct, frozen=True, kw_only=True, gc=False):
    """How far a job is. `progress` in percent; steps are optimizer steps as the trainer counts them.

    They count through the whole job, `phase_step` through `phase`: rlhf trains a reward model, and then a policy.
    `eta_seconds` is the time left of the job, null while a later phase's speed is not known; `phase_eta_seconds` that
    of the phase. `rewards`: the mean of each reward function's, and of a reward model's, by name.
    Of a job that is no training they are what its `unit` says; its status is `training` too while it works.
    `waiting_for`: why an attempt waits that was handed over to a cluster, in its words.
    """

    status: Status
    progress: float | None = 0.0
    current_epoch: int | None = None
    total_epochs: int | None = None
    current_step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    learning_rate: float | None = None
    job_id: str | None = None
    eta_seconds: float | None = None
    error: JobError | None = None
    phase: wire.Phase | None = None
    phase_step: int | None = None
    phase_total_steps: int | None = None
    phase_eta_seconds: float | None = None
    eval_loss: float | None = None
    reward: float | None = None
    kl: float | None = None
    completion_length: float | None = None
    rewards: dict[str, float | None] = {}
    stalled: bool = False
    waiting_for: str | None = None


class JobDetails(TrainingStatus, frozen=True, kw_only=True, gc=False):
    """A job, and how far it is. `config`: the parameters asked for, and from its start those in effect.

    `queue_position`: 1 for the next one. `gpus`: what it has of them. `attempt` counts, and `restarts` says how many
    of the attempts were made because the one before failed, of `max_restarts` after each start or resume.
    `attempt_started_at`: when the last of them was launched; those before it ran for `ran_seconds` together.
    `kind`: whether it is a training, or work on the trained model `source_model_id`, whose training the fields from
    `task` to `config` describe then; steps are counted in `unit`, and `delivery` is what came of an export, push
    or evaluation.
    `lost_messages`: how many of the trainer's never arrived, which are 0 unless somebody meddled with the spool.
    `rerun_of`: the job that this one repeats. `left_out_examples`: those that teach nothing within
    `max_seq_length`; `cut_examples`: those that are cut there; null until the trainer counted them.
    `lineage`: the trained models that it goes on from, the last one first. `base_revision`: which weights of
    `model_name` were loaded: the hub's commit, or a hash of a folder's; null until they are.
    `metadata`: what who asked for it noted of it.
    `validation_dataset`: what it is evaluated on, where that is no part of `dataset`; of an evaluation, its records.
    `trackers`: those that `report_to` names, and which of them failed, which costs the training nothing.
    """

    kind: wire.JobKind = "training"
    unit: wire.Unit = "steps"
    source_model_id: int | None = None
    delivery: wire.Exported | wire.Pushed | wire.Judged | None = None
    task: wire.Task
    model_name: str
    provider: wire.Provider
    strategy: wire.Strategy
    dataset: DatasetReference
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    attempt: int = 0
    attempt_started_at: str | None = None
    ran_seconds: int = 0
    restarts: int = 0
    max_restarts: int = 0
    gpus: tuple[str, ...] = ()
    queue_position: int | None = None
    lost_messages: int = 0
    model_id: int | None = None
    config: wire.TrainingParameters
    checkpoint: str | None = None
    rerun_of: str | None = None
    environment: wire.Environment | None = None
    left_out_examples: int | None = None
    cut_examples: int | None = None
    lineage: tuple[wire.Ancestor, ...] = ()
    base_revision: str | None = None
    metadata: dict[str, str] = {}
    validation_dataset: DatasetReference | None = None
    trackers: tuple[TrackerState, ...] = ()
    position: int

    @property
    def datasets(self) -> tuple[DatasetReference, ...]:
        """What it trains and evaluates on: the parts, where there are several."""
        beside = () if self.validation_dataset is None else (self.validation_dataset,)
        references = beside if self.kind == "evaluation" else (self.dataset, *beside)
        return tuple(
            one for reference in references for one in ([part.dataset for part in reference.parts] or [reference])
        )


def _judged_by(spec: wire.JobSpec) -> DatasetReference | None:
    """What a job evaluates on beside its dataset."""
    records = spec.work.dataset if isinstance(spec.work, wire.Evaluate) else spec.validation
    return None if records is None else reference_of(records)


def status_of(details: JobDetails | None) -> TrainingStatus:
    """The status part of a job; idle without one."""
    if details is None:
        return TrainingStatus(status="idle")
    return project_struct(details, TrainingStatus)


_ENDS_OF_SILENCE = (
    *(job.AttemptLaunching, job.PhaseEntered, job.TrainingStarted, job.WorkStarted),
    *(job.EvaluationLogged, job.CheckpointSaved),
    *(job.TrackerGivenUp, job.TrainerEnded, job.LineQuarantined, job.AttemptExited),
)
"""What a trainer that spoke, or that is no more, leads to."""


def evolve(details: JobDetails | None, event: job.Event, position: int, at: int) -> JobDetails:
    """The job after one of its events."""
    if isinstance(event, job.TrainingRequested):
        spec = event.spec
        return JobDetails(
            status="queued",
            current_step=0,
            job_id=spec.job_id,
            kind=spec.kind,
            source_model_id=None if spec.work is None else spec.work.model_id,
            task=spec.task,
            model_name=spec.model_name,
            provider=spec.provider,
            strategy=spec.strategy,
            dataset=reference_of(spec.dataset),
            validation_dataset=_judged_by(spec),
            created_at=iso(at),
            config=spec.parameters,
            max_restarts=spec.max_restarts,
            rerun_of=spec.rerun_of,
            lineage=spec.lineage,
            metadata=spec.metadata,
            trackers=waiting(spec.trackers),
            position=position,
        )
    if details is None:
        raise ValueError(f"{type(event).__name__} of a job that was never requested: {event.job_id}")
    if isinstance(event, job.MetricsLogged):  # nearly all
        return _after_step(details, event.steps[-1], position)
    stalled = isinstance(event, job.AttemptStalled) or (details.stalled and not isinstance(event, _ENDS_OF_SILENCE))
    now = msgspec.structs.replace(details, position=position, stalled=stalled)
    match event:
        case job.AttemptLaunching(attempt=attempt, gpus=gpus):
            status: JobStatus = "stopping" if details.status == "stopping" else "starting"
            return msgspec.structs.replace(
                now,
                status=status,
                attempt=attempt,
                gpus=gpus,
                started_at=details.started_at or iso(at),
                attempt_started_at=iso(at),
                ran_seconds=_ran_until(details, at),
                finished_at=None,
                error=None,
                waiting_for=None,
                trackers=waiting(tracker.name for tracker in details.trackers),
            )
        case job.AttemptSubmitted():
            return _handed_over(now)
        case job.AttemptWaits(reason=reason):
            return msgspec.structs.replace(now, waiting_for=reason)
        case job.AttemptSpawned() if details.attempt_started_at is None:
            return msgspec.structs.replace(
                now,
                status="starting" if details.status == "queued" else details.status,
                started_at=details.started_at or iso(at),
                attempt_started_at=iso(at),
                waiting_for=None,
            )
        case job.PhaseEntered(phase=phase):
            return msgspec.structs.replace(now, phase=phase, phase_step=None, phase_total_steps=None)
        case job.TrainingStarted(report=report):
            return msgspec.structs.replace(
                now,
                status="stopping" if details.status == "stopping" else "training",
                config=report.parameters,
                environment=report.environment,
                base_revision=report.base_revision,
                left_out_examples=report.left_out_examples,
                cut_examples=report.cut_examples,
                current_step=report.resumed_step,
                total_steps=report.total_steps,
                current_epoch=1,
                total_epochs=report.total_epochs,
                progress=_percent(report.resumed_step, report.total_steps),
                trackers=become(details.trackers, "waiting", "reporting"),
            )
        case job.WorkStarted(report=report):
            return msgspec.structs.replace(
                now,
                status="stopping" if details.status == "stopping" else "training",
                environment=report.environment,
                current_step=0,
                total_steps=report.total_steps,
                unit=report.unit,
                progress=0.0,
            )
        case job.EvaluationLogged(report=report):
            return msgspec.structs.replace(now, eval_loss=report.metrics.get("eval_loss"))
        case job.CheckpointSaved(path=path):
            return msgspec.structs.replace(now, checkpoint=path)
        case job.TrackerGivenUp(tracker=given_up, message=message):
            return msgspec.structs.replace(now, trackers=without(details.trackers, given_up, message))
        case job.AttemptExited(lost_messages=lost):
            return msgspec.structs.replace(
                now,
                gpus=(),
                waiting_for=None,
                lost_messages=details.lost_messages + lost,
                trackers=become(details.trackers, "reporting", "ended"),
            )
        case job.AttemptFailed(kind=kind, message=message):
            return msgspec.structs.replace(
                now,
                status="starting",
                phase=None,
                eta_seconds=None,
                phase_eta_seconds=None,
                error=JobError(kind, message),
                restarts=details.restarts + 1,
            )
        case job.StopRequested():
            return msgspec.structs.replace(now, status="stopping", eta_seconds=None, phase_eta_seconds=None)
        case job.TrainingCompleted(delivery=delivery):
            return msgspec.structs.replace(_ended(now, "completed", at, progress=100.0), delivery=delivery)
        case job.TrainingStopped(checkpoint=checkpoint):
            return _ended(now, "stopped", at, checkpoint=checkpoint or details.checkpoint)
        case job.TrainingFailed(kind=kind, message=message):
            return _ended(now, "failed", at, error=JobError(kind, message))
        case (
            job.AttemptSpawned()
            | job.AttemptStalled()
            | job.TrainerEnded()
            | job.LineQuarantined()
            | job.CheckpointRequested()
        ):
            return now
        case _:
            assert_never(event)


def _handed_over(details: JobDetails) -> JobDetails:
    """A job whose attempt waits elsewhere: neither it nor, where this is the first, the job has started."""
    is_first = details.started_at == details.attempt_started_at
    return msgspec.structs.replace(
        details,
        status="queued" if details.status == "starting" else details.status,
        started_at=None if is_first else details.started_at,
        attempt_started_at=None,
    )


def _ran_until(details: JobDetails, at: int) -> int:
    """Seconds that a job's attempts ran, where the next is launched `at`; the pause before that is none of them."""
    if details.attempt_started_at is None:
        return details.ran_seconds
    ended = details.finished_at or iso(at)
    ran = datetime.fromisoformat(ended) - datetime.fromisoformat(details.attempt_started_at)
    return details.ran_seconds + max(0, round(ran.total_seconds()))


def _after_step(details: JobDetails, step: wire.StepLogged, position: int) -> JobDetails:
    epochs = details.total_epochs or 1
    return msgspec.structs.replace(
        details,
        position=position,
        stalled=False,
        current_step=step.step,
        total_steps=step.total_steps,
        current_epoch=min(max(math.ceil(step.epoch), 1), epochs) if details.kind == "training" else None,
        progress=_percent(step.step, step.total_steps),
        loss=step.loss,
        learning_rate=step.learning_rate,
        phase_step=step.phase_step,
        phase_total_steps=step.phase_total_steps,
        reward=step.reward,
        kl=step.kl,
        completion_length=step.completion_length,
        rewards=step.rewards,
        eta_seconds=None if details.status == "stopping" else step.eta_seconds,
        phase_eta_seconds=None if details.status == "stopping" else step.phase_eta_seconds,
    )


def _ended(
    details: JobDetails,
    status: JobStatus,
    at: int,
    *,
    progress: float | None = None,
    checkpoint: str | None = None,
    error: JobError | None = None,
) -> JobDetails:
    return msgspec.structs.replace(
        details,
        status=status,
        finished_at=iso(at),
        eta_seconds=None,
        phase_eta_seconds=None,
        phase=None,
        error=error,
        progress=details.progress if progress is None else progress,
        checkpoint=checkpoint or details.checkpoint,
    )


def _percent(step: int, total: int) -> float:
    return round(100 * step / total, 1) if total > 0 else 0.0
