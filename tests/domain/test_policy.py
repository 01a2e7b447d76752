"""What follows from the log outside of it: while running, and after a start."""

import pytest
from support.scenario import (
    EXITED,
    JOB,
    OTHER_JOB,
    SAVED,
    attempt_spawned,
    given,
    launching,
    logged,
    records_of,
    registered,
    requested,
    step,
    training_started,
    uploaded,
)

from modelforge.domain import dataset, job, model, policy
from modelforge.domain.messages import Event
from modelforge.domain.scheduling import Machine

STOP_REQUESTED = job.StopRequested(job_id=JOB, attempt=1)
STARTING = (requested(), launching())
FAILED = job.TrainingFailed(job_id=JOB, kind="Crashed", message="…")
WAITING = requested(OTHER_JOB, queued=True)
DELETED = model.ModelDeleted(model_id=1, path=SAVED.path)


ONE_PLACE = Machine(cpu_threads=3)


def effects_of(event: Event, machine: Machine = ONE_PLACE) -> list[policy.Effect]:
    (record,) = records_of(event)
    return policy.react(record, given(requested()).state, machine)


def test_an_attempt_on_record_is_launched() -> None:
    event = job.AttemptLaunching(job_id=JOB, attempt=2, resume_from="/data/checkpoint-7")
    launch = policy.Launch(spec=requested().spec, attempt=2, resume_from="/data/checkpoint-7", gpus=None, cpu_threads=3)
    assert effects_of(event) == [launch]


@pytest.mark.parametrize("leased", [("1",), ()])
def test_an_attempt_is_launched_on_the_gpus_that_are_leased_to_it(leased: tuple[str, ...]) -> None:
    event = job.AttemptLaunching(job_id=JOB, attempt=1, gpus=leased)
    (launch,) = effects_of(event, Machine(gpus=("0", "1")))
    assert isinstance(launch, policy.Launch)
    assert launch.gpus == leased


def test_a_stop_on_record_is_signalled() -> None:
    assert effects_of(STOP_REQUESTED) == [policy.Signal(job_id=JOB, attempt=1)]


@pytest.mark.parametrize(
    "event",
    [
        job.TrainingCompleted(job_id=JOB, model=SAVED, step=225),
        job.TrainingStopped(job_id=JOB, checkpoint=None),
        FAILED,
    ],
    ids=["completed", "stopped", "failed"],
)
def test_the_end_of_a_job_launches_the_next(event: Event) -> None:
    assert effects_of(event) == [policy.LaunchWaiting(cause=1)]


def test_the_files_of_a_deleted_model_are_removed() -> None:
    assert effects_of(DELETED) == [policy.RemoveFiles(model_id=1, path=SAVED.path)]


def test_the_files_that_only_a_deleted_dataset_had_are_removed() -> None:
    event = dataset.DatasetDeleted(filename="a.jsonl", files=("1.jsonl", "2.upload"))
    assert effects_of(event) == [policy.RemoveDatasetFiles(filename="a.jsonl", files=("1.jsonl", "2.upload"))]
    assert effects_of(dataset.DatasetDeleted(filename="a.jsonl", files=())) == []


@pytest.mark.parametrize(
    "event",
    [
        requested(),
        attempt_spawned(),
        training_started(),
        logged(step(2)),
        job.AttemptExited(job_id=JOB, attempt=1, exit=EXITED),
        registered(),
        uploaded(),
    ],
    ids=lambda event: type(event).__name__,
)
def test_nothing_else_has_an_effect(event: Event) -> None:
    assert effects_of(event) == []


def test_a_start_on_an_empty_log_has_nothing_to_do() -> None:
    assert policy.resume(given().state) == []


def test_a_start_finds_out_about_an_attempt_that_may_not_have_been_spawned() -> None:
    assert policy.resume(given(*STARTING).state) == [policy.Recover(job_id=JOB, attempt=1)]


def test_a_start_follows_an_attempt_that_runs() -> None:
    past = given(*STARTING, attempt_spawned(), training_started())
    assert policy.resume(past.state) == [policy.Follow(job_id=JOB, attempt=1)]


def test_a_start_repeats_a_stop_that_may_not_have_been_signalled() -> None:
    past = given(*STARTING, attempt_spawned(), STOP_REQUESTED)
    assert policy.resume(past.state) == [
        policy.Follow(job_id=JOB, attempt=1),
        policy.Signal(job_id=JOB, attempt=1),
    ]


def test_a_checkpoint_on_request_is_asked_for_and_again_after_a_start_until_it_is_saved() -> None:
    asked = job.CheckpointRequested(job_id=JOB, attempt=1)
    assert effects_of(asked) == [policy.AskForCheckpoint(job_id=JOB, attempt=1)]
    past = (*STARTING, attempt_spawned(), training_started(), asked)
    follow = policy.Follow(job_id=JOB, attempt=1)
    assert policy.resume(given(*past).state) == [follow, policy.AskForCheckpoint(job_id=JOB, attempt=1)]
    saved = job.CheckpointSaved(job_id=JOB, attempt=1, seq=2, offset=200, step=1, path="/data/checkpoint-1")
    assert policy.resume(given(*past, saved).state) == [follow]


def test_a_start_takes_up_every_job_that_runs() -> None:
    past = given(*STARTING, attempt_spawned(), requested(OTHER_JOB), launching(OTHER_JOB))
    assert policy.resume(past.state) == [
        policy.Follow(job_id=JOB, attempt=1),
        policy.Recover(job_id=OTHER_JOB, attempt=1),
    ]


def test_a_start_launches_what_waits_once_the_machine_is_free() -> None:
    assert policy.resume(given(*STARTING, WAITING, FAILED).state) == [policy.LaunchWaiting(cause=None)]


def test_a_start_launches_nothing_beside_a_running_job() -> None:
    past = given(*STARTING, WAITING)
    assert policy.resume(past.state) == [policy.Recover(job_id=JOB, attempt=1), policy.LaunchWaiting(cause=None)]
    past.when(job.LaunchNext()).then()


def test_a_start_removes_the_files_that_a_crash_left() -> None:
    past = (*STARTING, registered(), FAILED, DELETED)
    assert policy.resume(given(*past).state) == [policy.RemoveFiles(model_id=1, path=SAVED.path)]
    assert policy.resume(given(*past, model.ModelFilesRemoved(model_id=1)).state) == []
