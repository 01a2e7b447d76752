"""What is decided about work on a trained model: merge, export, push."""

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
    lines,
    registered,
    requested,
    spec,
    start,
    step,
    stopped,
    training_started,
)

from modelforge.domain import job, model
from modelforge.domain.decisions import stamp
from modelforge.domain.scheduling import Machine
from modelforge.errors import Conflict, NotFound
from trainer_entry import wire

ADAPTER = {"model_id": 1, "name": "my-base-finetuned", "path": SAVED.path}
MERGE = wire.Merge(**ADAPTER)  # type: ignore[arg-type]
EXPORT = wire.Export(**ADAPTER, format="tar")  # type: ignore[arg-type]
MERGED_EXPORT = wire.Export(**ADAPTER, format="gguf", quantization="f16", merges=True)  # type: ignore[arg-type]
PUSH = wire.Push(**ADAPTER, repo_id="me/cook")  # type: ignore[arg-type]
EVALUATE = wire.Evaluate(**ADAPTER, dataset=spec().dataset, parameters=wire.TrainingParameters(), adapts=True)  # type: ignore[arg-type]
WORK = [MERGE, EXPORT, MERGED_EXPORT, PUSH]
TRAINED = (
    requested(),
    launching(),
    attempt_spawned(),
    training_started(),
    ended(finished(2)),
    job.AttemptExited(job_id=JOB, attempt=1, exit=EXITED),
    job.TrainingCompleted(job_id=JOB, model=SAVED, step=225),
    registered(),
)
BEGUN = wire.WorkPlanned(
    attempt=1,
    seq=1,
    total_steps=14,
    unit="layers",
    environment=wire.Environment(python="3.11.7", platform="Linux", device="cpu", versions={}),
)
MERGED = wire.SavedModel(path=f"/data/models/{OTHER_JOB}", kind="full", size_bytes=9, metrics=SAVED.metrics)
EXPORTED = wire.Exported(path="/data/exports/it.tar", format="tar", files=3, size_bytes=9, sha256="00" * 32)
DELETED = model.ModelDeleted(model_id=1, path=SAVED.path)


def asked(work: wire.Merge | wire.Export | wire.Push, *, queued: bool = False) -> job.TrainingRequested:
    return job.TrainingRequested(job_id=OTHER_JOB, spec=spec_of(work), queued=queued)


def spec_of(work: wire.Merge | wire.Export | wire.Push) -> wire.JobSpec:
    return msgspec.structs.replace(spec(OTHER_JOB), work=work, output_name="cook")


def under_way(work: wire.Merge | wire.Export | wire.Push) -> tuple[job.Event, ...]:
    begun = job.WorkStarted(job_id=OTHER_JOB, attempt=1, seq=1, offset=100, report=BEGUN)
    return asked(work), launching(OTHER_JOB), attempt_spawned(OTHER_JOB), begun


def last_word(model: wire.SavedModel | None, delivery: wire.Exported | None = None) -> job.TrainerEnded:
    report = wire.TrainerFinished(attempt=1, seq=2, step=14, messages=2, model=model, delivery=delivery)
    return job.TrainerEnded(job_id=OTHER_JOB, attempt=1, seq=2, offset=200, report=report)


@pytest.mark.parametrize("work", WORK, ids=lambda work: type(work).__name__)
def test_work_on_a_model_is_launched_as_a_training_is(work: wire.Merge | wire.Export | wire.Push) -> None:
    command = msgspec.structs.replace(start(OTHER_JOB), spec=spec_of(work))
    given(*TRAINED).when(command).then(asked(work), launching(OTHER_JOB))


def test_work_needs_a_place_and_no_gpu() -> None:
    machine = Machine(slots=2, gpus=("0",))
    training = (requested("train_000050"), launching("train_000050", gpus=("0",)))
    command = msgspec.structs.replace(start(OTHER_JOB), spec=spec_of(MERGE))
    given(*TRAINED, *training, machine=machine).when(command).then(asked(MERGE), launching(OTHER_JOB))
    given(*TRAINED, *training).when(command).then_refused(Conflict, '"queue": true')


def test_work_that_began_is_under_way_and_its_progress_is_recorded() -> None:
    past = (asked(MERGE), launching(OTHER_JOB), attempt_spawned(OTHER_JOB))
    done = step(2, 7, total_steps=14, loss=None)
    given(*TRAINED, *past).when(lines(150, BEGUN, done, job_id=OTHER_JOB)).then(
        job.WorkStarted(job_id=OTHER_JOB, attempt=1, seq=1, offset=150, report=BEGUN),
        job.MetricsLogged(job_id=OTHER_JOB, attempt=1, seq=2, offset=150, steps=(done,)),
    )
    state = given(*TRAINED, *under_way(MERGE)).state
    assert state.jobs[OTHER_JOB].status == "training"


def test_a_merge_leaves_a_model_with_the_parameters_of_the_adapter() -> None:
    completed = job.TrainingCompleted(job_id=OTHER_JOB, model=MERGED, step=14)
    exited = job.AttemptExited(job_id=OTHER_JOB, attempt=1, exit=EXITED)
    made = spec_of(MERGE)
    given(*TRAINED, *under_way(MERGE), last_word(MERGED)).when(gone(OTHER_JOB)).then(
        exited,
        completed,
        model.ModelRegistered(model_id=2, name="cook", spec=made, parameters=made.parameters, model=MERGED),
    )


def test_an_export_leaves_no_model_but_what_it_delivered() -> None:
    _, completed = given(*TRAINED, *under_way(EXPORT), last_word(None, EXPORTED)).when(gone(OTHER_JOB)).events
    assert completed == job.TrainingCompleted(job_id=OTHER_JOB, model=None, step=14, delivery=EXPORTED)


@pytest.mark.parametrize("waits", [False, True], ids=["running", "waiting"])
@pytest.mark.parametrize("work", WORK, ids=lambda work: type(work).__name__)
def test_a_model_that_work_is_done_on_stays(work: wire.Merge | wire.Export | wire.Push, *, waits: bool) -> None:
    past = (
        (requested("train_000050"), launching("train_000050"), asked(work, queued=True)) if waits else under_way(work)
    )
    given(*TRAINED, *past).when(model.DeleteModel(model_id=1)).then_refused(Conflict, OTHER_JOB)


@pytest.mark.parametrize(("work", "holds"), [(MERGE, True), (EXPORT, False), (MERGED_EXPORT, True), (PUSH, False)])
def test_only_what_merges_holds_the_base_model(work: wire.Merge | wire.Export | wire.Push, *, holds: bool) -> None:
    elsewhere = msgspec.structs.replace(work, path="/elsewhere")
    on_adapter = msgspec.structs.replace(spec_of(elsewhere), model_path=SAVED.path)
    past = (job.TrainingRequested(job_id=OTHER_JOB, spec=on_adapter, queued=False), launching(OTHER_JOB))
    decision = given(*TRAINED, *past).when(model.DeleteModel(model_id=1))
    decision.then_refused(Conflict, OTHER_JOB) if holds else decision.then(DELETED)


@pytest.mark.parametrize("work", WORK, ids=lambda work: type(work).__name__)
def test_work_on_a_model_that_was_deleted_meanwhile_is_refused(work: wire.Merge | wire.Export | wire.Push) -> None:
    command = msgspec.structs.replace(start(OTHER_JOB), spec=spec_of(work))
    given(*TRAINED, DELETED).when(command).then_refused(NotFound, SAVED.path)


def test_work_has_no_checkpoints() -> None:
    given(*TRAINED, *under_way(PUSH)).when(job.SaveCheckpoint(job_id=OTHER_JOB)).then_refused(Conflict, "kind push")


def test_stopped_work_is_stopped_and_can_be_done_again() -> None:
    asked_to_stop = job.StopRequested(job_id=OTHER_JOB, attempt=1)
    word = job.TrainerEnded(job_id=OTHER_JOB, attempt=1, seq=2, offset=200, report=stopped(2, checkpoint=None))
    exited = job.AttemptExited(job_id=OTHER_JOB, attempt=1, exit=EXITED)
    end = job.TrainingStopped(job_id=OTHER_JOB, checkpoint=None)
    given(*TRAINED, *under_way(PUSH), asked_to_stop, word).when(gone(OTHER_JOB)).then(exited, end)
    given(*TRAINED, *under_way(PUSH), asked_to_stop, word, exited, end).when(job.ResumeTraining(job_id=OTHER_JOB)).then(
        launching(OTHER_JOB, attempt=2)
    )


def test_a_kill_for_want_of_memory_names_no_remedy_of_trainings() -> None:
    killed = msgspec.structs.replace(EXITED, code=None, signal=9, oom_kills=1)
    *_, failed = given(*TRAINED, *under_way(MERGE)).when(gone(OTHER_JOB, exit_report=killed)).events
    assert isinstance(failed, job.TrainingFailed)
    assert failed.kind == "OutOfMemory"
    assert "batch" not in failed.message


@pytest.mark.parametrize(
    ("work", "place"),
    [
        (MERGE, f"/data/{JOB}"),
        (wire.Export(**ADAPTER, format="folder"), f"/data/{JOB}"),  # type: ignore[arg-type]
        (EXPORT, f"/data/{JOB}.tar"),
        (MERGED_EXPORT, f"/data/{JOB}"),
        (wire.Export(**ADAPTER, format="zip"), f"/data/{JOB}.zip"),  # type: ignore[arg-type]
        (wire.Export(**ADAPTER, format="zip", to="/home/me/it"), "/home/me/it"),  # type: ignore[arg-type]
    ],
)
def test_what_is_made_has_a_place_of_the_jobs_own_or_the_one_asked_for(
    work: wire.Merge | wire.Export | wire.Push, place: str
) -> None:
    asked_for = msgspec.structs.replace(spec_of(work), output_dir="/data", job_id="")
    stamped = stamp(given().state, job.StartTraining(spec=asked_for))
    assert isinstance(stamped, job.StartTraining)
    assert stamped.spec.output_dir == place


@pytest.mark.parametrize(("adapts", "holds"), [(True, True), (False, False)])
def test_an_evaluation_holds_its_model_and_an_adapters_base(*, adapts: bool, holds: bool) -> None:
    work = msgspec.structs.replace(EVALUATE, adapts=adapts)
    asked_for = job.TrainingRequested(
        job_id=OTHER_JOB, spec=msgspec.structs.replace(spec_of(MERGE), work=work, model_path=SAVED.path), queued=False
    )
    other = msgspec.structs.replace(asked_for, spec=msgspec.structs.replace(asked_for.spec, work=work))
    given(*TRAINED, other, launching(OTHER_JOB)).when(model.DeleteModel(model_id=1)).then_refused(Conflict, OTHER_JOB)
    elsewhere = msgspec.structs.replace(work, path="/elsewhere")
    moved = msgspec.structs.replace(other, spec=msgspec.structs.replace(other.spec, work=elsewhere))
    past = given(*TRAINED, moved, launching(OTHER_JOB)).when(model.DeleteModel(model_id=1))
    if holds:
        past.then_refused(Conflict, OTHER_JOB)
    else:
        past.then(DELETED)


def test_an_evaluation_has_one_gpu_where_there_are_some() -> None:
    machine = Machine(slots=2, gpus=("0", "1"), cpu_threads=1)
    judging = msgspec.structs.replace(spec(OTHER_JOB), work=EVALUATE)
    assert machine.lease(judging, ()) == ("0",)
    assert machine.lease(judging, (("0",),)) == ("1",)
