"""What the read models say after which records."""

import math
from typing import Any

import msgspec
import pytest
from support.scenario import (
    EXITED,
    IN_EFFECT,
    JOB,
    NOON,
    OTHER_JOB,
    PARAMETERS,
    SAVED,
    SHA256,
    attempt_spawned,
    bad_line,
    ended,
    finished,
    launching,
    logged,
    records_of,
    registered,
    requested,
    start,
    started,
    step,
    training_started,
    uploaded,
)

from modelforge.domain import dataset, job, model
from modelforge.domain.messages import Message
from modelforge.errors import LineError
from modelforge.fields import project_struct
from modelforge.http.metrics import Metric
from modelforge.projections.dataset_references import DatasetReference
from modelforge.projections.datasets import Upload, details_of
from modelforge.projections.jobs import JobDetails, JobError, TrainingStatus, evolve, iso
from modelforge.projections.read_models import ReadModels, models_of, state_of
from trainer_entry import wire

STARTING = (start(), requested(), launching())
TRAINING = (*STARTING, attempt_spawned(), training_started())
STOP_REQUESTED = job.StopRequested(job_id=JOB, attempt=1)
EXITED_EVENT = job.AttemptExited(job_id=JOB, attempt=1, exit=EXITED)
COMPLETED = job.TrainingCompleted(job_id=JOB, model=SAVED, step=225)
WAITING = requested(OTHER_JOB, queued=True)
FAILED = job.TrainingFailed(job_id=JOB, kind="Killed", message="probably out of memory")


def after(*messages: Message) -> ReadModels:
    read_models = ReadModels()
    for record in records_of(*messages):
        read_models.apply(record)
    return read_models


def status(*messages: Message) -> TrainingStatus:
    return after(*messages).status()


def details(*messages: Message) -> JobDetails:
    return after(*messages).jobs[JOB]


# ---- the status ----


def test_an_empty_log_is_idle() -> None:
    assert status() == TrainingStatus(status="idle")
    assert TrainingStatus(status="idle").progress == 0.0
    assert TrainingStatus(status="idle").job_id is None


def test_a_command_alone_changes_nothing_but_the_position() -> None:
    read_models = after(start())
    assert (read_models.position, read_models.jobs) == (1, {})


def test_a_job_is_queued_until_it_is_launched() -> None:
    assert status(requested(queued=True)).status == "queued"
    assert status(requested(queued=True)).current_step == 0
    assert status(*STARTING).status == "starting"


def test_a_running_job_tells_how_far_it_is() -> None:
    now = status(*TRAINING, logged(step(2, 75, epoch=1.0, loss=1.5)))
    assert (now.status, now.job_id) == ("training", JOB)
    assert (now.current_step, now.total_steps, now.progress) == (75, 225, 33.3)
    assert (now.current_epoch, now.total_epochs) == (1, 3)
    assert (now.loss, now.learning_rate, now.eta_seconds) == (1.5, 1e-4, 60.0)


def test_the_last_step_of_a_record_is_the_one_that_counts() -> None:
    assert status(*TRAINING, logged(step(2, 1), step(3, 2))).current_step == 2


@pytest.mark.parametrize(
    ("epoch", "current"), [(0.0, 1), (0.01, 1), (1.0, 1), (1.01, 2), (2.5, 3), (3.0, 3), (3.0000001, 3), (9.0, 3)]
)
def test_the_epoch_in_progress_is_counted_from_one_and_never_above_the_total(epoch: float, current: int) -> None:
    assert status(*TRAINING, logged(step(2, epoch=epoch))).current_epoch == current


@pytest.mark.parametrize(
    ("number", "total", "progress"),
    [(0, 3, 0.0), (1, 3, 33.3), (2, 3, 66.7), (3, 3, 100.0), (1, 1000, 0.1), (0, 0, 0.0)],
)
def test_progress_is_a_percentage_with_one_decimal(number: int, total: int, progress: float) -> None:
    assert status(*TRAINING, logged(step(2, number, total_steps=total))).progress == progress


def test_a_loss_that_is_not_finite_is_null() -> None:
    assert status(*TRAINING, logged(step(2, loss=None))).loss is None


def test_a_resumed_attempt_begins_where_it_stood() -> None:
    resumed = job.TrainingStarted(job_id=JOB, attempt=1, seq=1, offset=10, report=started(resumed_step=45))
    now = status(*STARTING, attempt_spawned(), resumed)
    assert (now.current_step, now.progress) == (45, 20.0)


def test_the_pause_before_a_resume_is_no_time_that_a_job_ran() -> None:
    stopped = job.TrainingStopped(job_id=JOB, checkpoint="/data/checkpoint-7")
    died = job.AttemptFailed(job_id=JOB, attempt=2, kind="Killed", message="by nobody")
    told = [(0, requested()), (10, launching()), (40, stopped), (3_640, launching(attempt=2)), (3_700, died)]
    details = None
    for position, (second, event) in enumerate([*told, (3_700, launching(attempt=3))], start=1):
        details = evolve(details, event, position, NOON + second * 1_000_000)
    assert details is not None
    assert details.started_at == iso(NOON + 10_000_000)
    assert (details.attempt_started_at, details.ran_seconds) == (iso(NOON + 3_700_000_000), 30 + 60)


def test_a_job_that_stops_has_no_time_of_arrival() -> None:
    now = status(*TRAINING, STOP_REQUESTED, logged(step(2)))
    assert (now.status, now.eta_seconds) == ("stopping", None)


def test_training_that_starts_after_a_stop_is_still_stopping() -> None:
    assert status(*STARTING, attempt_spawned(), STOP_REQUESTED, training_started()).status == "stopping"


def test_a_trainer_that_said_its_last_word_still_trains_until_it_is_gone() -> None:
    assert status(*TRAINING, ended(finished(2)), EXITED_EVENT).status == "training"


def test_a_completed_job_is_at_a_hundred_percent() -> None:
    now = details(*TRAINING, logged(step(2)), EXITED_EVENT, COMPLETED, registered())
    assert (now.status, now.progress, now.eta_seconds, now.phase) == ("completed", 100.0, None, None)
    assert (now.model_id, now.finished_at) == (1, iso(NOON))


def test_a_failed_job_says_why_and_keeps_its_progress() -> None:
    now = status(*TRAINING, logged(step(2, 75)), EXITED_EVENT, FAILED)
    assert (now.status, now.progress) == ("failed", 33.3)
    assert now.error == JobError("Killed", "probably out of memory")


def test_a_stopped_job_keeps_its_last_checkpoint() -> None:
    saved = job.CheckpointSaved(job_id=JOB, attempt=1, seq=2, offset=150, step=2, path="/data/checkpoint-2")
    stopped = job.TrainingStopped(job_id=JOB, checkpoint=None)
    assert details(*TRAINING, saved, STOP_REQUESTED, EXITED_EVENT, stopped).checkpoint == "/data/checkpoint-2"
    later = job.TrainingStopped(job_id=JOB, checkpoint="/data/checkpoint-7")
    assert details(*TRAINING, saved, STOP_REQUESTED, EXITED_EVENT, later).checkpoint == "/data/checkpoint-7"


def test_the_phase_and_the_evaluation_are_shown() -> None:
    phase = job.PhaseEntered(job_id=JOB, attempt=1, seq=2, offset=150, phase="evaluating")
    report = wire.Evaluated(attempt=1, seq=3, step=75, epoch=1.0, metrics={"eval_loss": 1.25})
    evaluated = job.EvaluationLogged(job_id=JOB, attempt=1, seq=3, offset=160, report=report)
    now = status(*TRAINING, phase, evaluated)
    assert (now.phase, now.eval_loss) == ("evaluating", 1.25)


def test_a_job_says_which_trackers_are_told_and_which_failed() -> None:
    asked = msgspec.structs.replace(PARAMETERS, report_to=("wandb", "tensorboard"))
    spec = msgspec.structs.replace(requested().spec, parameters=asked)
    past = (start(), job.TrainingRequested(job_id=JOB, spec=spec, queued=False), launching())
    lost = job.TrackerGivenUp(job_id=JOB, attempt=1, seq=2, offset=150, tracker="wandb", message="no network")

    def states(*more: Message) -> list[tuple[str, str, str | None]]:
        return [(told.name, told.state, told.message) for told in details(*past, *more).trackers]

    assert states() == [("wandb", "waiting", None), ("tensorboard", "waiting", None)]
    assert states(lost, training_started()) == [("wandb", "failed", "no network"), ("tensorboard", "reporting", None)]
    told = (training_started(), lost, EXITED_EVENT)
    assert states(*told) == [("wandb", "failed", "no network"), ("tensorboard", "ended", None)]
    assert states(*told, launching(attempt=2)) == states()


def test_a_bad_line_changes_nothing_but_the_position() -> None:
    quarantined = job.LineQuarantined(job_id=JOB, attempt=1, offset=160, line=bad_line(150))
    assert status(*TRAINING, quarantined) == status(*TRAINING)
    assert details(*TRAINING, quarantined).position == len(TRAINING) + 1


def test_the_config_is_what_was_asked_for_and_from_the_start_what_is_in_effect() -> None:
    assert details(*STARTING).config == PARAMETERS
    assert details(*TRAINING).config == IN_EFFECT


# ---- which job the status describes ----


def test_a_waiting_job_does_not_hide_the_one_that_runs() -> None:
    assert status(*TRAINING, WAITING).job_id == JOB


def test_a_job_that_leaves_the_queue_does_not_hide_the_one_that_runs() -> None:
    assert status(*TRAINING, WAITING, job.TrainingStopped(job_id=OTHER_JOB, checkpoint=None)).job_id == JOB


def test_the_last_job_is_shown_until_the_next_runs() -> None:
    past = (*TRAINING, WAITING, EXITED_EVENT, COMPLETED)
    assert (status(*past).job_id, status(*past).status) == (JOB, "completed")
    assert (status(*past, launching(OTHER_JOB)).job_id, status(*past, launching(OTHER_JOB)).status) == (
        OTHER_JOB,
        "starting",
    )


def test_a_job_that_is_asked_for_after_the_last_one_ended_is_shown() -> None:
    assert status(*TRAINING, EXITED_EVENT, FAILED, requested(OTHER_JOB)).job_id == OTHER_JOB


# ---- models and datasets ----


def completed(metrics: dict[str, float | None], parameters: wire.TrainingParameters = IN_EFFECT) -> ReadModels:
    saved = wire.SavedModel(path=SAVED.path, kind="full", size_bytes=1_234_567, metrics=metrics)
    event = model.ModelRegistered(
        model_id=1, name="my-base-finetuned", spec=registered().spec, parameters=parameters, model=saved
    )
    return after(*TRAINING, COMPLETED, event)


@pytest.mark.parametrize("loss", [0.0, 0.5, 2.0])
def test_perplexity_is_the_exponential_of_the_loss(loss: float) -> None:
    alone, judged = (completed({"final_loss": loss, **more}).models[1] for more in ({}, {"eval_loss": 1.0}))
    assert (alone.metrics["perplexity"], alone.perplexity_of) == (math.exp(loss), "training_records")
    assert (judged.metrics["perplexity"], judged.perplexity_of) == (math.e, "held_out_records")
    assert judged.metrics["eval_perplexity"] == math.e


def test_a_perplexity_too_large_for_a_number_is_null() -> None:
    assert completed({"final_loss": 1000.0}).models[1].metrics == {"final_loss": 1000.0, "perplexity": None}


def test_a_loss_that_is_unknown_has_no_perplexity() -> None:
    assert completed({}).models[1].metrics == {"final_loss": None, "perplexity": None}
    assert completed({"final_loss": None}).models[1].metrics == {"final_loss": None, "perplexity": None}


def test_a_model_has_every_parameter_under_both_names() -> None:
    trained = completed({}).models[1]
    assert trained.training_params["num_epochs"] == 3
    assert isinstance(trained.training_params["num_epochs"], int)
    assert trained.training_params["batch_size"] == 2
    assert set(wire.TrainingParameters.__struct_fields__) <= set(trained.training_params)
    assert trained.training_params["learning_rate"] == 2e-4
    half = wire.TrainingParameters(num_train_epochs=0.5)
    assert completed({}, half).models[1].training_params["num_epochs"] == 0.5


def test_a_model_says_where_it_comes_from() -> None:
    trained = completed({}).models[1]
    assert (trained.job_id, trained.dataset.sha256, trained.path) == (JOB, SHA256, SAVED.path)
    assert (trained.size_mb, trained.kind, trained.created_at) == (1.235, "full", iso(NOON))


def test_a_deleted_model_is_not_listed_and_its_job_still_is() -> None:
    read_models = after(*TRAINING, COMPLETED, registered(), model.ModelDeleted(model_id=1, path=SAVED.path))
    assert read_models.models == {}
    assert read_models.jobs[JOB].model_id == 1


def test_a_name_stands_for_its_newest_revision() -> None:
    shown = after(uploaded(), uploaded(2, "00" * 32)).datasets["three_lines.jsonl"]
    assert (shown.revision, shown.sha256, shown.size_mb) == (2, "00" * 32, 0.046)


DATASET_DELETED = dataset.DatasetDeleted(filename="three_lines.jsonl", files=(f"{SHA256}.jsonl",))


def on_dataset(event: job.TrainingRequested | model.ModelRegistered, **fields: object) -> Any:
    """The same on the records of a dataset that was uploaded."""
    file = msgspec.structs.replace(
        event.spec.dataset, path=f"/data/datasets/{SHA256}.jsonl", **{"revision": 1, **fields}
    )
    return msgspec.structs.replace(event, spec=msgspec.structs.replace(event.spec, dataset=file))


def test_a_deleted_dataset_is_not_listed_until_it_is_uploaded_again() -> None:
    assert after(uploaded(), DATASET_DELETED).datasets == {}
    assert after(uploaded(), DATASET_DELETED, uploaded(2)).datasets["three_lines.jsonl"].revision == 2


def test_a_job_and_its_model_say_that_their_dataset_was_deleted_while_it_is_gone() -> None:
    past = (uploaded(), on_dataset(requested()), *TRAINING[2:], COMPLETED, on_dataset(registered()))
    for messages, deleted_at in (
        (past, None),
        ((*past, DATASET_DELETED), iso(NOON)),
        ((*past, DATASET_DELETED, uploaded(2)), None),
        ((*past, dataset.DatasetDeleted(filename="three_lines.jsonl", files=())), None),
    ):
        read_models = after(*messages)
        trained = read_models.model(1)
        assert trained is not None
        assert read_models.job_detail(read_models.jobs[JOB]).dataset == trained.dataset
        assert trained.dataset == DatasetReference(
            filename="three_lines.jsonl",
            sha256=SHA256,
            revision=1,
            path=f"/data/datasets/{SHA256}.jsonl",
            deleted_at=deleted_at,
            num_examples=150,
        )
        assert state_of(read_models, models_of(read_models)).models == [trained]


def test_a_job_on_a_file_elsewhere_does_not_lose_it_with_a_dataset_of_the_same_bytes() -> None:
    read_models = after(uploaded(), requested(), DATASET_DELETED)
    assert read_models.job_detail(read_models.jobs[JOB]).dataset.deleted_at is None


def test_records_that_were_made_for_a_job_are_back_with_it() -> None:
    made = on_dataset(requested(), sha256="00" * 32, records_sha256=SHA256, revision=None)
    read_models = after(uploaded(), DATASET_DELETED, made)
    assert read_models.job_detail(read_models.jobs[JOB]).dataset.deleted_at is None


def test_a_dataset_tells_everything_that_its_check_found() -> None:
    faults = tuple(LineError(line, "output", "It is blank.") for line in range(1, 4))
    event = msgspec.structs.replace(
        uploaded(2),
        container="csv",
        compression="zstd",
        columns={"input": "q"},
        has_tools=True,
        fields=wire.FieldNames(used=("output", "q"), ignored=("id",), mapping={"input": "q"}),
        records_sha256="77" * 32,
        records_bytes=9,
        warnings=faults,
        warning_count=300,
        source="hf://squad@abc",
    )
    first, second = Upload(uploaded(1, "00" * 32), NOON), Upload(event, NOON + 10**6)
    shown = details_of(second, [first, second], [])
    assert msgspec.json.decode(msgspec.json.encode(shown)) == {
        "filename": "three_lines.jsonl",
        "num_examples": 150,
        "size_mb": 0.046,
        "uploaded_at": "2025-06-15T15:06:41Z",
        "format": "input_output",
        "sha256": SHA256,
        "revision": 2,
        "container": "csv",
        "compression": "zstd",
        "records_sha256": "77" * 32,
        "size_bytes": 45_678,
        "records_bytes": 9,
        "has_tools": True,
        "columns": {"used": ["output", "q"], "ignored": ["id"], "mapping": {"input": "q"}},
        "source": "hf://squad@abc",
        "revisions": [
            {
                "revision": number,
                "sha256": sha256,
                "num_examples": 150,
                "size_mb": 0.046,
                "uploaded_at": f"2025-06-15T15:06:4{number - 1}Z",
            }
            for number, sha256 in ((1, "00" * 32), (2, SHA256))
        ],
        "warnings": [{"line": line, "field": "output", "message": "It is blank."} for line in range(1, 4)],
        "warning_count": 300,
        "tasks": ["text-generation", "summarization"],
        "strategies": ["sft", "qlora", "rlhf"],
        "jobs": [],
    }


def test_moments_are_written_in_utc_to_the_second() -> None:
    assert iso(NOON) == "2025-06-15T15:06:40Z"
    assert iso(NOON + 999_999) == "2025-06-15T15:06:40Z"
    assert iso(0) == "1970-01-01T00:00:00Z"


def test_a_job_that_was_never_requested_has_no_history() -> None:
    with pytest.raises(ValueError, match="never requested"):
        after(launching())


def test_the_mean_of_each_reward_stands_in_the_status_and_in_the_metrics() -> None:
    rewarded = msgspec.structs.replace(step(3, 1), rewards={"exact_match": 0.25, "length": None})
    now = status(*TRAINING, logged(step(2, 1), rewarded))
    assert now.rewards == {"exact_match": 0.25, "length": None}
    assert status(*TRAINING, logged(step(2, 1))).rewards == {}
    assert project_struct(rewarded, Metric, position=1).rewards == now.rewards
