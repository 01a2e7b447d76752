"""The state of a job, and how each event changes it."""

from typing import Literal, assert_never

import msgspec
from msgspec import Struct

from modelforge.domain.job.messages import (
    AttemptExited,
    AttemptFailed,
    AttemptLaunching,
    AttemptSpawned,
    AttemptStalled,
    AttemptSubmitted,
    AttemptWaits,
    CheckpointRequested,
    CheckpointSaved,
    EvaluationLogged,
    Event,
    LineQuarantined,
    MetricsLogged,
    PhaseEntered,
    StopRequested,
    TrackerGivenUp,
    TrainerEnded,
    TrainingCompleted,
    TrainingFailed,
    TrainingRequested,
    TrainingStarted,
    TrainingStopped,
    WorkStarted,
)
from modelforge.domain.job.reference import Reference
from trainer_entry import wire

JobStatus = Literal["queued", "starting", "training", "stopping", "stopped", "completed", "failed"]
FINAL: frozenset[JobStatus] = frozenset({"stopped", "completed", "failed"})

LastWord = wire.TrainerFinished | wire.TrainerStopped | wire.TrainerFailed


class Job(Struct, frozen=True, kw_only=True, gc=False):
    """What deciding needs of a job. `seq` and `offset` say how much of the attempt's spool is in the log.

    `received`: how many of its messages are. `restarts`: tries since the job was last asked for. `reference`: who runs
    the attempt, once it is handed over; `spawned`: whether it has started, and `waits_for` why not.
    """

    spec: wire.JobSpec
    status: JobStatus
    attempt: int = 0
    seq: int = 0
    offset: int = 0
    received: int = 0
    reference: Reference | None = None
    spawned: bool = False
    waits_for: str | None = None
    gpus: tuple[str, ...] = ()
    phase: wire.Phase | None = None
    stop_requested: bool = False
    checkpoint_requested: bool = False
    stalled: bool = False
    restarts: int = 0
    resume_from: str | None = None
    last_word: LastWord | None = None
    parameters: wire.TrainingParameters | None = None


def evolve(job: Job | None, event: Event) -> Job:
    """The job after `event`. A first event makes the job; any other on nothing is a broken log."""
    if isinstance(event, TrainingRequested):
        return Job(spec=event.spec, status="queued")
    if job is None:
        raise ValueError(f"{type(event).__name__} of a job that was never requested: {event.job_id}")
    match event:
        case MetricsLogged(seq=seq, offset=offset, steps=steps):  # nearly all
            return _received(job, seq, offset, messages=len(steps))
        case AttemptLaunching(attempt=attempt, resume_from=resume_from, gpus=gpus):
            goes_on = job.status not in FINAL
            return Job(
                spec=job.spec,
                status="starting",
                attempt=attempt,
                gpus=gpus,
                # A stop that came before the launch still holds; one that ended the attempt before does not.
                stop_requested=job.stop_requested and goes_on,
                restarts=job.restarts if goes_on else 0,
                resume_from=resume_from,
            )
        case AttemptSubmitted(reference=reference):
            return _become(msgspec.structs.replace(job, reference=reference), "starting", "queued")
        case AttemptWaits(reason=reason):
            return msgspec.structs.replace(job, waits_for=reason)
        case AttemptSpawned(runner=runner):
            there = msgspec.structs.replace(job, reference=runner, spawned=True, waits_for=None)
            return _become(there, "queued", "starting")
        case TrainingStarted(seq=seq, offset=offset, report=report):
            status = job.status if job.status == "stopping" else "training"
            return msgspec.structs.replace(_received(job, seq, offset), status=status, parameters=report.parameters)
        case WorkStarted(seq=seq, offset=offset):
            status = job.status if job.status == "stopping" else "training"
            return msgspec.structs.replace(_received(job, seq, offset), status=status)
        case TrainerEnded(seq=seq, offset=offset, report=report):
            return msgspec.structs.replace(_received(job, seq, offset), last_word=report)
        case CheckpointSaved(seq=seq, offset=offset):
            return msgspec.structs.replace(_received(job, seq, offset), checkpoint_requested=False)
        case PhaseEntered(seq=seq, offset=offset, phase=phase):
            return msgspec.structs.replace(_received(job, seq, offset), phase=phase)
        case EvaluationLogged(seq=seq, offset=offset) | TrackerGivenUp(seq=seq, offset=offset):
            return _received(job, seq, offset)
        case CheckpointRequested():
            return msgspec.structs.replace(job, checkpoint_requested=True)
        case LineQuarantined(offset=offset):
            return msgspec.structs.replace(job, offset=offset, stalled=False)
        case StopRequested():
            return msgspec.structs.replace(job, status="stopping", stop_requested=True)
        case AttemptStalled():
            return msgspec.structs.replace(job, stalled=True)
        case AttemptExited():
            return msgspec.structs.replace(job, reference=None, spawned=False, waits_for=None, stalled=False)
        case AttemptFailed():
            return msgspec.structs.replace(job, status="starting", restarts=job.restarts + 1)
        case TrainingCompleted():
            return msgspec.structs.replace(job, status="completed")
        case TrainingStopped():
            return msgspec.structs.replace(job, status="stopped")
        case TrainingFailed():
            return msgspec.structs.replace(job, status="failed")
        case _:
            assert_never(event)


def _become(job: Job, before: JobStatus, after: JobStatus) -> Job:
    """The job with another status, unless it has become something else meanwhile."""
    return msgspec.structs.replace(job, status=after) if job.status == before else job


def _received(job: Job, seq: int, offset: int, *, messages: int = 1) -> Job:
    """The job after messages of its trainer: a trainer that sends is not stalled."""
    return msgspec.structs.replace(job, seq=seq, offset=offset, received=job.received + messages, stalled=False)


def launching(job: Job, gpus: tuple[str, ...], resume_from: str | None = None) -> AttemptLaunching:
    """The next attempt of a job."""
    return AttemptLaunching(job_id=job.spec.job_id, attempt=job.attempt + 1, resume_from=resume_from, gpus=gpus)
