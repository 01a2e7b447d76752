"""Every parameter reaches the library that it is meant for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch

from trainer_entry.failures import ConflictingParameters
from trainer_entry.parameters import (
    in_effect,
    lora_config,
    quantization_config,
    trainer_arguments,
    with_evaluation,
    with_length,
)
from trainer_entry.records import held_out
from trainer_entry.wire import TrainingParameters

if TYPE_CHECKING:
    from pathlib import Path

# Of each parameter: another value than its default, what it becomes, and where.
ARGUMENTS: dict[str, tuple[Any, str, Any]] = {
    "num_train_epochs": (7.5, "num_train_epochs", 7.5),
    "max_steps": (9, "max_steps", 9),
    "per_device_train_batch_size": (3, "per_device_train_batch_size", 3),
    "per_device_eval_batch_size": (5, "per_device_eval_batch_size", 5),
    "gradient_accumulation_steps": (6, "gradient_accumulation_steps", 6),
    "gradient_checkpointing": (True, "gradient_checkpointing", True),
    "learning_rate": (0.25, "learning_rate", 0.25),
    "lr_scheduler_type": ("cosine", "lr_scheduler_type", "cosine"),
    "warmup_steps": (11, "warmup_steps", 11),
    "warmup_ratio": (0.3, "warmup_steps", 0.3),
    "weight_decay": (0.125, "weight_decay", 0.125),
    "max_grad_norm": (0.5, "max_grad_norm", 0.5),
    "optim": ("adafactor", "optim", "adafactor"),
    "seed": (1234, "seed", 1234),
    "bf16": (True, "bf16", True),
    "fp16": (True, "fp16", True),
    "max_seq_length": (77, "max_length", 77),
    "packing": (True, "packing", True),
    "eval_steps": (13, "eval_steps", 13),
    "logging_steps": (17, "logging_steps", 17),
    "save_steps": (19, "save_steps", 19),
    "save_total_limit": (2, "save_total_limit", 2),
    "report_to": ("tensorboard", "report_to", ["tensorboard"]),
    "early_stopping_patience": (4, "load_best_model_at_end", True),
}
ADAPTER: dict[str, tuple[Any, str, Any]] = {
    "lora_r": (5, "r", 5),
    "lora_alpha": (6, "lora_alpha", 6),
    "lora_dropout": (0.25, "lora_dropout", 0.25),
    "target_modules": (["q_proj", "v_proj"], "target_modules", {"q_proj", "v_proj"}),
}
QUANTIZATION: dict[str, tuple[Any, str, Any]] = {
    "use_4bit": (True, "load_in_4bit", True),
    "use_8bit": (True, "load_in_8bit", True),
    "bnb_4bit_quant_type": ("fp4", "bnb_4bit_quant_type", "fp4"),
    "bnb_4bit_compute_dtype": ("bfloat16", "bnb_4bit_compute_dtype", torch.bfloat16),
    "use_nested_quant": (False, "bnb_4bit_use_double_quant", False),
}
# Tested by what they do: how many records are held out, which strategy's figures, which weights are trained.
ELSEWHERE = {"eval_split", "beta", "num_processes", "use_lora"}


def effective(**values: Any) -> TrainingParameters:
    chosen = in_effect(msgspec.convert(values, TrainingParameters), "sft")
    return with_evaluation(with_length(chosen, 2048), examples=56, tokens=2000)


def test_no_parameter_is_forgotten() -> None:
    known = {*ARGUMENTS, *ADAPTER, *QUANTIZATION} | ELSEWHERE
    assert known == {field.name for field in msgspec.structs.fields(TrainingParameters)}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_parameter_reaches_the_trainer(name: str, tmp_path: Path) -> None:
    value, theirs, expected = ARGUMENTS[name]
    needs = {"eval_split": 0.1} if name in {"eval_steps", "early_stopping_patience"} else {}
    # when
    try:
        arguments = trainer_arguments(effective(**{name: value}, **needs), str(tmp_path))
    except ValueError as error:
        assert name == "fp16", error  # noqa: PT017 - transformers refuses it where there is no GPU
        return
    # then
    assert getattr(arguments, theirs) == expected


@pytest.mark.parametrize("name", ADAPTER)
def test_a_parameter_reaches_the_adapter(name: str) -> None:
    value, theirs, expected = ADAPTER[name]
    assert getattr(lora_config(effective(**{name: value})), theirs) == expected


@pytest.mark.parametrize("name", QUANTIZATION)
def test_a_parameter_reaches_the_quantization(name: str) -> None:
    value, theirs, expected = QUANTIZATION[name]
    needs = {} if name in {"use_4bit", "use_8bit"} else {"use_4bit": True}
    assert getattr(quantization_config(effective(**{name: value}, **needs)), theirs) == expected


def test_what_the_trainer_chooses_depends_on_the_strategy() -> None:
    plain = TrainingParameters()
    assert in_effect(plain, "sft").learning_rate == 2e-4
    assert in_effect(TrainingParameters(use_lora=False), "sft").learning_rate == 2e-5
    assert (in_effect(plain, "sft").use_4bit, in_effect(plain, "qlora").use_4bit) == (False, True)
    assert quantization_config(in_effect(plain, "sft")) is None


def test_the_context_bounds_the_length() -> None:
    lengths = [
        with_length(TrainingParameters(max_seq_length=asked), 512).max_seq_length for asked in (None, -1, 99, 9999)
    ]
    assert lengths == [512, 512, 99, 512]


def test_an_evaluation_follows_every_epoch_unless_told_otherwise() -> None:
    assert effective(eval_split=0.1).eval_steps == 14
    assert effective(eval_split=0.1, gradient_accumulation_steps=4).eval_steps == 4
    assert effective(eval_split=0.1, eval_steps=3).eval_steps == 3
    assert len(held_out(100, effective(eval_split=0.1).eval_split, 0)) == 10


@pytest.mark.parametrize(
    ("values", "strategy", "words"),
    [
        ({"use_4bit": True, "use_8bit": True}, "sft", "use_8bit"),
        ({"use_4bit": True, "use_lora": False}, "sft", "use_lora"),
        ({"use_4bit": False}, "qlora", "use_4bit"),
        ({"bf16": True, "fp16": True}, "sft", "fp16"),
        ({"early_stopping_patience": 1}, "sft", "eval_split"),
    ],
)
def test_what_cannot_be_had_together_is_refused(values: dict[str, Any], strategy: Any, words: str) -> None:
    with pytest.raises(ConflictingParameters, match=words):
        in_effect(TrainingParameters(**values), strategy)
