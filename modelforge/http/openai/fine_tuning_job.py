"""A fine-tuning job as OpenAI's clients see it: a training, and what OpenAI calls its state and its parameters."""

import time
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from modelforge.http.openai.fine_tuning_body import Auto, Integration, MethodType, WandbIntegration
from modelforge.http.openai.fine_tuning_request import default_rate, method_of
from modelforge.http.openai.identifiers import file_id, fine_tuning_job_id, model_name, unix_seconds
from modelforge.projections.jobs import JobDetails, Status
from modelforge.projections.read_models import ReadModels
from trainer_entry import wire

FineTuningStatus = Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]
STATUSES: dict[Status, FineTuningStatus] = {
    "queued": "queued",
    "starting": "running",
    "training": "running",
    "stopping": "running",
    "stopped": "cancelled",
    "completed": "succeeded",
    "failed": "failed",
}
"""What OpenAI calls the states of a job. What was paused is cancelled too: it has no word for it."""


class FineTuningHyperparameters(Struct, frozen=True, kw_only=True):
    """The hyperparameters in effect; `auto` until they are known. `beta` is of preferences alone."""

    n_epochs: Auto | float
    batch_size: Auto | int
    learning_rate_multiplier: Auto | float
    beta: Auto | float | UnsetType = UNSET


class MethodPart(Struct, frozen=True, kw_only=True):
    """The hyperparameters of a method."""

    hyperparameters: FineTuningHyperparameters


class FineTuningMethod(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a job trains; beside the type stands the object of its name."""

    type: MethodType
    supervised: MethodPart | None = None
    dpo: MethodPart | None = None
    reinforcement: MethodPart | None = None


class FineTuningError(Struct, frozen=True, kw_only=True):
    """Why a job failed."""

    code: str
    message: str
    param: None = None


class FineTuningJob(Struct, frozen=True, kw_only=True):
    """A fine-tuning job; `modelforge` is the job as `/api/jobs` has it."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    model: str
    fine_tuned_model: str | None
    organization_id: str = "modelforge"
    status: FineTuningStatus
    training_file: str
    validation_file: str | None = None
    result_files: tuple[str, ...] = ()
    seed: int
    hyperparameters: FineTuningHyperparameters
    method: FineTuningMethod
    error: FineTuningError | None
    finished_at: int | None
    estimated_finish: int | None
    trained_tokens: None = None
    integrations: tuple[Integration, ...] = ()
    metadata: dict[str, str]
    modelforge: JobDetails


def job_object(details: JobDetails, read_models: ReadModels) -> FineTuningJob:
    """A training as a fine-tuning job."""
    model = None if details.model_id is None else read_models.models.get(details.model_id)
    validation = details.validation_dataset
    values = _hyperparameters(details)
    kind = method_of(details.strategy)
    part: dict[str, Any] = {kind: MethodPart(hyperparameters=values)}
    finish = None if details.eta_seconds is None else int(time.time() + details.eta_seconds)
    error = details.error if details.status == "failed" else None
    return FineTuningJob(
        id=fine_tuning_job_id(details.job_id or ""),
        created_at=unix_seconds(details.created_at),
        model=details.model_name,
        fine_tuned_model=None if model is None else model_name(model.id, model),
        status=STATUSES[details.status],
        training_file=file_id(details.datasets[0].filename, details.datasets[0].revision),
        validation_file=None if validation is None else file_id(validation.filename, validation.revision),
        seed=details.config.seed,
        hyperparameters=values,
        method=FineTuningMethod(type=kind, **part),
        error=None if error is None else FineTuningError(code=error.kind, message=error.message),
        finished_at=None if details.finished_at is None else unix_seconds(details.finished_at),
        estimated_finish=finish,
        integrations=integrations_of(details.config),
        metadata=details.metadata,
        modelforge=details,
    )


def integrations_of(config: wire.TrainingParameters) -> tuple[Integration, ...]:
    """Who is told the figures, of those that OpenAI has a word for; a run there has a project."""
    if "wandb" not in config.trackers or config.tracker_project is None:
        return ()
    told = WandbIntegration(project=config.tracker_project, name=config.tracker_run, tags=config.tracker_tags)
    return (Integration(wandb=told),)


def _hyperparameters(details: JobDetails) -> FineTuningHyperparameters:
    config = details.config
    rate = default_rate(details.task, details.strategy, config)
    multiplier: Auto | float = "auto"
    if rate is not None and config.learning_rate is not None:
        multiplier = round(config.learning_rate / rate, 9)
    values = FineTuningHyperparameters(
        n_epochs=config.num_train_epochs or "auto",
        batch_size=config.per_device_train_batch_size,
        learning_rate_multiplier=multiplier,
    )
    if details.strategy != "dpo":
        return values
    return msgspec.structs.replace(values, beta="auto" if config.beta is None else config.beta)
