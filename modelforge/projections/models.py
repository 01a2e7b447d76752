"""The trained models, with all that made them."""

import math
from typing import Any, Literal

import msgspec
from msgspec import Struct

from modelforge.domain.model import ModelRegistered
from modelforge.projections.dataset_references import DatasetReference, reference_of
from modelforge.projections.jobs import iso
from trainer_entry import wire

PerplexityOf = Literal["held_out_records", "training_records"]
"""The records whose loss a model's perplexity is made of."""


class ModelEvaluation(Struct, frozen=True, kw_only=True):
    """What a job found of a model on `records` of a dataset. `base_model`: of what the model was trained from."""

    job_id: str
    dataset: DatasetReference
    metrics: dict[str, float | None]
    at: str
    records: int
    base_model: bool = False


class ModelDetails(Struct, frozen=True, kw_only=True):
    """A trained model. `training_params` has every parameter in effect; `size_mb` counts 10^6 bytes.

    `base_path` is what the base was loaded from. `metrics`: every final figure; those of the untrained model on the
    same held-out records begin with `base_`; perplexity is exp(loss), where the loss is one of every token: that of
    the records that were held out, or else the final one, as `perplexity_of` says.
    `reward_model_path`: the reward model that was trained with it, and is kept beside it.
    `merged_from`: the adapter that was merged into it, if one was. `job_id`: the job that made it; everything else of
    a merged model's making is the adapter's. `lineage`: the trained models that it comes of, the last one first; what
    the last of them was trained from is where all began. `validation_dataset`: what it was evaluated on, where that
    was no part of `dataset`. `evaluations`: what jobs found of it later, the oldest first.
    """

    id: int
    name: str
    base_model: str
    base_path: str
    task: wire.Task
    provider: wire.Provider
    strategy: wire.Strategy
    training_params: dict[str, str | int | float | bool | list[str | dict[str, Any]] | None]
    metrics: dict[str, float | None]
    perplexity_of: PerplexityOf | None
    created_at: str
    path: str
    job_id: str
    dataset: DatasetReference
    size_mb: float
    kind: wire.ModelKind
    reward_model_path: str | None = None
    merged_from: int | None = None
    lineage: tuple[wire.Ancestor, ...] = ()
    validation_dataset: DatasetReference | None = None
    evaluations: tuple[ModelEvaluation, ...] = ()


def megabytes(size: int) -> float:
    """Bytes in units of 10^6, to the kilobyte."""
    return round(size / 1_000_000, 3)


def details_of(event: ModelRegistered, at: int) -> ModelDetails:
    """The details of a model, from its registration."""
    spec, parameters = event.spec, event.parameters
    perplexity_of = _perplexity_of(event.model.metrics, spec)
    return ModelDetails(
        id=event.model_id,
        name=event.name,
        base_model=spec.model_name,
        base_path=spec.model_path,
        task=spec.task,
        provider=spec.provider,
        strategy=spec.strategy,
        training_params={
            "num_epochs": _whole(parameters.num_train_epochs),
            "batch_size": parameters.per_device_train_batch_size,
            **msgspec.to_builtins(parameters),
        },
        metrics=_with_perplexity(event.model.metrics, perplexity_of),
        perplexity_of=perplexity_of,
        created_at=iso(at),
        path=event.model.path,
        job_id=spec.job_id,
        dataset=reference_of(spec.dataset),
        validation_dataset=None if spec.validation is None else reference_of(spec.validation),
        size_mb=megabytes(event.model.size_bytes),
        kind=event.model.kind,
        reward_model_path=event.model.reward_model_path,
        merged_from=spec.work.model_id if isinstance(spec.work, wire.Merge) else None,
        lineage=spec.lineage,
    )


def _whole(number: float | None) -> float | None:
    return int(number) if number is not None and number == int(number) else number


def _with_perplexity(metrics: dict[str, float | None], told: PerplexityOf | None) -> dict[str, float | None]:
    pairs = {
        "perplexity": metrics.get("eval_loss" if told == "held_out_records" else "final_loss"),
        "eval_perplexity": metrics.get("eval_loss"),
        "base_eval_perplexity": metrics.get("base_eval_loss"),
    }
    figures = {name: _exp(loss) for name, loss in pairs.items() if told is not None and loss is not None}
    return {"final_loss": None, "perplexity": None, **metrics, **figures}


def _perplexity_of(metrics: dict[str, float | None], spec: wire.JobSpec) -> PerplexityOf | None:
    """What the perplexity is that of; None where the loss is none of tokens, or not known."""
    if spec.strategy not in {"sft", "qlora"} or spec.task == "extractive-question-answering":
        return None
    if metrics.get("eval_loss") is not None:
        return "held_out_records"
    return None if metrics.get("final_loss") is None else "training_records"


def _exp(loss: float) -> float | None:
    try:
        return math.exp(loss)
    except OverflowError:
        return None
