"""What is decided about a job, from request to end."""

import msgspec
import pytest
from support.scenario import (
    EXITED,
    IN_EFFECT,
    JOB,
    OTHER_JOB,
    SAVED,
    attempt_spawned,
    bad_line,
    checkpoint,
    ended,
    exit_report,
    failed,
    finished,
    given,
    gone,
    launching,
    lines,
    logged,
    registered,
    requested,
    spawned,
    spec,
    start,
    started,
    step,
    stopped,
    training_started,
)

from modelforge.domain import job
from modelforge.domain.failure_causes import LESS, LOST_POWER, Cause
from modelforge.domain.messages import Event
from modelforge.errors import Conflict, NotFound
from trainer_entry import wire

STARTING = (requested(), launching())
SPAWNED = (*STARTING, attempt_spawned())
TRAINING = (*SPAWNED, training_started())
STOP_REQUESTED = job.StopRequested(job_id=JOB, attempt=1)
STOPPED = job.TrainingStopped(job_id=JOB, checkpoint=None)
EXITED_EVENT = job.AttemptExited(job_id=JOB, attempt=1, exit=EXITED)
COMPLETED = job.TrainingCompleted(job_id=JOB, model=SAVED, step=225)
WAITING = requested(OTHER_JOB, queued=True)


# ---- starting ----


def test_a_job_starts_at_once_where_nothing_runs() -> None:
    given().when(start()).then(requested(), launching())


def test_a_second_job_is_refused_while_one_is_active() -> None:
    given(*TRAINING).when(start(OTHER_JOB)).then_refused(Conflict, f"{JOB} is training")


def test_a_second_job_waits_if_it_was_asked_to() -> None:
    given(*TRAINING).when(start(OTHER_JOB, queue=True)).then(WAITING)


def test_a_queued_job_starts_at_once_where_nothing_runs() -> None:
    given().when(start(queue=True)).then(requested(), launching())


def test_a_new_job_does_not_overtake_one_that_waits() -> None:
    past = (*TRAINING, WAITING, EXITED_EVENT, COMPLETED)
    given(*past).when(start("train_000009")).then_refused(Conflict, f"{OTHER_JOB} is queued")
    given(*past).when(start("train_000009", queue=True)).then(requested("train_000009", queued=True))


def test_the_job_that_waited_longest_is_next() -> None:
    third = requested("train_000005", queued=True)
    given(*TRAINING, WAITING, third, EXITED_EVENT, COMPLETED).when(job.LaunchNext()).then(launching(OTHER_JOB))


def test_nothing_is_launched_beside_a_running_job() -> None:
    given(*TRAINING, WAITING).when(job.LaunchNext()).then()


def test_nothing_is_launched_where_nothing_waits() -> None:
    given().when(job.LaunchNext()).then()


def test_a_job_is_repeated_with_the_parameters_that_were_in_effect_under_a_new_id() -> None:
    again = job.again(spec(), IN_EFFECT)
    assert (again.rerun_of, again.parameters, again.dataset) == (JOB, IN_EFFECT, spec().dataset)
    roots = msgspec.structs.replace(again, output_dir="/data/models", checkpoint_dir="/data/jobs")
    stamped = job.stamp(job.StartTraining(spec=roots), OTHER_JOB)
    assert stamped.spec == msgspec.structs.replace(spec(OTHER_JOB), parameters=IN_EFFECT, rerun_of=JOB)


# ---- stopping ----


@pytest.mark.parametrize("past", [STARTING, SPAWNED, TRAINING], ids=["starting", "spawned", "training"])
def test_a_running_job_is_asked_to_stop(past: tuple[Event, ...]) -> None:
    given(*past).when(job.StopTraining(job_id=JOB)).then(STOP_REQUESTED)


def test_asking_twice_to_stop_changes_nothing() -> None:
    given(*TRAINING, STOP_REQUESTED).when(job.StopTraining(job_id=JOB)).then()


def test_a_job_that_waits_stops_at_once() -> None:
    outcome = job.TrainingStopped(job_id=OTHER_JOB, checkpoint=None)
    given(*TRAINING, WAITING).when(job.StopTraining(job_id=OTHER_JOB)).then(outcome)


def test_a_job_taken_out_of_the_queue_is_not_next() -> None:
    out = job.TrainingStopped(job_id=OTHER_JOB, checkpoint=None)
    past = given(*TRAINING, WAITING, out, EXITED_EVENT, COMPLETED)
    past.when(job.LaunchNext()).then()
    assert past.state.waiting == ()


def test_a_job_that_ended_cannot_be_stopped() -> None:
    past = given(*TRAINING, EXITED_EVENT, COMPLETED)
    past.when(job.StopTraining(job_id=JOB)).then_refused(Conflict, "is completed")


def test_an_unknown_job_cannot_be_stopped() -> None:
    given().when(job.StopTraining(job_id="train_9")).then_refused(NotFound, "train_9")


# ---- an attempt that was recorded and not spawned ----


def test_an_attempt_that_was_never_spawned_is_launched_anew() -> None:
    given(*STARTING).when(job.Relaunch(job_id=JOB, attempt=1)).then(launching(attempt=2))


def test_a_stop_that_came_before_the_spawn_ends_the_job() -> None:
    given(*STARTING, STOP_REQUESTED).when(job.Relaunch(job_id=JOB, attempt=1)).then(STOPPED)


@pytest.mark.parametrize(
    "past",
    [
        SPAWNED,
        TRAINING,
        (*STARTING, training_started()),
        (*SPAWNED, STOP_REQUESTED),
        (*STARTING, EXITED_EVENT, COMPLETED),
        (*STARTING, launching(attempt=2)),
        (requested(queued=True),),
        (),
    ],
    ids=["spawned", "training", "heard of", "stopping", "ended", "launched anew", "queued", "unknown"],
)
def test_nothing_else_is_launched_anew(past: tuple[Event, ...]) -> None:
    given(*past).when(job.Relaunch(job_id=JOB, attempt=1)).then()


def test_a_queued_job_is_no_attempt_to_launch_anew() -> None:
    given(requested(queued=True)).when(job.Relaunch(job_id=JOB, attempt=0)).then()


# ---- what the trainer says ----


def test_the_first_line_starts_the_training() -> None:
    given(*SPAWNED).when(lines(100, started(1))).then(training_started(seq=1, offset=100))


def test_the_steps_of_one_read_are_one_record() -> None:
    given(*TRAINING).when(lines(200, step(2), step(3))).then(logged(step(2), step(3), offset=200))


def test_other_messages_stand_between_the_steps_as_they_came() -> None:
    saved = job.CheckpointSaved(job_id=JOB, attempt=1, seq=3, offset=200, step=3, path="/data/checkpoint-3")
    given(*TRAINING).when(lines(200, step(2), checkpoint(3), step(4))).then(
        logged(step(2), offset=200), saved, logged(step(4), offset=200)
    )


def test_every_kind_of_message_is_a_fact_of_its_own() -> None:
    phase = wire.PhaseStarted(attempt=1, seq=1, phase="loading_model")
    evaluated = wire.Evaluated(attempt=1, seq=3, step=1, epoch=0.1, metrics={"eval_loss": 2.0})
    lost = wire.TrackerFailed(attempt=1, seq=5, tracker="wandb", message="no network")
    given(*SPAWNED).when(lines(300, phase, started(2), evaluated, checkpoint(4), lost, finished(6))).then(
        job.PhaseEntered(job_id=JOB, attempt=1, seq=1, offset=300, phase="loading_model"),
        training_started(seq=2, offset=300),
        job.EvaluationLogged(job_id=JOB, attempt=1, seq=3, offset=300, report=evaluated),
        job.CheckpointSaved(job_id=JOB, attempt=1, seq=4, offset=300, step=4, path="/data/checkpoint-4"),
        job.TrackerGivenUp(job_id=JOB, attempt=1, seq=5, offset=300, tracker="wandb", message="no network"),
        ended(finished(6), offset=300),
    )


def test_a_read_that_the_log_has_tells_nothing_new() -> None:
    given(*TRAINING, logged(step(2), offset=200)).when(lines(200, step(2))).then()


def test_a_read_that_overlaps_tells_only_what_is_new() -> None:
    past = given(*TRAINING, logged(step(2), step(3), offset=200))
    past.when(lines(260, step(2), step(3), step(4))).then(logged(step(4), offset=260))


def test_a_line_that_is_no_message_is_passed_over_once() -> None:
    first, second = bad_line(offset=100), bad_line(offset=200)
    told = job.LineQuarantined(job_id=JOB, attempt=1, offset=200, line=first)
    past = given(*TRAINING)
    past.when(lines(200, quarantined=(first,))).then(told)
    given(*TRAINING, told).when(lines(300, quarantined=(first, second))).then(
        job.LineQuarantined(job_id=JOB, attempt=1, offset=300, line=second)
    )


def test_reports_of_an_earlier_attempt_tell_nothing() -> None:
    past = given(*STARTING, launching(attempt=2))
    past.when(spawned()).then()
    past.when(lines(100, started(1))).then()
    past.when(gone()).then()


def test_a_message_of_another_attempt_is_not_taken_in() -> None:
    given(*STARTING).when(lines(100, started(1, attempt=2))).then()


def test_reports_of_an_unknown_job_tell_nothing() -> None:
    given().when(gone()).then()
    given().when(spawned()).then()


def test_an_attempt_is_spawned_once() -> None:
    given(*STARTING).when(spawned()).then(attempt_spawned())
    given(*SPAWNED).when(spawned()).then()


def test_training_that_starts_after_a_stop_is_still_stopping() -> None:
    assert given(*SPAWNED, STOP_REQUESTED, training_started()).state.jobs[JOB].status == "stopping"


# ---- the end ----


def test_a_finished_trainer_ends_the_job_only_when_its_processes_are_gone() -> None:
    past = given(*TRAINING, ended(finished(2)))
    assert past.state.running == (JOB,)
    past.when(gone()).then(EXITED_EVENT, COMPLETED, registered())


def test_a_job_that_ended_frees_the_machine() -> None:
    assert given(*TRAINING, ended(finished(2)), EXITED_EVENT, COMPLETED).state.running == ()


def test_a_stopped_trainer_leaves_its_checkpoint() -> None:
    given(*TRAINING, STOP_REQUESTED, ended(stopped(2))).when(gone()).then(
        EXITED_EVENT, job.TrainingStopped(job_id=JOB, checkpoint="/data/checkpoint-7")
    )


def test_a_trainer_that_finished_before_the_stop_reached_it_has_completed() -> None:
    given(*TRAINING, STOP_REQUESTED, ended(finished(2))).when(gone()).then(EXITED_EVENT, COMPLETED, registered())


def test_a_failed_trainer_says_why() -> None:
    given(*TRAINING, ended(failed(2))).when(gone()).then(
        EXITED_EVENT,
        job.TrainingFailed(job_id=JOB, kind="OutOfMemory", message=f"8 GiB asked for {LESS}", traceback="File …"),
    )


def test_a_stopped_job_without_a_last_word_has_no_checkpoint_of_its_own() -> None:
    given(*TRAINING, STOP_REQUESTED).when(gone()).then(EXITED_EVENT, STOPPED)


@pytest.mark.parametrize(
    ("exit_of", "kind", "words"),
    [
        (exit_report(code=None, signal=9), "Killed", "probably out of memory"),
        (exit_report(code=1, signal=9, oom_kills=1), "OutOfMemory", "it had reached 390 MiB"),
        (exit_report(code=None, signal=11), "Crashed", "signal 11"),
        (exit_report(code=1, signal=26), "ChatTemplateFails", "never ended"),
        (exit_report(code=3), "Crashed", "exit code 3"),
        (exit_report(code=0), "Crashed", "exit code 0 without a last word"),
        (None, "Killed", "supervising process was killed"),
    ],
)
def test_a_trainer_that_went_without_a_word_failed(exit_of: wire.ExitReport | None, kind: str, words: str) -> None:
    exited, failure = given(*TRAINING).when(gone(exit_report=exit_of, last_words="MemoryError")).events
    assert exited == job.AttemptExited(job_id=JOB, attempt=1, exit=exit_of)
    assert isinstance(failure, job.TrainingFailed)
    assert failure.kind == kind
    assert words in failure.message
    assert failure.message.endswith("Last lines of its log: MemoryError")


def test_an_attempt_that_could_not_be_spawned_failed_to_launch() -> None:
    cause = Cause(kind="LaunchFailed", message="The trainer could not be started: no accelerate")
    _, failure = given(*STARTING).when(gone(exit_report=None, cause=cause)).events
    assert failure == job.TrainingFailed(job_id=JOB, kind="LaunchFailed", message=cause.message)


def test_a_machine_that_was_started_anew_is_named_as_the_cause() -> None:
    _, failure = given(*TRAINING).when(gone(exit_report=None, cause=LOST_POWER)).events
    assert isinstance(failure, job.TrainingFailed)
    assert failure.kind == "LostPower"


def test_messages_that_never_arrived_are_counted() -> None:
    past = (*TRAINING, logged(step(3), step(5)), ended(finished(8)))
    exited, *_ = given(*past).when(gone()).events
    assert exited == job.AttemptExited(job_id=JOB, attempt=1, exit=EXITED, lost_messages=4)  # 2, 4, 6 and 7


def test_a_trainer_is_found_silent_once_until_it_speaks() -> None:
    silent = job.ReportSilence(job_id=JOB, attempt=1)
    stalled = job.AttemptStalled(job_id=JOB, attempt=1)
    given(*TRAINING).when(silent).then(stalled)
    given(*TRAINING, stalled).when(silent).then()
    given(*TRAINING, stalled, logged(step(2))).when(silent).then(stalled)
    given(*TRAINING, ended(finished(2))).when(silent).then()


def test_an_end_is_told_once() -> None:
    given(*TRAINING, ended(finished(2)), EXITED_EVENT, COMPLETED, registered()).when(gone()).then()


# ---- a log that is broken ----


def test_a_job_that_was_never_requested_has_no_history() -> None:
    with pytest.raises(ValueError, match="never requested"):
        given(launching())
