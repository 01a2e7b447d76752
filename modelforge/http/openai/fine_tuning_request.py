"""The training that a fine-tuning job of OpenAI's clients is here."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, assert_never

import msgspec

from modelforge.admission.training import OutputName, StartTrainingBody
from modelforge.errors import BadInput
from modelforge.fields import project_struct
from modelforge.http.openai.fine_tuning_body import (
    LONGEST_SUFFIX,
    FineTuningBody,
    Grader,
    Hyperparameters,
    Integration,
    MethodType,
    ModelForgeOptions,
    Preferences,
    Reinforcement,
    Supervised,
)
from modelforge.http.openai.identifiers import dataset_of, model_of
from modelforge.http.openai.unkept import refuse
from modelforge.projections.datasets import DatasetSummary
from modelforge.projections.models import ModelDetails
from trainer_entry import wire
from trainer_entry.wire.rewards import ExactMatch

_STRATEGIES: dict[MethodType, wire.Strategy] = {"supervised": "sft", "dpo": "dpo", "reinforcement": "rlhf"}
_METHODS: dict[wire.Strategy, MethodType] = {
    "sft": "supervised",
    "qlora": "supervised",
    "dpo": "dpo",
    "rlhf": "reinforcement",
}
_FIELD_OF_RECORD = re.compile(r"{{\s*item\.(\w{1,200})\s*}}")
_COMPLETION = re.compile(r"{{\s*sample\.output_text\s*}}")
_T = TypeVar("_T")


def method_of(strategy: wire.Strategy) -> MethodType:
    """What OpenAI calls a strategy."""
    return _METHODS[strategy]


def default_rate(task: wire.Task, strategy: wire.Strategy, parameters: wire.TrainingParameters) -> float | None:
    """The learning rate that a multiplier multiplies; None where it depends on the model's kind."""
    if task == "summarization":
        return None
    defaults = wire.defaults_of(task, strategy, parameters.rl_algorithm, encoder_decoder=False)
    return defaults.adapter_learning_rate if parameters.use_lora else defaults.full_learning_rate


def training_of(
    body: FineTuningBody, datasets: Mapping[str, DatasetSummary], models: Mapping[int, ModelDetails]
) -> StartTrainingBody:
    """The training that a fine-tuning job is; it waits in the queue where there is no room.

    Raises:
        BadInput: it says what is not kept, or the same thing twice; `field` is its path.
    """
    file = _file(datasets, body.training_file, "training_file")
    validation = _file(datasets, body.validation_file, "validation_file") if body.validation_file else None
    options = body.modelforge or ModelForgeOptions()
    method: MethodType = "supervised" if body.method is None else body.method.type
    strategy = options.strategy or _STRATEGIES[method]
    if body.method is not None and _METHODS[strategy] != method:
        raise BadInput(
            "The strategy is of another method",
            f"{strategy} is {_METHODS[strategy]}, and method.type is {method}: send one of them.",
            field="modelforge.strategy",
        )
    where, asked = _hyperparameters(body)
    chosen = _parameters(asked, where, options, strategy, body.seed, body.integrations or ())
    grader = None if body.method is None or body.method.reinforcement is None else body.method.reinforcement.grader
    if grader is not None:
        rewards = _once(options.reward_functions, (_reward(grader),), "method.reinforcement.grader")
        chosen = msgspec.structs.replace(chosen, reward_functions=rewards)
    trained = model_of(models, body.model)
    return project_struct(
        chosen,
        StartTrainingBody,
        task=options.task,
        provider=options.provider,
        strategy=strategy,
        max_restarts=options.max_restarts,
        model_name=body.model if trained is None else str(trained.id),
        dataset=file.filename,
        output_name=_output_name(body.suffix),
        queue=True,
        columns=None,
        encoding=None,
        cluster=options.cluster,
        metadata=body.metadata,
        validation_dataset=None if validation is None else validation.filename,
    )


def _file(datasets: Mapping[str, DatasetSummary], wanted: str, field: str) -> DatasetSummary:
    found = dataset_of(datasets, wanted)
    if found is None:
        raise BadInput(
            "No such file", f"{field}: {wanted[:60]!r} is the id of none; GET /v1/files lists them.", field=field
        )
    return found


def _hyperparameters(body: FineTuningBody) -> tuple[str, Hyperparameters]:
    """The hyperparameters that were sent, and where they stand."""
    method = body.method
    if method is None:
        return "hyperparameters", body.hyperparameters or Hyperparameters()
    if body.hyperparameters is not None:
        raise BadInput("There are hyperparameters twice", "Send those in method.", field="hyperparameters")
    parts = {"supervised": method.supervised, "dpo": method.dpo, "reinforcement": method.reinforcement}
    for name, part in parts.items():
        if part is not None and name != method.type:
            raise BadInput("The method is another one", f"method.type is {method.type}.", field=f"method.{name}")
    where = f"method.{method.type}.hyperparameters"
    match method.type:
        case "supervised":
            return where, (method.supervised or Supervised()).hyperparameters
        case "dpo":
            return where, (method.dpo or Preferences()).hyperparameters
        case "reinforcement":
            reinforcement = method.reinforcement or Reinforcement()
            refuse(reinforcement.response_format, "method.reinforcement.response_format", "Leave it out.")
            hyperparameters = reinforcement.hyperparameters
            for name in ("compute_multiplier", "eval_interval", "eval_samples", "reasoning_effort"):
                value = getattr(hyperparameters, name)
                if value not in {"auto", "default"} if isinstance(value, str) else value is not None:
                    refuse(value, f"{where}.{name}", "Leave it out; parameters of rlhf stand in modelforge.")
            return where, hyperparameters
        case _:
            assert_never(method.type)


def _parameters(
    asked: Hyperparameters,
    where: str,
    options: ModelForgeOptions,
    strategy: wire.Strategy,
    seed: int | None,
    integrations: Sequence[Integration],
) -> wire.TrainingParameters:
    """The parameters of the training, each said once."""
    plain = wire.TrainingParameters()
    changes: dict[str, Any] = {}
    for name, own in (
        ("n_epochs", "num_train_epochs"),
        ("batch_size", "per_device_train_batch_size"),
        ("beta", "beta"),
    ):
        value = getattr(asked, name, "auto")
        if value != "auto":
            left_out = getattr(options, own) == getattr(plain, own)
            changes[own] = _once(None if left_out else getattr(options, own), value, f"{where}.{name}")
    for integration in integrations:
        told = integration.wandb
        refuse(told.entity, "integrations[0].wandb.entity", "WANDB_ENTITY of the server's environment says it.")
        asked_of = {"report_to": "wandb", "tracker_project": told.project, "tracker_run": told.name}
        for own, value in (asked_of | {"tracker_tags": told.tags or None}).items():
            given = getattr(options, own)
            changes[own] = _once(None if given == getattr(plain, own) else given, value, "integrations")
    if seed is not None:
        changes["seed"] = _once(None if options.seed == plain.seed else options.seed, seed, "seed")
    if asked.learning_rate_multiplier != "auto":
        field = f"{where}.learning_rate_multiplier"
        rate = default_rate(options.task, strategy, options)
        if rate is None:
            raise BadInput(
                "The learning rate of summaries depends on the model's kind",
                "Send learning_rate in modelforge, and no learning_rate_multiplier.",
                field=field,
            )
        changes["learning_rate"] = _once(options.learning_rate, rate * asked.learning_rate_multiplier, field)
    return msgspec.structs.replace(project_struct(options, wire.TrainingParameters), **changes)


def _once(in_options: object | None, value: _T, field: str) -> _T:
    if in_options is not None:
        raise BadInput("The same parameter is there twice", f"{field} and modelforge have it: send one.", field=field)
    return value


def _reward(grader: Grader) -> ExactMatch:
    """The reward function that a grader is.

    Raises:
        BadInput: none is.
    """
    where = "method.reinforcement.grader"
    if grader.type != "string_check":
        raise BadInput(
            "The grader is not kept",
            f"{grader.type}: string_check is; other rewards are reward_functions in modelforge (docs/training.md).",
            field=f"{where}.type",
        )
    others = ("evaluation_metric", "source", "image_tag", "model", "range", "sampling_params", "graders")
    for name in (*others, "calculate_output"):
        refuse(getattr(grader, name), f"{where}.{name}", "A string_check has none.")
    if grader.operation != "eq":
        raise BadInput("The operation is not kept", "Of string_check, eq is.", field=f"{where}.operation")
    if not isinstance(grader.input, str) or not _COMPLETION.fullmatch(grader.input):
        raise BadInput("The input is not kept", "It is '{{sample.output_text}}'.", field=f"{where}.input")
    named = _FIELD_OF_RECORD.fullmatch(grader.reference) if isinstance(grader.reference, str) else None
    if named is None:
        raise BadInput(
            "The reference is not kept", "It is a field of the records: '{{item.answer}}'.", field=f"{where}.reference"
        )
    return ExactMatch(field=named[1])


def _output_name(suffix: str | None) -> str | None:
    if not suffix:
        return None
    try:
        return msgspec.convert(suffix, OutputName)
    except msgspec.ValidationError as error:
        raise BadInput(
            "The suffix cannot be a model's name",
            f"It takes letters, digits, '.', '_' and '-', from a letter or digit on, at most {LONGEST_SUFFIX}.",
            field="suffix",
        ) from error
