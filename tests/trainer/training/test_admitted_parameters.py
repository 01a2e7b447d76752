"""Whatever the server lets through, the trainer's libraries take: their arguments, their schedule, their adapter."""

from __future__ import annotations

import dataclasses
import tempfile
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from support.trainer_attempts import job_of

from modelforge.domain.compatibility import check_combination
from modelforge.domain.purposes import check_format
from modelforge.errors import BadInput
from trainer_entry import wire
from trainer_entry.providers.precision import quantization_config, weight_dtype
from trainer_entry.strategies.adapters import lora_config, reward_lora_config
from trainer_entry.training.arguments import (
    completion_arguments,
    policy_arguments,
    policy_steps,
    preference_arguments,
    reward_arguments,
    sequence_arguments,
    span_arguments,
)
from trainer_entry.training.defaults import resolve_parameters, with_evaluation, with_model
from trainer_entry.training.trainer import AttemptTrainer
from trainer_entry.wire import obstacles
from trainer_entry.wire.mixture import held_out_of

if TYPE_CHECKING:
    from transformers import TrainingArguments

CONTEXT = 256
FORMATS: dict[tuple[wire.Task, bool], wire.DatasetFormat] = {
    ("text-generation", False): "input_output",
    ("summarization", False): "document_summary",
    ("extractive-question-answering", False): "squad",
    ("text-generation", True): "preferences",
    ("summarization", True): "preferences",
}
small = some.integers(1, 20)
drawn: dict[str, some.SearchStrategy[Any]] = {
    "num_train_epochs": some.none() | some.sampled_from([0.01, 1, 2.5, 10_000]),
    "max_steps": some.sampled_from([-1, 0, 1, 2, 50]),
    "per_device_train_batch_size": some.sampled_from([1, 2, 3, 4, 8, 16]),
    "per_device_eval_batch_size": some.none() | some.sampled_from([1, 3, 4]),
    "gradient_accumulation_steps": some.sampled_from([1, 2, 3, 8]),
    "gradient_checkpointing": some.booleans(),
    "learning_rate": some.none() | some.sampled_from([1e-300, 1e-8, 1e-7, 1e-4, 10]),
    "reward_learning_rate": some.none() | some.sampled_from([1e-8, 1e-4]),
    "lr_scheduler_type": some.sampled_from([*wire.Scheduler.__args__]),  # type: ignore[attr-defined]
    "warmup_steps": some.sampled_from([0, 1, 2, 50, 100]),
    "warmup_ratio": some.sampled_from([0, 0.1, 0.99, 1]),
    "weight_decay": some.sampled_from([0, 10]),
    "max_grad_norm": some.sampled_from([0, 1.0]),
    "optim": some.sampled_from([*wire.Optimizer.__args__]),  # type: ignore[attr-defined]
    "seed": some.sampled_from([0, 42, 2**32 - 1]),
    "bf16": some.none() | some.booleans(),
    "fp16": some.none() | some.booleans(),
    "max_seq_length": some.none() | some.sampled_from([-1, 0, 1, 2, 8, 10_000_000]),
    "packing": some.booleans(),
    "eval_split": some.sampled_from([0, 0.001, 0.5, 0.9]),
    "eval_steps": some.none() | some.sampled_from([1, 7, 1_000_000]),
    "logging_steps": some.sampled_from([1, 3]),
    "save_steps": some.sampled_from([1, 5, 500]),
    "save_total_limit": some.none() | some.just(1),
    "early_stopping_patience": some.none() | some.just(2),
    "lora_r": some.sampled_from([1, 4096]),
    "lora_dropout": some.sampled_from([0, 0.999]),
    "use_rslora": some.booleans(),
    "use_dora": some.booleans(),
    "init_lora_weights": some.sampled_from([True, False, *wire.ADAPTER_INITIALISATIONS]),
    "loraplus_lr_ratio": some.none() | some.sampled_from([0.1, 16]),
    "modules_to_save": some.none() | some.just(["lm_head"]),
    "neftune_noise_alpha": some.none() | some.sampled_from([0, 5]),
    "group_by_length": some.booleans(),
    "loss_type": some.sampled_from([*wire.LOSSES, "simpo"]),
    "use_lora": some.booleans(),
    "use_4bit": some.none() | some.booleans(),
    "use_8bit": some.booleans(),
    "bnb_4bit_compute_dtype": some.none() | some.sampled_from(["float32", "float16"]),
    "beta": some.none() | some.sampled_from([0, 0.1, 100]),
    "rl_algorithm": some.sampled_from(["rloo", "grpo"]),
    "num_generations": some.sampled_from([2, 3, 4, 8]),
    "max_completion_length": some.sampled_from([1, 255, 256, 1_000_000]),
    "doc_stride": some.sampled_from([0, 128, 1_000_000]),
    "reward_functions": some.none() | some.sampled_from([("exact_match",), ({"name": "length", "max": 3},)]),
}


@dataclasses.dataclass(frozen=True)
class Asked:
    """A training as it is asked for: with few parameters, as hardly one with all of them would be let through."""

    job: wire.JobSpec
    records: int


@some.composite
def trainings(draw: some.DrawFn) -> Asked:
    names = draw(some.lists(some.sampled_from(sorted(drawn)), max_size=7, unique=True))
    task = draw(some.sampled_from(["text-generation", "summarization", "extractive-question-answering"]))
    strategy = draw(some.sampled_from(["sft", "qlora", "dpo", "rlhf"]))
    parameters = msgspec.convert({name: draw(drawn[name]) for name in names}, wire.TrainingParameters)
    return Asked(job_of(parameters, task=task, strategy=strategy), draw(small))


def is_let_through(asked: Asked) -> bool:
    """Whether the server would start it, as far as its parameters and its records go."""
    job = asked.job
    try:
        check_combination(job.task, job.strategy, job.provider, job.parameters)
        check_format(FORMATS.get((job.task, job.strategy in {"dpo", "rlhf"}), "text"), job.task, job.strategy)
    except BadInput:
        return False
    found = (
        obstacles.in_records(job.parameters, job.strategy, asked.records),
        obstacles.in_length(job.parameters, job.task),
        obstacles.in_schedule(job.parameters),
        obstacles.in_context(job.parameters, job.strategy, CONTEXT),
    )
    return not any(found)


def arguments_of(job: wire.JobSpec, parameters: wire.TrainingParameters, folder: str, steps: int) -> TrainingArguments:
    encoder_decoder = job.task == "summarization"
    if job.strategy == "dpo":
        return preference_arguments(parameters, folder)
    if job.strategy == "rlhf":
        reward_arguments(parameters, folder)
        return policy_arguments(parameters, folder, steps)
    if job.task == "extractive-question-answering":
        return span_arguments(parameters, folder)
    if encoder_decoder:
        sequence_arguments(parameters, folder)
    return completion_arguments(parameters, folder)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(trainings())
def test_what_is_let_through_the_trainer_takes(asked: Asked) -> None:
    if not is_let_through(asked):
        return
    job = asked.job
    held_out = held_out_of(asked.records, job.parameters.eval_split, job.parameters.seed)
    train = asked.records - len(held_out)
    assert bool(held_out) is (job.parameters.eval_split > 0)
    assert train > 0
    parameters = with_model(resolve_parameters(job), job, CONTEXT, encoder_decoder=False)
    parameters = with_evaluation(parameters, train, 10 * train)
    steps = policy_steps(parameters, train) if job.strategy == "rlhf" else max(1, parameters.max_steps)
    assert steps > 0
    with tempfile.TemporaryDirectory() as folder:
        arguments = arguments_of(job, parameters, folder, steps)
    weight_dtype(parameters)
    quantization_config(parameters, job.task)
    if parameters.use_lora:
        lora_config(parameters, job.task, encoder_decoder=job.task == "summarization")
        reward_lora_config(parameters)
    run_schedule(arguments, parameters, min(steps, 50))


def run_schedule(arguments: TrainingArguments, parameters: wire.TrainingParameters, steps: int) -> None:
    """Go through the learning rates of a training, the one after its last step included."""

    class Scheduled(AttemptTrainer):
        def __init__(self) -> None:
            self.args, self.lr_scheduler = arguments, None
            weights = [torch.nn.Parameter(torch.zeros(1))]
            self.optimizer = torch.optim.SGD(weights, lr=parameters.learning_rate or 0)

    trainer = Scheduled()
    schedule: Any = trainer.create_scheduler(steps)
    for _ in range(steps):
        trainer.optimizer.step()
        schedule.step()
    assert all(torch.isfinite(torch.tensor(schedule.get_last_lr())))


@pytest.mark.parametrize("warmup", [{"warmup_steps": 3}, {"warmup_ratio": 1.0}])
def test_a_warm_up_that_takes_all_steps_ends_without_an_error(warmup: dict[str, Any]) -> None:
    parameters = wire.TrainingParameters(lr_scheduler_type="polynomial", learning_rate=1e-3, **warmup)
    with tempfile.TemporaryDirectory() as folder:
        run_schedule(span_arguments(parameters, folder), parameters, 3)
