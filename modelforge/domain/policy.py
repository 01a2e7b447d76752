"""What follows from a record outside the log, as data: `react` while running, `resume` after a start."""

from msgspec import Struct

from modelforge.domain import dataset, job, model
from modelforge.domain.messages import Record
from modelforge.domain.scheduling import Place, machine_for
from modelforge.domain.state import State
from trainer_entry import wire


class Launch(Struct, frozen=True, kw_only=True, gc=False):
    """Hand over an attempt at a job, on the GPUs that are leased to it; None where there are none to lease."""

    spec: wire.JobSpec
    attempt: int
    resume_from: str | None
    gpus: tuple[str, ...] | None
    cpu_threads: int


class Recover(Struct, frozen=True, kw_only=True, gc=False):
    """Find out whether an attempt that was recorded as launching was handed over: follow it, or launch anew."""

    job_id: str
    attempt: int


class Follow(Struct, frozen=True, kw_only=True, gc=False):
    """See an attempt through that was handed over before this server started: it waits, runs, or has ended."""

    job_id: str
    attempt: int


class Signal(Struct, frozen=True, kw_only=True, gc=False):
    """Ask an attempt to save a checkpoint and end."""

    job_id: str
    attempt: int


class AskForCheckpoint(Struct, frozen=True, kw_only=True, gc=False):
    """Ask an attempt to save a checkpoint and go on."""

    job_id: str
    attempt: int


class LaunchWaiting(Struct, frozen=True, kw_only=True, gc=False):
    """There may be room: start the jobs that have waited longest. `cause`: the record that made room."""

    cause: int | None


class RemoveFiles(Struct, frozen=True, kw_only=True, gc=False):
    """Take a deleted model's files off the disk."""

    model_id: int
    path: str


class RemoveDatasetFiles(Struct, frozen=True, kw_only=True, gc=False):
    """Take files of a deleted dataset off the disk, if nobody needs them by then."""

    filename: str
    files: tuple[str, ...]


Effect = Launch | Recover | Follow | Signal | AskForCheckpoint | LaunchWaiting | RemoveFiles | RemoveDatasetFiles


def react(record: Record, state: State, place: Place) -> list[Effect]:
    """The effects of one new record, in the state that it led to."""
    match record.message:
        case job.AttemptLaunching(job_id=job_id, attempt=attempt, resume_from=resume_from, gpus=gpus):
            spec = state.jobs[job_id].spec
            machine = machine_for(place, spec)
            launch = Launch(
                spec=spec,
                attempt=attempt,
                resume_from=resume_from,
                gpus=gpus if machine is not None and machine.gpus else None,
                cpu_threads=(machine or place).cpu_threads,
            )
            return [launch]
        case job.StopRequested(job_id=job_id, attempt=attempt):
            return [Signal(job_id=job_id, attempt=attempt)]
        case job.CheckpointRequested(job_id=job_id, attempt=attempt):
            return [AskForCheckpoint(job_id=job_id, attempt=attempt)]
        case job.TrainingCompleted() | job.TrainingStopped() | job.TrainingFailed():
            return [LaunchWaiting(cause=record.position)]
        case model.ModelDeleted(model_id=model_id, path=path):
            return [RemoveFiles(model_id=model_id, path=path)]
        case dataset.DatasetDeleted(filename=filename, files=files) if files:
            return [RemoveDatasetFiles(filename=filename, files=files)]
        case _:
            return []


def resume(state: State) -> list[Effect]:
    """What a server that starts on this state has to take up."""
    effects: list[Effect] = [
        RemoveFiles(model_id=trained.model_id, path=trained.path)
        for trained in state.models.values()
        if trained.deleted and not trained.files_removed
    ]
    effects += [
        RemoveDatasetFiles(filename=known.filename, files=known.removing)
        for known in state.datasets.values()
        if known.removing
    ]
    for job_id in state.running:
        running = state.jobs[job_id]
        if running.reference is None:
            effects.append(Recover(job_id=job_id, attempt=running.attempt))
        else:
            effects.append(Follow(job_id=job_id, attempt=running.attempt))
        if running.stop_requested:
            effects.append(Signal(job_id=job_id, attempt=running.attempt))
        elif running.checkpoint_requested:
            effects.append(AskForCheckpoint(job_id=job_id, attempt=running.attempt))
    if state.waiting:
        effects.append(LaunchWaiting(cause=None))
    return effects
