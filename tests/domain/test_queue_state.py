"""Who may train when: places, GPUs, the queue, restarts, and checkpoints on request."""

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st
from support.scenario import (
    EXITED,
    JOB,
    OTHER_JOB,
    attempt_spawned,
    ended,
    exit_report,
    failed,
    given,
    gone,
    launching,
    requested,
    spec,
    start,
    step,
    stopped,
    training_started,
)
from support.scenario import logged as logged_at

from modelforge.domain import job
from modelforge.domain.failure_causes import LOST_POWER, Cause
from modelforge.domain.scheduling import Machine
from modelforge.errors import Conflict, NotFound
from trainer_entry import wire

THIRD = "train_000007"
TWO_SLOTS = Machine(slots=2)
TWO_GPUS = Machine(slots=2, gpus=("0", "1"))
CHECKPOINT = "/data/checkpoint-7"
KILLED = exit_report(code=None, signal=9)
STARTED = (launching(), attempt_spawned(), training_started())
EXITED_EVENT = job.AttemptExited(job_id=JOB, attempt=1, exit=EXITED)
STOPPED = job.TrainingStopped(job_id=JOB, checkpoint=None)


# ---- places and GPUs ----


def test_as_many_jobs_run_as_there_are_places() -> None:
    given(requested(), *STARTED, machine=TWO_SLOTS).when(start(OTHER_JOB)).then(
        requested(OTHER_JOB), launching(OTHER_JOB)
    )
    full = given(requested(), *STARTED, requested(OTHER_JOB), launching(OTHER_JOB), machine=TWO_SLOTS)
    full.when(start(THIRD)).then_refused(Conflict, f"{JOB} is training")
    full.when(start(THIRD, queue=True)).then(requested(THIRD, queued=True))


def test_each_job_has_a_gpu_of_its_own_until_it_ends() -> None:
    first = (requested(), launching(gpus=("0",)))
    given(machine=TWO_GPUS).when(start()).then(*first)
    second = (requested(OTHER_JOB), launching(OTHER_JOB, gpus=("1",)))
    given(*first, machine=TWO_GPUS).when(start(OTHER_JOB)).then(*second)
    given(*first, *second, EXITED_EVENT, STOPPED, machine=TWO_GPUS).when(start(THIRD)).then(
        requested(THIRD), launching(THIRD, gpus=("0",))
    )


def test_a_job_of_two_processes_waits_for_two_gpus_and_nobody_overtakes_it() -> None:
    past = (requested(), launching(gpus=("0",)))
    waits = requested(OTHER_JOB, queued=True, num_processes=2)
    given(*past, machine=TWO_GPUS).when(start(OTHER_JOB, queue=True, num_processes=2)).then(waits)
    waiting = given(*past, waits, machine=TWO_GPUS)
    waiting.when(job.LaunchNext()).then()
    waiting.when(start(THIRD)).then_refused(Conflict, f"{JOB} is starting")
    free = given(*past, waits, EXITED_EVENT, STOPPED, machine=TWO_GPUS)
    free.when(job.LaunchNext()).then(launching(OTHER_JOB, gpus=("0", "1")))


def test_a_job_of_more_processes_than_gpus_takes_them_all() -> None:
    given(machine=TWO_GPUS).when(start(num_processes=4)).then(requested(num_processes=4), launching(gpus=("0", "1")))


def test_all_who_fit_are_launched_at_once() -> None:
    past = (requested(), launching(), requested(OTHER_JOB, queued=True), requested(THIRD, queued=True))
    given(*past, EXITED_EVENT, STOPPED, machine=TWO_SLOTS).when(job.LaunchNext()).then(
        launching(OTHER_JOB), launching(THIRD)
    )


@forall(
    st.integers(1, 4),
    st.integers(0, 4),
    st.lists(st.integers(1, 5), max_size=8),
    st.lists(st.integers(0, 7), max_size=8),
)
def test_no_gpu_is_leased_twice_and_no_place_taken_twice(
    slots: int, gpus: int, wanted: list[int], ends: list[int]
) -> None:
    machine = Machine(slots=slots, gpus=tuple(str(number) for number in range(gpus)))
    taken: list[tuple[str, ...]] = []
    for number, end in zip(wanted, [*ends, *[None] * len(wanted)], strict=False):
        lease = machine.lease(spec(num_processes=number), tuple(taken))
        if lease is None:
            assert len(taken) == slots or gpus - sum(map(len, taken)) < min(number, gpus)
        else:
            assert len(lease) == min(number, gpus)
            taken.append(lease)
        leased = [gpu for one in taken for gpu in one]
        assert len(leased) == len(set(leased))
        assert len(taken) <= slots
        if end is not None and end < len(taken):
            del taken[end]


def test_the_first_of_those_that_run_is_the_current_one() -> None:
    past = given(requested(), *STARTED, requested(OTHER_JOB), launching(OTHER_JOB), machine=TWO_SLOTS)
    assert past.state.running == (JOB, OTHER_JOB)


# ---- restarts ----


def fails(*, restarts: int = 1, kind: str = "Killed") -> job.AttemptFailed:
    """An attempt that failed and is made again."""
    return job.AttemptFailed(job_id=JOB, attempt=restarts, kind=kind, message="…")


def test_a_killed_attempt_is_made_again_from_the_newest_checkpoint_on_the_same_gpu() -> None:
    past = (requested(max_restarts=1), launching(gpus=("1",)), attempt_spawned(), training_started())
    exited, failure, again = given(*past, machine=TWO_GPUS).when(gone(exit_report=KILLED, checkpoint=CHECKPOINT)).events
    assert exited == job.AttemptExited(job_id=JOB, attempt=1, exit=KILLED)
    assert isinstance(failure, job.AttemptFailed)
    assert failure.kind == "Killed"
    assert again == launching(attempt=2, resume_from=CHECKPOINT, gpus=("1",))


def test_restarts_come_to_an_end_and_a_resume_has_them_anew() -> None:
    past = (requested(max_restarts=1), *STARTED, fails(), launching(attempt=2))
    killed_again = given(*past).when(gone(attempt=2, exit_report=KILLED)).events
    assert isinstance(killed_again[-1], job.TrainingFailed)
    resumed = (*past, *killed_again, launching(attempt=3))
    assert given(*resumed).when(gone(attempt=3, exit_report=KILLED)).events[-1] == launching(attempt=4)


@pytest.mark.parametrize("kind", ["OutOfMemory", "DiskFull", "LaunchFailed"])
def test_what_another_try_would_meet_again_is_not_tried_again(kind: str) -> None:
    cause = Cause(kind=kind, message="…")
    assert isinstance(given(requested(max_restarts=3), *STARTED).when(gone(cause=cause)).events[-1], job.TrainingFailed)


def test_an_exception_is_not_tried_again() -> None:
    past = (requested(max_restarts=3), *STARTED, ended(failed(2)))
    assert isinstance(given(*past).when(gone()).events[-1], job.TrainingFailed)


def test_a_job_that_is_to_stop_is_not_tried_again() -> None:
    past = (requested(max_restarts=3), *STARTED, job.StopRequested(job_id=JOB, attempt=1))
    assert given(*past).when(gone(exit_report=KILLED)).events[-1] == STOPPED


def test_an_attempt_that_somebody_else_ended_is_made_again_and_otherwise_failed() -> None:
    past = (*STARTED, ended(stopped(2)))
    assert given(requested(max_restarts=1), *past).when(gone(checkpoint=CHECKPOINT)).events[-1] == launching(
        attempt=2, resume_from=CHECKPOINT
    )
    failure = given(requested(), *past).when(gone()).events[-1]
    assert isinstance(failure, job.TrainingFailed)
    assert failure.kind == "Interrupted"


@pytest.mark.parametrize(
    ("had", "machine", "gets"),
    [
        (("1",), TWO_GPUS, ("1",)),
        (("4",), TWO_GPUS, ("0",)),
        ((), TWO_GPUS, ("0",)),
        (("1",), TWO_SLOTS, ()),
        (("1",), Machine(slots=1, gpus=("1", "2")), ("1",)),
    ],
    ids=["the same", "gone", "new", "none any more", "fewer places"],
)
def test_the_next_attempt_has_gpus_that_this_machine_has(
    had: tuple[str, ...], machine: Machine, gets: tuple[str, ...]
) -> None:
    past = (requested(max_restarts=1), launching(gpus=had))
    spawned = (*past, attempt_spawned())
    assert given(*spawned, machine=machine).when(gone(exit_report=KILLED)).events[-1] == launching(attempt=2, gpus=gets)
    given(*past, machine=machine).when(job.Relaunch(job_id=JOB, attempt=1)).then(launching(attempt=2, gpus=gets))


def test_no_attempt_is_given_a_gpu_of_another_job() -> None:
    other = (requested(OTHER_JOB), launching(OTHER_JOB, gpus=("0",)))
    past = (requested(max_restarts=1), launching(gpus=("4",)), *other)
    given(*past, machine=TWO_GPUS).when(job.Relaunch(job_id=JOB, attempt=1)).then(launching(attempt=2, gpus=("1",)))


def test_a_machine_that_lost_power_tries_again_where_that_was_asked_for() -> None:
    past = given(requested(max_restarts=1), *STARTED)
    assert past.when(gone(exit_report=None, cause=LOST_POWER)).events[-1] == launching(attempt=2)


# ---- checkpoints on request ----

ASKED = job.CheckpointRequested(job_id=JOB, attempt=1)


def test_a_training_is_asked_for_a_checkpoint_once_until_it_is_saved() -> None:
    save = job.SaveCheckpoint(job_id=JOB)
    given(requested(), *STARTED).when(save).then(ASKED)
    given(requested(), *STARTED, ASKED, logged_at(step(2))).when(save).then()
    saved = job.CheckpointSaved(job_id=JOB, attempt=1, seq=2, offset=200, step=1, path=CHECKPOINT)
    given(requested(), *STARTED, ASKED, saved).when(save).then(ASKED)


@pytest.mark.parametrize(
    ("past", "words"),
    [
        ((requested(queued=True),), "queued"),
        ((requested(), launching()), "starting"),
        ((requested(), *STARTED, job.StopRequested(job_id=JOB, attempt=1)), "stopping"),
        ((requested(), *STARTED, ended(failed(2))), "ending"),
        ((requested(), *STARTED, EXITED_EVENT, STOPPED), "stopped"),
    ],
    ids=["queued", "starting", "stopping", "ending", "stopped"],
)
def test_where_no_step_is_made_there_is_nothing_to_save(past: tuple[job.Event, ...], words: str) -> None:
    given(*past).when(job.SaveCheckpoint(job_id=JOB)).then_refused(Conflict, f"{JOB} is {words}")


@pytest.mark.parametrize("phase", ["evaluating", "saving"])
def test_after_the_last_step_no_checkpoint_is_promised(phase: wire.Phase) -> None:
    entered = job.PhaseEntered(job_id=JOB, attempt=1, seq=2, offset=200, phase=phase)
    given(requested(), *STARTED, entered).when(job.SaveCheckpoint(job_id=JOB)).then_refused(Conflict, "ending")


def test_an_unknown_job_has_no_checkpoint() -> None:
    given().when(job.SaveCheckpoint(job_id="train_9")).then_refused(NotFound, "train_9")
