"""The reports of supervisor and trainer: facts, so never refused, and what each leads to; they are not recorded."""

from typing import assert_never

from msgspec import Struct

from modelforge.domain.failure_causes import RETRIED, Cause, cause_of
from modelforge.domain.job.messages import (
    AttemptExited,
    AttemptFailed,
    AttemptSpawned,
    AttemptStalled,
    AttemptSubmitted,
    AttemptWaits,
    CheckpointSaved,
    EvaluationLogged,
    Event,
    LineQuarantined,
    MetricsLogged,
    PhaseEntered,
    QuarantinedLine,
    TrackerGivenUp,
    TrainerEnded,
    TrainingCompleted,
    TrainingFailed,
    TrainingStarted,
    TrainingStopped,
    WorkStarted,
)
from modelforge.domain.job.reference import LocalProcess, Reference
from modelforge.domain.job.state import FINAL, Job, LastWord, launching
from trainer_entry import wire


class ReportSubmitted(Struct, frozen=True, kw_only=True, tag_field="type", tag="ReportSubmitted", gc=False):
    """The attempt was handed over to who runs it. A process of this machine has started by that."""

    job_id: str
    attempt: int
    reference: Reference


class ReportWaits(Struct, frozen=True, kw_only=True, tag_field="type", tag="ReportWaits", gc=False):
    """The attempt waits for its start, and why."""

    job_id: str
    attempt: int
    reason: str


class ReportSpawned(Struct, frozen=True, kw_only=True, tag_field="type", tag="ReportSpawned", gc=False):
    """The processes of an attempt are there that was handed over before."""

    job_id: str
    attempt: int


class ReportLines(Struct, frozen=True, kw_only=True, tag_field="type", tag="ReportLines", gc=False):
    """What one read of a spool gave. `offset`: first byte after it. `quarantined`: lines of no message."""

    job_id: str
    attempt: int
    offset: int
    messages: tuple[wire.AnyTrainerMessage, ...]
    quarantined: tuple[QuarantinedLine, ...] = ()


class ReportSilence(Struct, frozen=True, kw_only=True, tag_field="type", tag="ReportSilence", gc=False):
    """The trainer is there and trains, but has said nothing for a while."""

    job_id: str
    attempt: int


class ReportGone(Struct, frozen=True, kw_only=True, tag_field="type", tag="ReportGone", gc=False):
    """No process of the attempt is left. `exit` is null where even the shim was killed.

    `cause`: what the launcher knows of why it ended, or why there never was a process; null where it has to be
    concluded. `checkpoint`: the newest whole one of the job, to go on from.
    """

    job_id: str
    attempt: int
    exit: wire.ExitReport | None
    last_words: str = ""
    cause: Cause | None = None
    checkpoint: str | None = None


Report = ReportLines | ReportSubmitted | ReportWaits | ReportSpawned | ReportSilence | ReportGone


def decide_report(job: Job | None, report: Report, gpus: tuple[str, ...] = ()) -> list[Event]:
    """The facts in a report that the log does not have yet; a report of an earlier attempt has none.

    `gpus`: for the next attempt, if this one is gone and another is made.
    """
    if job is None or report.attempt != job.attempt or job.status in FINAL:
        return []
    match report:
        case ReportLines():
            return _events_of_lines(job, report)
        case ReportSubmitted(reference=reference):
            if job.reference is not None:
                return []
            if isinstance(reference, LocalProcess):
                return [AttemptSpawned(job_id=report.job_id, attempt=report.attempt, reference=reference)]
            return [AttemptSubmitted(job_id=report.job_id, attempt=report.attempt, reference=reference)]
        case ReportWaits(reason=reason):
            if job.status != "queued" or job.waits_for == reason:
                return []
            return [AttemptWaits(job_id=report.job_id, attempt=report.attempt, reason=reason)]
        case ReportSpawned():
            if job.reference is None or job.spawned:
                return []
            return [AttemptSpawned(job_id=report.job_id, attempt=report.attempt, reference=job.reference)]
        case ReportSilence():
            if job.status != "training" or job.last_word is not None or job.stalled:
                return []
            return [AttemptStalled(job_id=report.job_id, attempt=report.attempt)]
        case ReportGone():
            return _events_of_end(job, report, gpus)
        case _:
            assert_never(report)


def _events_of_lines(job: Job, report: ReportLines) -> list[Event]:
    if report.offset <= job.offset:
        return []
    events: list[Event] = [
        LineQuarantined(job_id=report.job_id, attempt=report.attempt, offset=report.offset, line=line)
        for line in report.quarantined
        if line.offset >= job.offset  # a line before it was reported when it was first read
    ]
    seq = job.seq
    steps: list[wire.StepLogged] = []
    for message in report.messages:
        if message.seq <= seq or message.attempt != job.attempt:
            continue
        seq = message.seq
        if isinstance(message, wire.StepLogged):
            steps.append(message)
            continue
        if steps:
            events.append(_event_of_steps(report, tuple(steps)))
            steps.clear()
        events.append(_event_of_message(report, message))
    if steps:
        events.append(_event_of_steps(report, tuple(steps)))
    return events


def _event_of_steps(report: ReportLines, steps: tuple[wire.StepLogged, ...]) -> MetricsLogged:
    return MetricsLogged(
        job_id=report.job_id, attempt=report.attempt, seq=steps[-1].seq, offset=report.offset, steps=steps
    )


def _event_of_message(
    report: ReportLines,
    message: wire.PhaseStarted
    | wire.TrainerStarted
    | wire.WorkPlanned
    | wire.Evaluated
    | wire.CheckpointWritten
    | wire.TrackerFailed
    | LastWord,
) -> Event:
    job_id, attempt, offset, seq = report.job_id, report.attempt, report.offset, message.seq
    match message:
        case wire.PhaseStarted(phase=phase):
            return PhaseEntered(job_id=job_id, attempt=attempt, seq=seq, offset=offset, phase=phase)
        case wire.TrainerStarted():
            return TrainingStarted(job_id=job_id, attempt=attempt, seq=seq, offset=offset, report=message)
        case wire.WorkPlanned():
            return WorkStarted(job_id=job_id, attempt=attempt, seq=seq, offset=offset, report=message)
        case wire.Evaluated():
            return EvaluationLogged(job_id=job_id, attempt=attempt, seq=seq, offset=offset, report=message)
        case wire.CheckpointWritten(step=step, path=path):
            return CheckpointSaved(job_id=job_id, attempt=attempt, seq=seq, offset=offset, step=step, path=path)
        case wire.TrackerFailed(tracker=tracker, message=why):
            return TrackerGivenUp(job_id=job_id, attempt=attempt, seq=seq, offset=offset, tracker=tracker, message=why)
        case wire.TrainerFinished() | wire.TrainerStopped() | wire.TrainerFailed():
            return TrainerEnded(job_id=job_id, attempt=attempt, seq=seq, offset=offset, report=message)
        case _:
            assert_never(message)


def _events_of_end(job: Job, report: ReportGone, gpus: tuple[str, ...]) -> list[Event]:
    sent = max(job.seq, 0 if job.last_word is None else job.last_word.messages)
    exited = AttemptExited(
        job_id=report.job_id, attempt=report.attempt, exit=report.exit, lost_messages=sent - job.received
    )
    match job.last_word:
        case wire.TrainerFinished(model=model, step=step, delivery=delivery):
            return [exited, TrainingCompleted(job_id=report.job_id, model=model, step=step, delivery=delivery)]
        case wire.TrainerStopped(checkpoint=checkpoint) if job.stop_requested:
            return [exited, TrainingStopped(job_id=report.job_id, checkpoint=checkpoint)]
        case None if job.stop_requested:
            return [exited, TrainingStopped(job_id=report.job_id, checkpoint=None)]
        case wire.TrainerStopped() | wire.TrainerFailed() | None as word:
            trains = job.spec.work is None
            cause = cause_of(word, report.exit, report.last_words, known=report.cause, trains=trains)
            return [exited, *_events_of_failure(job, cause, report, gpus)]
        case _:
            assert_never(job.last_word)


def _events_of_failure(job: Job, cause: Cause, report: ReportGone, gpus: tuple[str, ...]) -> list[Event]:
    """The end of the job, or its next attempt, where the cause and `max_restarts` leave room for one."""
    kind, message, traceback = cause.kind, cause.message, cause.traceback
    if job.stop_requested or job.restarts >= job.spec.max_restarts or kind not in RETRIED:
        return [TrainingFailed(job_id=report.job_id, kind=kind, message=message, traceback=traceback)]
    failed = AttemptFailed(
        job_id=report.job_id, attempt=report.attempt, kind=kind, message=message, traceback=traceback
    )
    return [failed, launching(job, gpus, report.checkpoint)]
