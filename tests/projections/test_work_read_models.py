"""What is shown of work on a trained model while it goes on, and of what came of it."""

import msgspec
from support.scenario import (
    EXITED,
    JOB,
    SAVED,
    attempt_spawned,
    launching,
    records_of,
    registered,
    requested,
    spec,
    step,
)

from modelforge.domain import job, model
from modelforge.domain.messages import Message
from modelforge.projections.jobs import JobDetails
from modelforge.projections.read_models import ReadModels
from trainer_entry import wire

PUSH = wire.Push(model_id=7, name="cook", path="/data/models/train_000099", repo_id="me/cook")
MERGE = wire.Merge(model_id=7, name="cook", path="/data/models/train_000099")
PUSHED = wire.Pushed(
    url="https://hub/me/cook", repo_id="me/cook", commit="c0ffee", private=True, files=3, size_bytes=400
)
BEGUN = wire.WorkPlanned(
    attempt=1,
    seq=1,
    total_steps=400,
    unit="bytes",
    environment=wire.Environment(python="3.11.7", platform="Linux", device="cpu", versions={}),
)


def begun(work: wire.Merge | wire.Push) -> tuple[Message, ...]:
    asked = job.TrainingRequested(job_id=JOB, spec=msgspec.structs.replace(spec(), work=work), queued=False)
    started = job.WorkStarted(job_id=JOB, attempt=1, seq=1, offset=100, report=BEGUN)
    done = step(2, 100, epoch=0.0, total_steps=400, loss=None)
    logged = job.MetricsLogged(job_id=JOB, attempt=1, seq=2, offset=200, steps=(done,))
    return asked, launching(), attempt_spawned(), started, logged


def after(*past: Message) -> ReadModels:
    read_models = ReadModels()
    for record in records_of(*past):
        read_models.apply(record)
    return read_models


def shown(*past: Message) -> JobDetails:
    return after(*past).jobs[JOB]


def test_work_shows_how_much_is_done_in_its_own_unit_and_no_epochs() -> None:
    now = shown(*begun(PUSH))
    assert (now.status, now.kind, now.source_model_id) == ("training", "push", 7)
    assert (now.current_step, now.total_steps, now.unit, now.progress) == (100, 400, "bytes", 25.0)
    assert (now.current_epoch, now.total_epochs, now.loss) == (None, None, None)


def test_what_was_delivered_is_shown_and_no_model() -> None:
    exited = job.AttemptExited(job_id=JOB, attempt=1, exit=EXITED)
    completed = job.TrainingCompleted(job_id=JOB, model=None, step=400, delivery=PUSHED)
    now = shown(*begun(PUSH), exited, completed)
    assert (now.status, now.progress, now.delivery, now.model_id) == ("completed", 100.0, PUSHED, None)
    assert msgspec.json.decode(msgspec.json.encode(now), type=JobDetails) == now  # as a snapshot keeps it


def test_the_figures_of_an_evaluation_stand_beside_those_of_its_model() -> None:
    records = spec().dataset
    work = wire.Evaluate(
        model_id=1, name="cook", path=SAVED.path, dataset=records, parameters=wire.TrainingParameters(), adapts=True
    )
    trained = (requested("train_000050"), launching("train_000050"), registered(job_id="train_000050"))
    asked = job.TrainingRequested(job_id=JOB, spec=msgspec.structs.replace(spec(), work=work), queued=False)
    judged = wire.Judged(records=12, metrics={"eval_loss": 0.5})
    exited = job.AttemptExited(job_id=JOB, attempt=1, exit=EXITED)
    completed = job.TrainingCompleted(job_id=JOB, model=None, step=4, delivery=judged)
    read_models = after(*trained, asked, launching(), attempt_spawned(), exited, completed)
    assert (read_models.jobs[JOB].kind, read_models.jobs[JOB].delivery) == ("evaluation", judged)
    (evaluation,) = read_models.models[1].evaluations
    assert (evaluation.job_id, evaluation.metrics, evaluation.records) == (JOB, {"eval_loss": 0.5}, 12)
    assert evaluation.dataset.sha256 == records.sha256
    read_models.deleted[records.path.rpartition("/")[2]] = "2026-01-01T00:00:00Z"
    shown_now = read_models.model(1)
    assert shown_now is not None
    assert [one.dataset.deleted_at for one in shown_now.evaluations] == ["2026-01-01T00:00:00Z"]
    gone = after(*trained, asked, launching(), model.ModelDeleted(model_id=1, path=SAVED.path), exited, completed)
    assert gone.models == {}


def test_a_merged_model_names_the_adapter_that_it_came_from() -> None:
    merged = msgspec.structs.replace(SAVED, kind="full")
    made = msgspec.structs.replace(spec(), work=MERGE)
    registered = model.ModelRegistered(model_id=8, name="cook", spec=made, parameters=made.parameters, model=merged)
    read_models = after(*begun(MERGE), registered)
    assert (read_models.models[8].merged_from, read_models.models[8].kind) == (7, "full")
    assert read_models.jobs[JOB].model_id == 8
