"""Our parameters' one mapping onto the present names of transformers and trl.

    ours                          theirs
    max_seq_length                max_length of SFTConfig, DPOConfig and RewardConfig
    warmup_steps, warmup_ratio    warmup_steps: a number of steps from 1 on, a ratio below; steps win
    eval_split, eval_steps        eval_strategy and eval_steps
    early_stopping_patience       EarlyStoppingCallback; the best model by eval_loss is the one that is kept
    gradient_checkpointing        activation_checkpointing (its name from transformers 5.24 on)
    group_by_length               train_sampling_strategy
    liger                         use_liger_kernel
    optim                         optim, on the CPU in one kernel
    loraplus_lr_ratio             of peft's create_loraplus_optimizer                               (trainer.py)
    reward_learning_rate          learning_rate of RewardConfig
    rl_algorithm                  RLOOConfig or GRPOConfig
    reward_functions              reward_funcs and reward_weights                                     (rlhf.py)
    use_vllm                      use_vllm, with vllm_mode "colocate"
    lora_r, target_modules, …     LoraConfig.r, target_modules, …                          (adapters.py)
    use_4bit, use_nested_quant    BitsAndBytesConfig.load_in_4bit, bnb_4bit_use_double_quant        (the same)
    weight_dtype                  dtype of from_pretrained, where all weights are trained           (precision.py)

Every other parameter has the name that it has there.
"""
# mypy: allow-untyped-calls

import dataclasses
import math
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import Seq2SeqTrainingArguments, TrainingArguments
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.reward_config import RewardConfig
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.sft_config import SFTConfig

from trainer_entry.wire import TrainingParameters, obstacles

_NEARLY_ONE = 1 - 1e-9


def completion_arguments(parameters: TrainingParameters, folder: str) -> SFTConfig:
    """For answers by causal models."""
    return SFTConfig(
        **_common(parameters, folder),
        max_length=parameters.max_seq_length,
        packing=parameters.packing,
        eval_packing=False,  # a held-out record is judged alone
        # Without packing the records come tokenized, labelled and cut: nothing is left to prepare.
        dataset_kwargs={"skip_prepare_dataset": not parameters.packing},
    )


def sequence_arguments(parameters: TrainingParameters, folder: str) -> Seq2SeqTrainingArguments:
    """For answers by encoder-decoder models."""
    return Seq2SeqTrainingArguments(**_common(parameters, folder))


def span_arguments(parameters: TrainingParameters, folder: str) -> TrainingArguments:
    """For answers that stand in a context."""
    return TrainingArguments(**_common(parameters, folder), label_names=["start_positions", "end_positions"])


def preference_arguments(parameters: TrainingParameters, folder: str) -> DPOConfig:
    """For direct preference optimization."""
    return DPOConfig(
        **_common(parameters, folder),
        beta=parameters.beta or 0.0,
        loss_type=[parameters.loss_type],
        max_length=parameters.max_seq_length,
    )


def reward_arguments(parameters: TrainingParameters, folder: str) -> RewardConfig:
    """For a reward model."""
    rewarding = msgspec.structs.replace(parameters, learning_rate=parameters.reward_learning_rate)
    return RewardConfig(**_common(rewarding, folder), max_length=parameters.max_seq_length)


def policy_arguments(
    parameters: TrainingParameters, folder: str, steps: int, weights: list[float] | None = None
) -> RLOOConfig | GRPOConfig:
    """For a policy that is rewarded for its completions, in a number of optimizer steps; `weights`: of its rewards."""
    arguments: dict[str, Any] = {
        **_common(parameters, folder),
        "max_steps": steps,
        "beta": parameters.beta,
        "num_generations": parameters.num_generations,
        "max_completion_length": parameters.max_completion_length,
        "reward_weights": weights,
        # In the trainer's own process, on the GPU that it trains on: no server of another's is asked.
        **({"use_vllm": True, "vllm_mode": "colocate"} if parameters.use_vllm else {}),
    }
    return RLOOConfig(**arguments) if parameters.rl_algorithm == "rloo" else GRPOConfig(**arguments)


def policy_steps(parameters: TrainingParameters, prompts: int) -> int:
    """The optimizer steps of reinforcement learning."""
    return obstacles.policy_steps(parameters, prompts)


def _common(parameters: TrainingParameters, folder: str) -> dict[str, Any]:
    """The arguments of every trainer, by the names of TrainingArguments."""
    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    checkpointing = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    on_cpu = not torch.cuda.is_available()
    evaluates = parameters.eval_split > 0 or parameters.eval_steps is not None  # of records that are no part
    keep_best = parameters.early_stopping_patience is not None
    return {
        "output_dir": folder,
        "num_train_epochs": parameters.num_train_epochs,
        "max_steps": parameters.max_steps,
        "per_device_train_batch_size": parameters.per_device_train_batch_size,
        "per_device_eval_batch_size": parameters.per_device_eval_batch_size,
        "gradient_accumulation_steps": parameters.gradient_accumulation_steps,
        checkpointing: parameters.gradient_checkpointing,
        f"{checkpointing}_kwargs": {"use_reentrant": False},
        "learning_rate": parameters.learning_rate,
        "lr_scheduler_type": parameters.lr_scheduler_type,
        "warmup_steps": parameters.warmup_steps or min(parameters.warmup_ratio, _NEARLY_ONE),
        "weight_decay": parameters.weight_decay,
        "max_grad_norm": parameters.max_grad_norm,
        "optim": _optimizer(parameters, on_cpu=on_cpu),
        "seed": parameters.seed,
        "data_seed": parameters.seed,
        "bf16": parameters.bf16,
        "fp16": parameters.fp16,
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": parameters.eval_steps if evaluates else None,
        "logging_strategy": "steps",
        "logging_steps": parameters.logging_steps,
        "save_strategy": "steps",
        "save_steps": parameters.save_steps,
        "save_total_limit": parameters.save_total_limit,
        "load_best_model_at_end": keep_best,
        "metric_for_best_model": "eval_loss" if keep_best else None,
        "report_to": "none",  # trackers are told by processes of their own (trainer_entry/trackers)
        "neftune_noise_alpha": parameters.neftune_noise_alpha,
        "train_sampling_strategy": "group_by_length" if parameters.group_by_length else "random",
        "torch_compile": parameters.torch_compile,
        "use_liger_kernel": parameters.liger,
        # Not parameters: what an isolated trainer needs to be honest and quiet.
        "restore_callback_states_from_checkpoint": True,  # the patience already used up, after a resume
        "logging_nan_inf_filter": False,  # a loss that is not a number is reported as such
        "disable_tqdm": True,
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "push_to_hub": False,
    }


def _optimizer(parameters: TrainingParameters, *, on_cpu: bool) -> str:
    """AdamW in one kernel on the CPU: the same updates and state, in half the time; not beside a scaled loss."""
    fuses = on_cpu and not parameters.fp16 and parameters.optim == "adamw_torch"
    return "adamw_torch_fused" if fuses else parameters.optim


def as_json(arguments: TrainingArguments) -> dict[str, str | int | float | bool | list[str] | None]:
    """The trainer's arguments by its own names, as far as they are plain values."""
    plain: dict[str, str | int | float | bool | list[str] | None] = {}
    for name, value in arguments.to_dict().items():
        if value is None or isinstance(value, str | int | bool):
            plain[name] = value
        elif isinstance(value, float):
            plain[name] = value if math.isfinite(value) else str(value)
        elif isinstance(value, list):
            plain[name] = [str(item) for item in value]
        elif isinstance(value, Path):
            plain[name] = str(value)
    return plain
