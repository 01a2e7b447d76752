"""Attempts that are handed over to a cluster, and wait there for their start."""

import msgspec
import pytest
from support.scenario import (
    JOB,
    NOON,
    OTHER_JOB,
    PROCESS,
    SLURM_JOB,
    attempt_spawned,
    attempt_submitted,
    checkpoint,
    exit_report,
    failed,
    finished,
    given,
    gone,
    launching,
    lines,
    records_of,
    requested,
    spawned,
    spec,
    start,
    started,
    stopped,
    submitted,
)

from modelforge.domain import job, policy
from modelforge.domain.decisions import stamp
from modelforge.domain.failure_causes import LOST_POWER, Cause
from modelforge.domain.job import LastWord
from modelforge.domain.messages import Event, decode
from modelforge.domain.scheduling import Cluster, Machine
from modelforge.errors import Conflict
from modelforge.projections.jobs import JobDetails
from modelforge.projections.read_models import ReadModels
from trainer_entry import wire

CLUSTER = Cluster(server=Machine(slots=1, gpus=("0",), cpu_threads=8), cpu_threads=4)
HANDED_OVER = (requested(), launching(), attempt_submitted())
RESOURCES = job.AttemptWaits(job_id=JOB, attempt=1, reason="Resources")
STARTED = job.AttemptSpawned(job_id=JOB, attempt=1, reference=SLURM_JOB)
STOP = job.StopRequested(job_id=JOB, attempt=1)
PREEMPTED = Cause(kind="Preempted", message="Another job took its place.")
MERGE = wire.Merge(model_id=1, name="cook", path="/data/models/x")


def details(*past: Event, minutes: int = 1) -> JobDetails:
    """The job as it is shown, each record so many minutes after the one before."""
    models = ReadModels()
    for record in records_of(*past):
        models.apply(msgspec.structs.replace(record, at=NOON + record.position * minutes * 60_000_000))
    return models.jobs[JOB]


def merge(job_id: str, *, queued: bool = False) -> job.TrainingRequested:
    return job.TrainingRequested(job_id=job_id, spec=msgspec.structs.replace(spec(job_id), work=MERGE), queued=queued)


# ---- handed over, waiting, started ----


def test_a_process_of_the_servers_machine_has_started_once_it_is_known() -> None:
    given(requested(), launching()).when(spawned()).then(attempt_spawned())


def test_what_a_cluster_has_was_handed_over_and_has_not_started() -> None:
    given(requested(), launching()).when(submitted()).then(attempt_submitted())
    assert given(*HANDED_OVER).state.jobs[JOB].status == "queued"


def test_an_attempt_is_handed_over_once() -> None:
    given(*HANDED_OVER).when(submitted()).then()
    given(*HANDED_OVER).when(job.Relaunch(job_id=JOB, attempt=1)).then()


def test_why_an_attempt_waits_is_recorded_when_it_changes() -> None:
    report = job.ReportWaits(job_id=JOB, attempt=1, reason="Resources")
    given(*HANDED_OVER).when(report).then(RESOURCES)
    given(*HANDED_OVER, RESOURCES).when(report).then()
    priority = msgspec.structs.replace(report, reason="Priority")
    given(*HANDED_OVER, RESOURCES).when(priority).then(msgspec.structs.replace(RESOURCES, reason="Priority"))


@pytest.mark.parametrize("since", [(STARTED,), (STOP,)])
def test_why_it_waited_is_nothing_once_it_has_started_or_is_to_end(since: tuple[Event, ...]) -> None:
    given(*HANDED_OVER, *since).when(job.ReportWaits(job_id=JOB, attempt=1, reason="Priority")).then()


def test_its_start_is_recorded_once() -> None:
    report = job.ReportSpawned(job_id=JOB, attempt=1)
    given(*HANDED_OVER, RESOURCES).when(report).then(STARTED)
    given(*HANDED_OVER, STARTED).when(report).then()
    assert given(*HANDED_OVER, STARTED).state.jobs[JOB].status == "starting"


def test_older_records_of_a_process_lead_to_the_same() -> None:
    shim = wire.ShimReport(pid=PROCESS.pid, start_time=PROCESS.start_time, boot_id=PROCESS.boot_id, token=PROCESS.token)
    older = decode("event", msgspec.json.encode({"type": "AttemptSpawned", "job_id": JOB, "attempt": 1, "shim": shim}))
    assert isinstance(older, job.AttemptSpawned)
    assert given(requested(), launching(), older).state.jobs == given(*launched()).state.jobs


def launched() -> tuple[Event, ...]:
    return requested(), launching(), attempt_spawned()


# ---- as it is shown ----


def test_a_waiting_attempt_is_shown_as_queued_with_the_reason_until_it_starts() -> None:
    shown = details(*HANDED_OVER)
    assert (shown.status, shown.waiting_for, shown.started_at) == ("queued", None, None)
    shown = details(*HANDED_OVER, RESOURCES)
    assert (shown.status, shown.waiting_for) == ("queued", "Resources")
    shown = details(*HANDED_OVER, RESOURCES, STARTED)
    assert (shown.status, shown.waiting_for) == ("starting", None)
    assert shown.started_at == shown.attempt_started_at == "2025-06-15T15:11:40Z"


def test_the_time_in_which_an_attempt_waited_is_not_counted_as_run() -> None:
    died = job.AttemptFailed(job_id=JOB, attempt=1, kind="NodeFailed", message="…")
    again = (died, launching(attempt=2), attempt_submitted(attempt=2))
    shown = details(*HANDED_OVER, STARTED, *again, RESOURCES)
    assert (shown.ran_seconds, shown.attempt_started_at) == (120, None)
    assert shown.started_at == "2025-06-15T15:10:40Z"
    ended = job.TrainingStopped(job_id=JOB, checkpoint=None)
    assert details(*HANDED_OVER, STARTED, *again, ended, launching(attempt=3)).ran_seconds == 120


def test_the_status_is_of_a_job_that_has_started_where_one_has_and_a_stop_without_a_name_is_for_that() -> None:
    past = (*HANDED_OVER, requested(OTHER_JOB), launching(OTHER_JOB), attempt_submitted(OTHER_JOB))
    assert shown_and_stopped(*past) == {JOB}
    assert shown_and_stopped(*past, msgspec.structs.replace(STARTED, job_id=OTHER_JOB)) == {OTHER_JOB}


def shown_and_stopped(*past: Event) -> set[str | None]:
    models = ReadModels()
    for record in records_of(*past):
        models.apply(record)
    command = stamp(given(*past).state, job.StopTraining())
    assert isinstance(command, job.StopTraining)
    return {models.status().job_id, command.job_id}


def test_an_attempt_that_ended_waits_for_nothing() -> None:
    exited = job.AttemptExited(job_id=JOB, attempt=1, exit=None)
    assert details(*HANDED_OVER, RESOURCES, exited).waiting_for is None
    assert details(*HANDED_OVER, RESOURCES, STOP).status == "stopping"


# ---- a stop ----


@pytest.mark.parametrize("command", [job.StopTraining(job_id=JOB), job.CancelTraining(job_id=JOB)])
def test_a_waiting_attempt_is_asked_to_end_by_who_has_it(command: job.StopTraining | job.CancelTraining) -> None:
    given(*HANDED_OVER, RESOURCES).when(command).then(STOP)


def test_a_second_stop_of_a_waiting_attempt_changes_nothing() -> None:
    given(*HANDED_OVER, STOP).when(job.StopTraining(job_id=JOB)).then()
    given(*HANDED_OVER, STOP).when(job.CancelTraining(job_id=JOB)).then_refused(Conflict, "does not wait")


def test_a_waiting_attempt_that_was_stopped_ends_without_a_trainer() -> None:
    _, ended = given(*HANDED_OVER, STOP).when(gone(exit_report=None, cause=PREEMPTED)).events
    assert ended == job.TrainingStopped(job_id=JOB, checkpoint=None)


def test_a_stop_that_came_before_it_was_handed_over_holds() -> None:
    past = given(requested(), launching(), STOP, attempt_submitted())
    assert past.state.jobs[JOB].status == "stopping"


def test_what_waits_has_no_step_to_save() -> None:
    given(*HANDED_OVER).when(job.SaveCheckpoint(job_id=JOB)).then_refused(Conflict, "is queued")


# ---- a restart of the server ----


@pytest.mark.parametrize("past", [HANDED_OVER, (*HANDED_OVER, RESOURCES), (*HANDED_OVER, STARTED)])
def test_a_server_that_starts_takes_up_what_was_handed_over(past: tuple[Event, ...]) -> None:
    assert policy.resume(given(*past).state) == [policy.Follow(job_id=JOB, attempt=1)]


def test_a_server_that_starts_stops_again_what_waits_and_was_to_be_stopped() -> None:
    follow, signal = policy.resume(given(*HANDED_OVER, STOP).state)
    assert (follow, signal) == (policy.Follow(job_id=JOB, attempt=1), policy.Signal(job_id=JOB, attempt=1))


# ---- how it ended ----


def past_with(word: LastWord | None, *, max_restarts: int = 1) -> tuple[Event, ...]:
    said: list[Event] = [requested(max_restarts=max_restarts), launching(), attempt_submitted(), STARTED]
    heard = (started(), checkpoint(2)) if word is None else (started(), checkpoint(2), word)
    return (*said, *given(*said).when(lines(300, *heard)).events)


@pytest.mark.parametrize("kind", ["Preempted", "TimeLimit", "NodeFailed"])
@pytest.mark.parametrize("word", [None, stopped(3), failed(3)], ids=["killed", "in its grace", "by an exception"])
def test_what_a_cluster_ended_goes_on_from_its_checkpoint(kind: str, word: LastWord | None) -> None:
    report = gone(cause=Cause(kind=kind, message="The cluster says so."), checkpoint="/data/checkpoint-2")
    _, failure, again = given(*past_with(word)).when(report).events
    assert isinstance(failure, job.AttemptFailed)
    assert (failure.kind, failure.message[:20]) == (kind, "The cluster says so.")
    assert again == launching(attempt=2, resume_from="/data/checkpoint-2")


def test_a_cluster_ends_a_job_for_good_where_no_restart_is_left() -> None:
    failure = given(*past_with(stopped(3), max_restarts=0)).when(gone(cause=PREEMPTED)).events[-1]
    expected = job.TrainingFailed(job_id=JOB, kind="Preempted", message=f"{PREEMPTED.message} It ended at step 7.")
    assert failure == expected


def test_too_little_memory_on_a_node_is_not_tried_again() -> None:
    cause = Cause(kind="OutOfMemory", message="Its memory limit was reached.")
    failure = given(*past_with(failed(3))).when(gone(cause=cause)).events[-1]
    assert failure == job.TrainingFailed(job_id=JOB, kind="OutOfMemory", message=cause.message)


def test_a_trainer_that_had_finished_is_complete_whatever_a_cluster_says() -> None:
    assert any(
        isinstance(event, job.TrainingCompleted)
        for event in given(*past_with(finished(3))).when(gone(cause=PREEMPTED)).events
    )


def test_what_the_trainer_said_counts_more_than_a_machine_that_was_started_anew() -> None:
    failure = given(*past_with(failed(3))).when(gone(exit_report=None, cause=LOST_POWER)).events[-1]
    assert isinstance(failure, job.TrainingFailed)
    assert failure.kind == failed(3).kind


def test_an_attempt_that_ended_before_its_start_is_tried_again_by_its_cause() -> None:
    past = (requested(max_restarts=1), launching(), attempt_submitted())
    assert given(*past).when(gone(exit_report=None, cause=PREEMPTED)).events[-1] == launching(attempt=2)
    killed = given(*past).when(gone(exit_report=exit_report(code=None, signal=9)))
    assert killed.events[-1] == launching(attempt=2)


# ---- whose turn it is ----


def test_a_cluster_takes_every_training_at_once_and_leases_nothing() -> None:
    busy = given(*HANDED_OVER, requested(OTHER_JOB), launching(OTHER_JOB), machine=CLUSTER)
    third = "train_000009"
    busy.when(start(third, num_processes=4)).then(requested(third, num_processes=4), launching(third))


def test_an_attempt_for_a_cluster_has_its_processors_and_no_gpu_by_name() -> None:
    (record,) = records_of(launching())
    (launch,) = policy.react(record, given(requested()).state, CLUSTER)
    assert isinstance(launch, policy.Launch)
    assert (launch.gpus, launch.cpu_threads) == (None, 4)


def test_other_work_waits_for_room_on_the_servers_machine_and_holds_up_no_training() -> None:
    merging = (merge(JOB), launching())
    waits = job.StartTraining(spec=msgspec.structs.replace(spec(OTHER_JOB), work=MERGE), queue=True)
    given(*merging, machine=CLUSTER).when(waits).then(merge(OTHER_JOB, queued=True))
    third = "train_000009"
    past = given(*merging, merge(OTHER_JOB, queued=True), machine=CLUSTER)
    past.when(start(third)).then(requested(third), launching(third))
    past.when(job.LaunchNext()).then()


def test_the_servers_machine_has_room_whatever_a_cluster_runs() -> None:
    past = given(*HANDED_OVER, merge(OTHER_JOB, queued=True), machine=CLUSTER)
    past.when(job.LaunchNext()).then(launching(OTHER_JOB))
    (record,) = records_of(launching(OTHER_JOB))
    (launch,) = policy.react(record, past.state, CLUSTER)
    assert isinstance(launch, policy.Launch)
    assert (launch.gpus, launch.cpu_threads) == ((), 8)


def test_trainings_that_waited_for_a_machine_overtake_work_that_still_does_once_there_is_a_cluster() -> None:
    third = "train_000009"
    past = (merge(JOB), launching(), merge(OTHER_JOB, queued=True), requested(third, queued=True))
    given(*past, machine=CLUSTER).when(job.LaunchNext()).then(launching(third))
    given(*past).when(job.LaunchNext()).then()


def test_the_next_attempt_on_a_cluster_has_no_lease() -> None:
    past = (requested(max_restarts=1), launching(gpus=("0",)), attempt_spawned())
    died = gone(exit_report=exit_report(code=None, signal=9))
    assert given(*past, machine=CLUSTER).when(died).events[-1] == launching(attempt=2)
