"""The messages about a job that stand in the log: its commands and events."""

from msgspec import Struct

from modelforge.domain.idempotency import IdempotencyKey
from modelforge.domain.job.reference import Reference, local_process
from trainer_entry import wire

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


Command = StartTraining | StopTraining | ResumeTraining | CancelTraining | SaveCheckpoint | LaunchNext | Relaunch


class QuarantinedLine(Struct, frozen=True, kw_only=True, gc=False):
    """A line on the wire that is no message: where it stands in the spool, and its hash."""

    offset: int
    length: int
    sha256: str
    reason: str


# ---- events ----


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


class AttemptSubmitted(JobEvent, frozen=True, tag="AttemptSubmitted", gc=False):
    """The attempt was handed over to who runs it, and may wait there: whether it has started is not known yet."""

    attempt: int
    reference: Reference


class AttemptWaits(JobEvent, frozen=True, tag="AttemptWaits", gc=False):
    """An attempt that was handed over waits for its start, and why."""

    attempt: int
    reason: str


class AttemptSpawned(JobEvent, frozen=True, tag="AttemptSpawned", gc=False):
    """The attempt's processes are there. `shim`: what older releases wrote in place of `reference`."""

    attempt: int
    shim: wire.ShimReport | None = None
    reference: Reference | None = None

    @property
    def runner(self) -> Reference | None:
        """Who runs the attempt, as any release wrote it."""
        return self.reference if self.shim is None else local_process(self.shim)


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


class TrackerGivenUp(JobEvent, frozen=True, tag="TrackerGivenUp", gc=False):
    """A tracker is told nothing more of the attempt, and why; the training goes on."""

    attempt: int
    seq: int
    offset: int
    tracker: wire.Tracker
    message: str


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
    """The job did what was asked: `model` is what a training or merge left, `delivery` what came of other work."""

    model: wire.SavedModel | None
    step: int
    delivery: wire.Exported | wire.Pushed | wire.Judged | None = None


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
    | AttemptSubmitted
    | AttemptWaits
    | AttemptSpawned
    | PhaseEntered
    | TrainingStarted
    | WorkStarted
    | MetricsLogged
    | EvaluationLogged
    | CheckpointRequested
    | CheckpointSaved
    | TrackerGivenUp
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
