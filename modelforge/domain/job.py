r"""A training job, from request to end: its commands, events, state, evolve and decide, in this order.

    queued -> starting -> training -> completed | failed | stopped
                  \____________\-> stopping -> stopped | completed | failed
    starting | training -> starting, by a restart after an attempt that failed
    stopped | failed -> starting, by a resume

That a trainer reported its end, that its process tree is gone, and why are separate facts. A job ends when
its tree is gone: only then is the machine free for the next.
"""

from typing import Literal, assert_never

import msgspec
from msgspec import Struct

from modelforge.domain.causes import RETRIED, Cause, cause_of
from modelforge.domain.idempotency import IdempotencyKey
from modelforge.errors import Conflict, NotFound
from trainer_entry import wire

JobStatus = Literal["queued", "starting", "training", "stopping", "stopped", "completed", "failed"]
FINAL: frozenset[JobStatus] = frozenset({"stopped", "completed", "failed"})
_WITHOUT_STEPS: frozenset[wire.Phase | None] = frozenset({"merging_reward_model", "evaluating", "saving"})

# ---- commands ----


class JobCommand(Struct, frozen=True, kw_only=True, tag_field="type", gc=False):
    """What every command has: the key under which a client may send it again without repeating it."""

    key: IdempotencyKey | None = None


class StartTraining(JobCommand, frozen=True, tag="StartTraining", gc=False):
    """Train, or do the `work` in `spec` with a trained model.

    Model and dataset in `spec` were looked up; the writer stamps the job's id and folders.
    """

    spec: wire.JobSpec
    queue: bool = False


class StopTraining(JobCommand, frozen=True, tag="StopTraining", gc=False):
    """End a job, with a checkpoint of where it stands. No id: the job that runs, as the writer knows it."""

    job_id: str = ""


class ResumeTraining(JobCommand, frozen=True, tag="ResumeTraining", gc=False):
    """Go on with a job that ended without a model, from a checkpoint, or from its beginning without one."""

    job_id: str
    resume_from: str | None = None


class CancelTraining(JobCommand, frozen=True, tag="CancelTraining", gc=False):
    """Take a job out of the queue; one that runs is left alone."""

    job_id: str


class SaveCheckpoint(JobCommand, frozen=True, tag="SaveCheckpoint", gc=False):
    """Save a checkpoint at the next step, and go on."""

    job_id: str


class LaunchNext(JobCommand, frozen=True, tag="LaunchNext", gc=False):
    """Start the jobs that have waited longest, as far as there is room for them."""


class Relaunch(JobCommand, frozen=True, tag="Relaunch", gc=False):
    """Start again an attempt that was recorded but never spawned."""

    job_id: str
    attempt: int


# ---- what supervisor and trainer report: facts, so never refused, and not recorded as commands ----


class ReportSpawned(Struct, frozen=True, kw_only=True, tag_field="type", tag="ReportSpawned", gc=False):
    """The attempt's processes are there."""

    job_id: str
    attempt: int
    shim: wire.ShimReport


class ReportLines(Struct, frozen=True, kw_only=True, tag_field="type", tag="ReportLines", gc=False):
    """What one read of a spool gave. `offset`: first byte after it. `quarantined`: lines of no message."""

    job_id: str
    attempt: int
    offset: int
    messages: tuple[wire.AnyTrainerMessage, ...]
    quarantined: tuple["QuarantinedLine", ...] = ()


class ReportSilence(Struct, frozen=True, kw_only=True, tag_field="type", tag="ReportSilence", gc=False):
    """The trainer is there and trains, but has said nothing for a while."""

    job_id: str
    attempt: int


class ReportGone(Struct, frozen=True, kw_only=True, tag_field="type", tag="ReportGone", gc=False):
    """No process of the attempt is left. `exit` is null where even the shim was killed.

    `rebooted`: the machine was started anew since. `not_launched`: why there never was a process.
    `checkpoint`: the newest whole one of the job, to go on from.
    """

    job_id: str
    attempt: int
    exit: wire.ExitReport | None
    last_words: str = ""
    rebooted: bool = False
    not_launched: Cause | None = None
    checkpoint: str | None = None


Command = StartTraining | StopTraining | ResumeTraining | CancelTraining | SaveCheckpoint | LaunchNext | Relaunch
Report = ReportSpawned | ReportLines | ReportSilence | ReportGone

# ---- events ----


class QuarantinedLine(Struct, frozen=True, kw_only=True, gc=False):
    """A line on the wire that is no message: where it stands in the spool, and its hash."""

    offset: int
    length: int
    sha256: str
    reason: str


class JobEvent(Struct, frozen=True, kw_only=True, tag_field="type", gc=False):
    """What every fact about a job has."""

    job_id: str


class TrainingRequested(JobEvent, frozen=True, tag="TrainingRequested", gc=False):
    """A job exists."""

    spec: wire.JobSpec
    queued: bool


class AttemptLaunching(JobEvent, frozen=True, tag="AttemptLaunching", gc=False):
    """An attempt is about to be spawned. Written before the act, so that no process is ever unknown.

    `gpus` are leased to it until no process of it is left.
    """

    attempt: int
    resume_from: str | None = None
    gpus: tuple[str, ...] = ()


class AttemptSpawned(JobEvent, frozen=True, tag="AttemptSpawned", gc=False):
    """The attempt's processes are there."""

    attempt: int
    shim: wire.ShimReport


class PhaseEntered(JobEvent, frozen=True, tag="PhaseEntered", gc=False):
    """The trainer began another part of its work."""

    attempt: int
    seq: int
    offset: int
    phase: wire.Phase


class TrainingStarted(JobEvent, frozen=True, tag="TrainingStarted", gc=False):
    """Training began, with these parameters, on that machine."""

    attempt: int
    seq: int
    offset: int
    report: wire.TrainerStarted


class WorkStarted(JobEvent, frozen=True, tag="WorkStarted", gc=False):
    """Work on a trained model began: so much is to be done, on that machine."""

    attempt: int
    seq: int
    offset: int
    report: wire.WorkPlanned


class MetricsLogged(JobEvent, frozen=True, tag="MetricsLogged", gc=False):
    """Figures of optimizer steps: all that one read of the spool gave, in one record."""

    attempt: int
    seq: int
    offset: int
    steps: tuple[wire.StepLogged, ...]


class EvaluationLogged(JobEvent, frozen=True, tag="EvaluationLogged", gc=False):
    """Figures on the held-out records."""

    attempt: int
    seq: int
    offset: int
    report: wire.Evaluated


class CheckpointRequested(JobEvent, frozen=True, tag="CheckpointRequested", gc=False):
    """The attempt is to save a checkpoint at its next step."""

    attempt: int


class CheckpointSaved(JobEvent, frozen=True, tag="CheckpointSaved", gc=False):
    """A checkpoint is complete on disk."""

    attempt: int
    seq: int
    offset: int
    step: int
    path: str


class TrainerEnded(JobEvent, frozen=True, tag="TrainerEnded", gc=False):
    """The trainer's last word. Its processes may still be there."""

    attempt: int
    seq: int
    offset: int
    report: wire.TrainerFinished | wire.TrainerStopped | wire.TrainerFailed


class LineQuarantined(JobEvent, frozen=True, tag="LineQuarantined", gc=False):
    """A line on the wire was no message; it was passed over."""

    attempt: int
    offset: int
    line: QuarantinedLine


class StopRequested(JobEvent, frozen=True, tag="StopRequested", gc=False):
    """The attempt is to save a checkpoint and end."""

    attempt: int


class AttemptStalled(JobEvent, frozen=True, tag="AttemptStalled", gc=False):
    """The trainer has said nothing for a while; it is left alone, and its next word ends this."""

    attempt: int


class AttemptExited(JobEvent, frozen=True, tag="AttemptExited", gc=False):
    """No process of the attempt is left. `lost_messages`: how many it sent that never arrived here."""

    attempt: int
    exit: wire.ExitReport | None
    lost_messages: int = 0


class AttemptFailed(JobEvent, frozen=True, tag="AttemptFailed", gc=False):
    """The attempt ended without a model, and the job is tried again."""

    attempt: int
    kind: str
    message: str
    traceback: str = ""


class TrainingCompleted(JobEvent, frozen=True, tag="TrainingCompleted", gc=False):
    """The job did what was asked: `model` is what a training or merge left, `delivery` where an export or push is."""

    model: wire.SavedModel | None
    step: int
    delivery: wire.Exported | wire.Pushed | None = None


class TrainingStopped(JobEvent, frozen=True, tag="TrainingStopped", gc=False):
    """The job was stopped on request."""

    checkpoint: str | None


class TrainingFailed(JobEvent, frozen=True, tag="TrainingFailed", gc=False):
    """The job ended without a model, and why."""

    kind: str
    message: str
    traceback: str = ""


Event = (
    TrainingRequested
    | AttemptLaunching
    | AttemptSpawned
    | PhaseEntered
    | TrainingStarted
    | WorkStarted
    | MetricsLogged
    | EvaluationLogged
    | CheckpointRequested
    | CheckpointSaved
    | TrainerEnded
    | LineQuarantined
    | StopRequested
    | AttemptStalled
    | AttemptExited
    | AttemptFailed
    | TrainingCompleted
    | TrainingStopped
    | TrainingFailed
)

# ---- state ----

LastWord = wire.TrainerFinished | wire.TrainerStopped | wire.TrainerFailed


class Job(Struct, frozen=True, kw_only=True, gc=False):
    """What deciding needs of a job. `seq` and `offset` say how much of the attempt's spool is in the log.

    `heard`: how many of its messages are. `restarts`: tries since the job was last asked for.
    """

    spec: wire.JobSpec
    status: JobStatus
    attempt: int = 0
    seq: int = 0
    offset: int = 0
    heard: int = 0
    shim: wire.ShimReport | None = None
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
        case AttemptSpawned(shim=shim):
            return msgspec.structs.replace(job, shim=shim)
        case TrainingStarted(seq=seq, offset=offset, report=report):
            status = job.status if job.status == "stopping" else "training"
            return msgspec.structs.replace(_heard(job, seq, offset), status=status, parameters=report.parameters)
        case WorkStarted(seq=seq, offset=offset):
            status = job.status if job.status == "stopping" else "training"
            return msgspec.structs.replace(_heard(job, seq, offset), status=status)
        case TrainerEnded(seq=seq, offset=offset, report=report):
            return msgspec.structs.replace(_heard(job, seq, offset), last_word=report)
        case CheckpointSaved(seq=seq, offset=offset):
            return msgspec.structs.replace(_heard(job, seq, offset), checkpoint_requested=False)
        case MetricsLogged(seq=seq, offset=offset, steps=steps):
            return _heard(job, seq, offset, messages=len(steps))
        case PhaseEntered(seq=seq, offset=offset, phase=phase):
            return msgspec.structs.replace(_heard(job, seq, offset), phase=phase)
        case EvaluationLogged(seq=seq, offset=offset):
            return _heard(job, seq, offset)
        case CheckpointRequested():
            return msgspec.structs.replace(job, checkpoint_requested=True)
        case LineQuarantined(offset=offset):
            return msgspec.structs.replace(job, offset=offset, stalled=False)
        case StopRequested():
            return msgspec.structs.replace(job, status="stopping", stop_requested=True)
        case AttemptStalled():
            return msgspec.structs.replace(job, stalled=True)
        case AttemptExited():
            return msgspec.structs.replace(job, shim=None, stalled=False)
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


def _heard(job: Job, seq: int, offset: int, *, messages: int = 1) -> Job:
    """The job after messages of its trainer: whoever speaks is not stalled."""
    return msgspec.structs.replace(job, seq=seq, offset=offset, heard=job.heard + messages, stalled=False)


def stamp(command: StartTraining, job_id: str) -> StartTraining:
    """The command with its job's id, and with folders of that name under the roots that `spec` names."""
    spec = command.spec
    return msgspec.structs.replace(
        command,
        spec=msgspec.structs.replace(
            spec,
            job_id=job_id,
            output_dir=_output_of(spec, job_id),
            checkpoint_dir=f"{spec.checkpoint_dir}/{job_id}/checkpoints",
        ),
    )


def again(spec: wire.JobSpec, parameters: wire.TrainingParameters) -> wire.JobSpec:
    """What a new job needs to repeat one, with the parameters that were in effect; its id and folders come later."""
    return msgspec.structs.replace(spec, job_id="", parameters=parameters, rerun_of=spec.job_id)


def _output_of(spec: wire.JobSpec, job_id: str) -> str:
    match spec.work:
        case wire.Export(to=str(place)):
            return place
        case wire.Export(format="tar" | "zip" as suffix):
            return f"{spec.output_dir}/{job_id}.{suffix}"
        case _:
            return f"{spec.output_dir}/{job_id}"


def decide_start(command: StartTraining, gpus: tuple[str, ...] | None, active: Job | None) -> list[Event]:
    """A new job, and its first attempt at once where there is room: on `gpus`, which may be none of them.

    `active`: who has the room where `gpus` is None, or waits for it.

    Raises:
        Conflict: there is no room, and `queue` was not asked for.
    """
    job_id = command.spec.job_id
    if gpus is not None:
        requested = TrainingRequested(job_id=job_id, spec=command.spec, queued=False)
        return [requested, AttemptLaunching(job_id=job_id, attempt=1, gpus=gpus)]
    if not command.queue:
        raise _no_room(active, 'wait for its end, or send "queue": true to run this one after it.')
    return [TrainingRequested(job_id=job_id, spec=command.spec, queued=True)]


def _no_room(active: Job | None, remedy: str) -> Conflict:
    who = "" if active is None else f"{active.spec.job_id} is {active.status}; "
    return Conflict("A training job is already active", f"{who}stop it, {remedy}")


def decide_stop(command: StopTraining, job: Job | None) -> list[Event]:
    """Ask the attempt to end; a job that waits ends at once. Asking twice changes nothing.

    Raises:
        NotFound: there is no such job.
        Conflict: the job has ended.
    """
    if job is None:
        raise no_such_job(command.job_id)
    if job.status in FINAL:
        raise Conflict("The job has already ended", f"{command.job_id} is {job.status}.")
    if job.status == "queued":
        return [TrainingStopped(job_id=command.job_id, checkpoint=None)]
    if job.stop_requested:
        return []
    return [StopRequested(job_id=command.job_id, attempt=job.attempt)]


def decide_relaunch(command: Relaunch, job: Job | None, gpus: tuple[str, ...]) -> list[Event]:
    """The next attempt in place of one that was never spawned; a stop that came meanwhile ends the job."""
    if job is None or job.attempt != command.attempt or job.status not in {"starting", "stopping"}:
        return []
    if job.shim is not None or job.offset > 0:  # it was spawned: a second tree would train beside it
        return []
    if job.stop_requested:
        return [TrainingStopped(job_id=command.job_id, checkpoint=None)]
    return [launching(job, gpus, job.resume_from)]


def launching(job: Job, gpus: tuple[str, ...], resume_from: str | None = None) -> AttemptLaunching:
    """The next attempt of a job."""
    return AttemptLaunching(job_id=job.spec.job_id, attempt=job.attempt + 1, resume_from=resume_from, gpus=gpus)


def decide_resume(
    command: ResumeTraining, job: Job | None, gpus: tuple[str, ...] | None, active: Job | None
) -> list[Event]:
    """The next attempt of a job that was stopped or failed, where there is room for it.

    Raises:
        NotFound: there is no such job.
        Conflict: it runs, waits or is complete, or there is no room: `active` has it.
    """
    if job is None:
        raise no_such_job(command.job_id)
    if job.status not in {"stopped", "failed"}:
        raise Conflict("There is nothing to resume", f"{command.job_id} is {job.status}.")
    if gpus is None:
        raise _no_room(active, "or wait for its end.")
    return [launching(job, gpus, command.resume_from)]


def decide_cancel(command: CancelTraining, job: Job | None) -> list[Event]:
    """The end of a job that waits.

    Raises:
        NotFound: there is no such job.
        Conflict: it does not wait.
    """
    if job is None:
        raise no_such_job(command.job_id)
    if job.status != "queued":
        raise Conflict("The job does not wait", f"{command.job_id} is {job.status}; POST …/stop ends one that runs.")
    return [TrainingStopped(job_id=command.job_id, checkpoint=None)]


def decide_checkpoint(command: SaveCheckpoint, job: Job | None) -> list[Event]:
    """Ask the attempt for a checkpoint. Asking again before it is saved changes nothing.

    Raises:
        NotFound: there is no such job.
        Conflict: it makes no steps.
    """
    if job is None:
        raise no_such_job(command.job_id)
    if job.spec.work is not None:
        raise Conflict("There is no step to save", f"{command.job_id} is a job of kind {job.spec.kind}: no training.")
    if job.status != "training" or job.last_word is not None or job.phase in _WITHOUT_STEPS:
        status = "ending" if job.status == "training" else job.status
        raise Conflict("There is no step to save", f"{command.job_id} is {status}; a checkpoint is saved in training.")
    if job.checkpoint_requested:
        return []
    return [CheckpointRequested(job_id=command.job_id, attempt=job.attempt)]


def no_such_job(job_id: str) -> NotFound:
    """The refusal of an id that no job has."""
    return NotFound("No such job", f"There is no job {job_id!r}; GET /api/jobs lists them.")


def decide_report(job: Job | None, report: Report, gpus: tuple[str, ...] = ()) -> list[Event]:
    """The facts in a report that the log does not have yet; a report of an earlier attempt has none.

    `gpus`: for the next attempt, if this one is gone and another is made.
    """
    if job is None or report.attempt != job.attempt or job.status in FINAL:
        return []
    match report:
        case ReportSpawned(shim=shim):
            if job.shim is not None:
                return []
            return [AttemptSpawned(job_id=report.job_id, attempt=report.attempt, shim=shim)]
        case ReportLines():
            return _events_of_lines(job, report)
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
        if line.offset >= job.offset  # a line before it was told when it was first read
    ]
    seq = job.seq
    steps: list[wire.StepLogged] = []

    def flush() -> None:
        if steps:
            events.append(
                MetricsLogged(
                    job_id=report.job_id,
                    attempt=report.attempt,
                    seq=steps[-1].seq,
                    offset=report.offset,
                    steps=tuple(steps),
                )
            )
            steps.clear()

    for message in report.messages:
        if message.seq <= seq or message.attempt != job.attempt:
            continue
        seq = message.seq
        if isinstance(message, wire.StepLogged):
            steps.append(message)
        else:
            flush()
            events.append(_event_of_message(report, message))
    flush()
    return events


def _event_of_message(
    report: ReportLines,
    message: wire.PhaseStarted
    | wire.TrainerStarted
    | wire.WorkPlanned
    | wire.Evaluated
    | wire.CheckpointWritten
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
        case wire.TrainerFinished() | wire.TrainerStopped() | wire.TrainerFailed():
            return TrainerEnded(job_id=job_id, attempt=attempt, seq=seq, offset=offset, report=message)
        case _:
            assert_never(message)


def _events_of_end(job: Job, report: ReportGone, gpus: tuple[str, ...]) -> list[Event]:
    told = max(job.seq, 0 if job.last_word is None else job.last_word.messages)
    exited = AttemptExited(
        job_id=report.job_id, attempt=report.attempt, exit=report.exit, lost_messages=told - job.heard
    )
    match job.last_word:
        case wire.TrainerFinished(model=model, step=step, delivery=delivery):
            return [exited, TrainingCompleted(job_id=report.job_id, model=model, step=step, delivery=delivery)]
        case wire.TrainerStopped(checkpoint=checkpoint) if job.stop_requested:
            return [exited, TrainingStopped(job_id=report.job_id, checkpoint=checkpoint)]
        case None if job.stop_requested:
            return [exited, TrainingStopped(job_id=report.job_id, checkpoint=None)]
        case wire.TrainerStopped() | wire.TrainerFailed() | None as word:
            cause = report.not_launched or cause_of(
                word, report.exit, report.last_words, rebooted=report.rebooted, trains=job.spec.work is None
            )
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


def stream_of(job_id: str) -> str:
    """The stream of a job is named by the job's id."""
    return job_id


def job_id_at(position: int) -> str:
    """The id of the job whose first record stands at `position`."""
    return f"train_{position:06d}"
