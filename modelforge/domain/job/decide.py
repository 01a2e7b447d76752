"""What a command leads to: the events of a job, or the reason why there are none."""

import msgspec

from modelforge.domain.job.messages import (
    AttemptLaunching,
    CancelTraining,
    CheckpointRequested,
    Event,
    Relaunch,
    ResumeTraining,
    SaveCheckpoint,
    StartTraining,
    StopRequested,
    StopTraining,
    TrainingRequested,
    TrainingStopped,
)
from modelforge.domain.job.state import FINAL, Job, launching
from modelforge.errors import Conflict, NotFound
from trainer_entry import wire

_ID = "train_"
_WITHOUT_STEPS: frozenset[wire.Phase | None] = frozenset({"merging_reward_model", "evaluating", "saving"})


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
    """Ask the attempt to end; a job that waits for one ends at once. Asking twice changes nothing.

    Raises:
        NotFound: there is no such job.
        Conflict: the job has ended.
    """
    if job is None:
        raise no_such_job(command.job_id)
    if job.status in FINAL:
        raise Conflict("The job has already ended", f"{command.job_id} is {job.status}.")
    if job.status == "queued":
        return _taken_out(job)
    if job.stop_requested:
        return []
    return [StopRequested(job_id=command.job_id, attempt=job.attempt)]


def _taken_out(job: Job) -> list[Event]:
    """The end of a job that waits; of an attempt that was handed over, who has it says when it can start no more."""
    if job.reference is not None:
        return [StopRequested(job_id=job.spec.job_id, attempt=job.attempt)]
    return [TrainingStopped(job_id=job.spec.job_id, checkpoint=None)]


def decide_relaunch(command: Relaunch, job: Job | None, gpus: tuple[str, ...]) -> list[Event]:
    """The next attempt in place of one that was never spawned; a stop that came meanwhile ends the job."""
    if job is None or job.attempt != command.attempt or job.status not in {"starting", "stopping"}:
        return []
    if job.reference is not None or job.offset > 0:  # it was spawned: a second tree would train beside it
        return []
    if job.stop_requested:
        return [TrainingStopped(job_id=command.job_id, checkpoint=None)]
    return [launching(job, gpus, job.resume_from)]


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
    return _taken_out(job)


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


def stream_of(job_id: str) -> str:
    """The stream of a job is named by the job's id."""
    return job_id


def job_id_at(position: int) -> str:
    """The id of the job whose first record stands at `position`."""
    return f"{_ID}{position:06d}"


def first_position(job_id: str) -> int:
    """The position of the log at which a job begins: its id has it."""
    return int(job_id.removeprefix(_ID))
