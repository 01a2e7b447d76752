"""What is decided about models and datasets."""

import msgspec
import pytest
from support.scenario import (
    EXITED,
    JOB,
    OTHER_JOB,
    SAVED,
    attempt_spawned,
    ended,
    finished,
    given,
    gone,
    launching,
    register_dataset,
    registered,
    requested,
    spec,
    training_started,
    uploaded,
)

from modelforge.domain import job, model
from modelforge.domain.decisions import is_within
from modelforge.errors import Conflict, NotFound

COMPLETED = (
    requested(),
    launching(),
    attempt_spawned(),
    training_started(),
    ended(finished(2)),
    job.AttemptExited(job_id=JOB, attempt=1, exit=EXITED),
    job.TrainingCompleted(job_id=JOB, model=SAVED, step=225),
    registered(),
)
DELETED = model.ModelDeleted(model_id=1, path=SAVED.path)


def test_a_model_is_deleted_once() -> None:
    given(*COMPLETED).when(model.DeleteModel(model_id=1)).then(DELETED)
    given(*COMPLETED, DELETED).when(model.DeleteModel(model_id=1)).then_refused(NotFound, "no model 1")


def test_an_unknown_model_cannot_be_deleted() -> None:
    given().when(model.DeleteModel(model_id=7)).then_refused(NotFound, "no model 7")


@pytest.mark.parametrize("folder", ["", "/merged"])
@pytest.mark.parametrize("waits", [False, True], ids=["running", "waiting"])
def test_a_model_that_an_active_job_trains_on_stays(folder: str, *, waits: bool) -> None:
    base = SAVED.path + folder
    first = (requested("train_000050"), launching("train_000050")) if waits else ()
    past = (*first, requested(OTHER_JOB, queued=waits, model_path=base))
    launched = () if waits else (launching(OTHER_JOB),)
    given(*COMPLETED, *past, *launched).when(model.DeleteModel(model_id=1)).then_refused(Conflict, OTHER_JOB)


def test_a_model_that_rewards_an_active_job_stays() -> None:
    asked = msgspec.structs.replace(spec(OTHER_JOB), reward_model_path=SAVED.path)
    rewarded = job.TrainingRequested(job_id=OTHER_JOB, spec=asked, queued=False)
    past = given(*COMPLETED, rewarded, launching(OTHER_JOB))
    past.when(model.DeleteModel(model_id=1)).then_refused(Conflict, OTHER_JOB)


def test_no_job_is_rewarded_by_a_model_that_was_deleted() -> None:
    asked = job.StartTraining(spec=msgspec.structs.replace(spec(OTHER_JOB), reward_model_path=SAVED.path))
    given(*COMPLETED, DELETED).when(asked).then_refused(NotFound, "reward_model")


def test_a_job_on_a_neighbouring_folder_does_not_hold_a_model() -> None:
    other = (requested(OTHER_JOB, model_path=SAVED.path + "0"), launching(OTHER_JOB))
    given(*COMPLETED, *other).when(model.DeleteModel(model_id=1)).then(DELETED)


def test_the_number_of_a_deleted_model_is_never_given_again() -> None:
    other = (requested(OTHER_JOB), launching(OTHER_JOB), attempt_spawned(OTHER_JOB))
    last_word = job.TrainerEnded(job_id=OTHER_JOB, attempt=1, seq=2, offset=300, report=finished(2))
    *_, event = given(*COMPLETED, DELETED, *other, last_word).when(gone(OTHER_JOB)).events
    assert isinstance(event, model.ModelRegistered)
    assert event.model_id == 2


def test_the_files_of_a_deleted_model_are_removed_once() -> None:
    removed = model.ModelFilesRemoved(model_id=1)
    given(*COMPLETED, DELETED).when(model.ReportFilesRemoved(model_id=1)).then(removed)
    given(*COMPLETED, DELETED, removed).when(model.ReportFilesRemoved(model_id=1)).then()


def test_the_files_of_a_model_that_is_there_are_not_removed() -> None:
    given(*COMPLETED).when(model.ReportFilesRemoved(model_id=1)).then()
    given().when(model.ReportFilesRemoved(model_id=1)).then()


def test_a_model_that_was_never_registered_has_no_history() -> None:
    with pytest.raises(ValueError, match="never registered"):
        given(DELETED)


def test_a_model_keeps_the_parameters_in_effect_not_those_asked_for() -> None:
    *_, event = given(*COMPLETED[:5]).when(gone()).events
    assert event == registered()


def test_a_model_of_a_trainer_that_never_said_so_keeps_the_parameters_asked_for() -> None:
    *_, event = given(requested(), launching(), attempt_spawned(), ended(finished(1))).when(gone()).events
    assert isinstance(event, model.ModelRegistered)
    assert event.parameters == event.spec.parameters


def test_a_new_name_is_a_first_revision() -> None:
    given().when(register_dataset()).then(uploaded())


def test_the_same_bytes_are_the_same_dataset() -> None:
    given(uploaded()).when(register_dataset()).then()


def test_other_bytes_are_the_next_revision() -> None:
    given(uploaded()).when(register_dataset("00" * 32)).then(uploaded(2, "00" * 32))


def test_earlier_bytes_that_come_back_are_a_new_revision() -> None:
    given(uploaded(), uploaded(2, "00" * 32)).when(register_dataset()).then(uploaded(3))


@pytest.mark.parametrize(
    ("path", "inside"),
    [("/a/b", True), ("/a/b/c", True), ("/a/bc", False), ("/a", False), ("/", False)],
)
def test_a_path_is_in_a_folder_only_by_whole_parts(path: str, *, inside: bool) -> None:
    assert is_within(path, "/a/b") is inside
    assert is_within(path, "/")
