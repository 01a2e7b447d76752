"""Every parameter reaches the library that it is meant for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from support.trainer_attempts import job_of

from trainer_entry.providers.precision import quantization_config, weight_dtype
from trainer_entry.runtime.failures import ConflictingParameters
from trainer_entry.strategies.adapters import lora_config, reward_lora_config
from trainer_entry.strategies.whole_modules import WholeModules
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
from trainer_entry.wire import Strategy, Task, TrainingParameters
from trainer_entry.wire.mixture import held_out_of

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import TrainingArguments

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
    "eval_steps": (13, "eval_steps", 13),
    "logging_steps": (17, "logging_steps", 17),
    "save_steps": (19, "save_steps", 19),
    "save_total_limit": (2, "save_total_limit", 2),
    "early_stopping_patience": (4, "load_best_model_at_end", True),
    "neftune_noise_alpha": (5.0, "neftune_noise_alpha", 5.0),
    "group_by_length": (True, "train_sampling_strategy", "group_by_length"),
    "torch_compile": (True, "torch_compile", True),
    "liger": (True, "use_liger_kernel", True),
}
# Of each parameter that not every trainer has: the same, and whose it is.
COMPLETION = {"max_seq_length": (77, "max_length", 77), "packing": (True, "packing", True)}
PREFERENCE = {
    "max_seq_length": (77, "max_length", 77),
    "beta": (0.7, "beta", 0.7),
    "loss_type": ("apo_zero", "loss_type", ["apo_zero"]),
}
REWARD = {"max_seq_length": (77, "max_length", 77), "reward_learning_rate": (0.3, "learning_rate", 0.3)}
POLICY = {
    "beta": (0.7, "beta", 0.7),
    "num_generations": (2, "num_generations", 2),
    "max_completion_length": (9, "max_completion_length", 9),
    "use_vllm": (True, "use_vllm", True),
}
ADAPTER: dict[str, tuple[Any, str, Any]] = {
    "lora_r": (5, "r", 5),
    "lora_alpha": (6, "lora_alpha", 6),
    "lora_dropout": (0.25, "lora_dropout", 0.25),
    "target_modules": (["q_proj", "v_proj"], "target_modules", {"q_proj", "v_proj"}),
    "use_rslora": (True, "use_rslora", True),
    "use_dora": (True, "use_dora", True),
    "init_lora_weights": ("pissa_niter_4", "init_lora_weights", "pissa_niter_4"),
}
QUANTIZATION: dict[str, tuple[Any, str, Any]] = {
    "use_4bit": (True, "load_in_4bit", True),
    "use_8bit": (True, "load_in_8bit", True),
    "bnb_4bit_quant_type": ("fp4", "bnb_4bit_quant_type", "fp4"),
    "bnb_4bit_compute_dtype": ("bfloat16", "bnb_4bit_compute_dtype", torch.bfloat16),
    "use_nested_quant": (False, "bnb_4bit_use_double_quant", False),
}
# Tested by what they do: how many records are held out, which weights are trained, whose rewards count.
ELSEWHERE = {
    *("eval_split", "num_processes", "use_lora", "reward_model", "rl_algorithm", "doc_stride", "truncation"),
    *("weight_dtype", "attn_implementation", "loraplus_lr_ratio", "reward_functions", "report_to"),
    *("tracker_project", "tracker_run", "tracker_tags"),
}


def effective(strategy: Strategy = "sft", task: Task = "text-generation", **values: Any) -> TrainingParameters:
    job = job_of(msgspec.convert(values, TrainingParameters), strategy=strategy, task=task)
    chosen = with_model(resolve_parameters(job), job, 2048, encoder_decoder=False)
    return with_evaluation(chosen, examples=56, tokens=2000)


def arguments_of(trainer: str, folder: Path, **values: Any) -> TrainingArguments:
    match trainer:
        case "completion":
            return completion_arguments(effective(**values), str(folder))
        case "sequence":
            return sequence_arguments(effective(task="summarization", **values), str(folder))
        case "span":
            return span_arguments(effective(task="extractive-question-answering", **values), str(folder))
        case "preference":
            return preference_arguments(effective("dpo", **values), str(folder))
        case "reward":
            # What is learned at this rate is the policy.
            rates = {"reward_learning_rate": values["learning_rate"]} if "learning_rate" in values else {}
            return reward_arguments(effective("rlhf", **values, **rates), str(folder))
        case "rloo" | "grpo" as algorithm:
            parameters = effective("rlhf", rl_algorithm=algorithm, **values)
            return policy_arguments(parameters, str(folder), policy_steps(parameters, prompts=56))
        case _:
            raise AssertionError(trainer)


TRAINERS = ("completion", "sequence", "span", "preference", "reward", "rloo", "grpo")
EVERY = [(trainer, name, ARGUMENTS[name]) for trainer in TRAINERS for name in ARGUMENTS]
OWN = [
    *(("completion", name, told) for name, told in COMPLETION.items()),
    *(("preference", name, told) for name, told in PREFERENCE.items()),
    *(("reward", name, told) for name, told in REWARD.items()),
    *((trainer, name, told) for name, told in POLICY.items() for trainer in ("rloo", "grpo")),
]


def test_no_parameter_is_forgotten() -> None:
    own = {name for _, name, _ in OWN}
    known = {*ARGUMENTS, *ADAPTER, *QUANTIZATION, "modules_to_save"} | own | ELSEWHERE
    assert known == {field.name for field in msgspec.structs.fields(TrainingParameters)}


@pytest.mark.parametrize(("trainer", "name", "told"), [*EVERY, *OWN])
def test_a_parameter_reaches_the_trainer(trainer: str, name: str, told: tuple[Any, str, Any], tmp_path: Path) -> None:
    value, theirs, expected = told
    needs: dict[str, Any] = {"eval_split": 0.1} if name in {"eval_steps", "early_stopping_patience"} else {}
    if trainer in {"reward", "rloo", "grpo"} and name.startswith("per_device"):
        needs |= {"num_generations": value, "per_device_train_batch_size": value}  # whole groups of completions
    if trainer in {"rloo", "grpo"} and name == "num_train_epochs":
        theirs, expected = "max_steps", round(value * 56)  # four completions of one prompt a step
    assert getattr(arguments_of(trainer, tmp_path, **needs | {name: value}), theirs) == expected


def test_adam_is_one_kernel_on_the_cpu_unless_losses_are_scaled(tmp_path: Path) -> None:
    def optimizer(**values: Any) -> str:
        name: str = arguments_of("completion", tmp_path, **values).optim
        return name

    assert optimizer() == "adamw_torch_fused"
    assert optimizer(optim="sgd") == "sgd"
    assert optimizer(fp16=True) == "adamw_torch"


@pytest.mark.parametrize("name", ADAPTER)
def test_a_parameter_reaches_the_adapter(name: str) -> None:
    value, theirs, expected = ADAPTER[name]
    parameters = effective(**{name: value})
    for adapter in (
        lora_config(parameters, "text-generation", encoder_decoder=False),
        lora_config(parameters, "summarization", encoder_decoder=True),
        lora_config(parameters, "extractive-question-answering", encoder_decoder=False),
        reward_lora_config(parameters),
    ):
        assert getattr(adapter, theirs) == expected


def test_what_is_trained_whole_stands_beside_the_head_and_has_no_adapter_of_its_own() -> None:
    parameters, whole = effective(), WholeModules(("model.mlp",), ("model.mlp", "model.mlp.up_proj"), tied=True)
    for adapter, head in (
        (lora_config(parameters, "text-generation", encoder_decoder=False, whole=whole), []),
        (lora_config(parameters, "extractive-question-answering", encoder_decoder=False, whole=whole), ["qa_outputs"]),
        (reward_lora_config(parameters, whole), ["score"]),
    ):
        assert adapter.modules_to_save == [*head, "model.mlp"]
        assert set(adapter.exclude_modules or ()) == {*head, "model.mlp", "model.mlp.up_proj"}
        assert adapter.ensure_weight_tying


@pytest.mark.parametrize("name", QUANTIZATION)
def test_a_parameter_reaches_the_quantization(name: str) -> None:
    value, theirs, expected = QUANTIZATION[name]
    needs = {} if name in {"use_4bit", "use_8bit"} else {"use_4bit": True}
    assert getattr(quantization_config(effective(**{name: value}, **needs)), theirs) == expected


@pytest.mark.parametrize(
    ("strategy", "task", "adapter_rate", "full_rate", "epochs", "beta"),
    [
        ("sft", "text-generation", 2e-4, 2e-5, 3, None),
        ("sft", "extractive-question-answering", 5e-4, 3e-5, 2, None),
        ("dpo", "text-generation", 5e-6, 5e-7, 1, 0.1),
        ("rlhf", "summarization", 1e-5, 1e-6, 1, 0.05),
    ],
)
def test_what_the_trainer_chooses_depends_on_strategy_and_task(
    strategy: Any, task: Any, adapter_rate: float, full_rate: float, epochs: float, beta: float | None
) -> None:
    chosen = effective(strategy, task)
    assert (chosen.learning_rate, chosen.num_train_epochs, chosen.beta) == (adapter_rate, epochs, beta)
    assert effective(strategy, task, use_lora=False).learning_rate == full_rate


def test_vllm_generates_in_the_trainer_s_own_process_and_rewards_have_their_weights(tmp_path: Path) -> None:
    for algorithm in ("rloo", "grpo"):
        parameters = effective("rlhf", rl_algorithm=algorithm, use_vllm=True)
        arguments = policy_arguments(parameters, str(tmp_path), 3, [1.0, 0.5])
        assert (arguments.vllm_mode, arguments.reward_weights) == ("colocate", [1.0, 0.5])


def test_a_gpu_computes_its_activations_again_and_in_no_type_that_it_emulates(monkeypatch: pytest.MonkeyPatch) -> None:
    assert effective().gradient_checkpointing is False
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    chosen = effective()
    assert (chosen.gradient_checkpointing, chosen.bf16, chosen.fp16) == (True, False, True)
    assert effective(gradient_checkpointing=False).gradient_checkpointing is False


def test_a_model_without_gradient_checkpointing_is_trained_without_it_unless_it_was_asked_for() -> None:
    job = job_of(TrainingParameters(gradient_checkpointing=True))
    resolved = resolve_parameters(job)
    with pytest.raises(ConflictingParameters, match="gradient_checkpointing"):
        with_model(resolved, job, 512, encoder_decoder=False, recomputes=False)
    chosen = with_model(resolved, job_of(TrainingParameters()), 512, encoder_decoder=False, recomputes=False)
    assert chosen.gradient_checkpointing is False


def test_activations_are_computed_again_in_the_way_that_needs_no_gradients_of_inputs(tmp_path: Path) -> None:
    for trainer in TRAINERS:
        arguments = arguments_of(trainer, tmp_path, gradient_checkpointing=True)
        assert arguments.gradient_checkpointing_kwargs == {"use_reentrant": False}


@pytest.mark.parametrize(("asked", "chosen"), [(None, "float32"), ("bfloat16", "bfloat16")])
def test_weights_that_are_all_trained_are_held_in_32_bits_unless_told_otherwise(asked: Any, chosen: str) -> None:
    parameters = effective(use_lora=False, weight_dtype=asked)
    assert (parameters.weight_dtype, parameters.bf16) == (chosen, chosen == "bfloat16")
    assert str(weight_dtype(parameters)) == f"torch.{chosen}"


def test_qlora_alone_quantizes_by_itself() -> None:
    assert (effective().use_4bit, effective("qlora").use_4bit) == (False, True)
    assert quantization_config(effective()) is None


def test_an_encoder_decoder_model_learns_faster() -> None:
    job = job_of(TrainingParameters(), task="summarization")
    assert with_model(resolve_parameters(job), job, 512, encoder_decoder=True).learning_rate == 1e-3


def test_the_context_bounds_the_length() -> None:
    lengths = [effective(max_seq_length=asked).max_seq_length for asked in (None, -1, 99, 9999)]
    assert lengths == [2048, 2048, 99, 2048]


def test_unsloth_is_set_up_for_one_length() -> None:
    job = job_of(TrainingParameters(), provider="unsloth")
    assert with_model(resolve_parameters(job), job, 8192, encoder_decoder=False).max_seq_length == 2048


def test_a_policy_makes_a_step_of_whole_groups() -> None:
    parameters = effective("rlhf", per_device_train_batch_size=8, gradient_accumulation_steps=2, num_train_epochs=2)
    assert policy_steps(parameters, prompts=10) == 4  # four prompts a step, two left over in each epoch
    assert policy_steps(effective("rlhf", max_steps=7), prompts=10) == 7


def test_an_evaluation_follows_every_epoch_unless_told_otherwise() -> None:
    assert effective(eval_split=0.1).eval_steps == 14
    assert effective(eval_split=0.1, gradient_accumulation_steps=4).eval_steps == 4
    assert effective(eval_split=0.1, eval_steps=3).eval_steps == 3
    assert len(held_out_of(100, effective(eval_split=0.1).eval_split, 0)) == 10


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
        resolve_parameters(job_of(TrainingParameters(**values), strategy=strategy))
