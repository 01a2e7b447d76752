"""Our parameters' one mapping onto the present names of transformers, trl, peft and bitsandbytes.

    ours                          theirs
    max_seq_length                SFTConfig.max_length
    warmup_steps, warmup_ratio    SFTConfig.warmup_steps: a number of steps from 1 on, a ratio below; steps win
    eval_split, eval_steps        SFTConfig.eval_strategy and eval_steps
    early_stopping_patience       EarlyStoppingCallback; the best model by eval_loss is the one that is kept
    gradient_checkpointing        activation_checkpointing (its name from transformers 5.24 on)
    lora_r, target_modules, …     LoraConfig.r, target_modules, …
    use_4bit, use_nested_quant    BitsAndBytesConfig.load_in_4bit, bnb_4bit_use_double_quant

Every other parameter has the name that it has there. The defaults that depend on the strategy:

    learning_rate   2e-4 with adapters (QLoRA, arXiv 2305.14314, table 9; trl's own examples)
                    2e-5 for all weights (trl's SFTConfig)
"""
# mypy: allow-untyped-calls

import dataclasses
import math
from pathlib import Path
from typing import Any

import msgspec
import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig, TrainingArguments
from trl.trainer.sft_config import SFTConfig

from trainer_entry.failures import ConflictingParameters
from trainer_entry.wire import Strategy, TrainingParameters

ADAPTER_LEARNING_RATE = 2e-4
FULL_LEARNING_RATE = 2e-5
_NEARLY_ONE = 1 - 1e-9


def in_effect(parameters: TrainingParameters, strategy: Strategy) -> TrainingParameters:
    """The parameters with everything chosen that does not depend on the model or the data.

    Raises:
        ConflictingParameters: two of them cannot both be had.
    """
    use_4bit = parameters.use_4bit
    if use_4bit is None:
        use_4bit = strategy == "qlora" and not parameters.use_8bit
    bf16, fp16 = _precision(parameters)
    chosen = msgspec.structs.replace(
        parameters,
        num_train_epochs=parameters.num_train_epochs or 3.0,
        learning_rate=parameters.learning_rate
        or (ADAPTER_LEARNING_RATE if parameters.use_lora else FULL_LEARNING_RATE),
        per_device_eval_batch_size=parameters.per_device_eval_batch_size or parameters.per_device_train_batch_size,
        bf16=bf16,
        fp16=fp16,
        use_4bit=use_4bit,
        bnb_4bit_compute_dtype=parameters.bnb_4bit_compute_dtype
        or ("bfloat16" if bf16 else "float16" if fp16 else "float32"),
    )
    _refuse_conflicts(chosen, strategy)
    return chosen


def with_length(parameters: TrainingParameters, context: int) -> TrainingParameters:
    """The parameters with a sequence length that the model's context has room for."""
    asked = parameters.max_seq_length
    length = context if asked is None or asked < 1 else min(asked, context)
    return msgspec.structs.replace(parameters, max_seq_length=length)


def with_evaluation(parameters: TrainingParameters, examples: int, tokens: int) -> TrainingParameters:
    """The parameters with an evaluation interval: an epoch, unless another was asked for."""
    if parameters.eval_split == 0:
        return parameters
    rows = math.ceil(tokens / (parameters.max_seq_length or 1)) if parameters.packing else examples
    batches = math.ceil(rows / parameters.per_device_train_batch_size)
    epoch = math.ceil(batches / parameters.gradient_accumulation_steps)
    eval_steps = parameters.eval_steps or max(1, epoch)
    # The best model can only be kept where a checkpoint was saved when it was evaluated.
    save_steps = eval_steps if parameters.early_stopping_patience else parameters.save_steps
    return msgspec.structs.replace(parameters, eval_steps=eval_steps, save_steps=save_steps)


def trainer_arguments(parameters: TrainingParameters, checkpoint_dir: str) -> SFTConfig:
    """The trainer's own arguments."""
    names = {field.name for field in dataclasses.fields(SFTConfig)}
    checkpointing = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    on_cpu = not torch.cuda.is_available()
    keep_best = parameters.early_stopping_patience is not None
    arguments: dict[str, Any] = {
        "output_dir": checkpoint_dir,
        "num_train_epochs": parameters.num_train_epochs,
        "max_steps": parameters.max_steps,
        "per_device_train_batch_size": parameters.per_device_train_batch_size,
        "per_device_eval_batch_size": parameters.per_device_eval_batch_size,
        "gradient_accumulation_steps": parameters.gradient_accumulation_steps,
        checkpointing: parameters.gradient_checkpointing,
        "learning_rate": parameters.learning_rate,
        "lr_scheduler_type": parameters.lr_scheduler_type,
        "warmup_steps": parameters.warmup_steps or min(parameters.warmup_ratio, _NEARLY_ONE),
        "weight_decay": parameters.weight_decay,
        "max_grad_norm": parameters.max_grad_norm,
        "optim": parameters.optim,
        "seed": parameters.seed,
        "data_seed": parameters.seed,
        "bf16": parameters.bf16,
        "fp16": parameters.fp16,
        "max_length": parameters.max_seq_length,
        "packing": parameters.packing,
        "eval_strategy": "steps" if parameters.eval_split > 0 else "no",
        "eval_steps": parameters.eval_steps if parameters.eval_split > 0 else None,
        "logging_strategy": "steps",
        "logging_steps": parameters.logging_steps,
        "save_strategy": "steps",
        "save_steps": parameters.save_steps,
        "save_total_limit": parameters.save_total_limit,
        "load_best_model_at_end": keep_best,
        "metric_for_best_model": "eval_loss" if keep_best else None,
        "report_to": parameters.report_to,
        # Not parameters: what an isolated trainer needs to be honest and quiet.
        "restore_callback_states_from_checkpoint": True,  # the patience already used up, after a resume
        "logging_nan_inf_filter": False,  # a loss that is not a number is reported as such
        "disable_tqdm": True,
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "push_to_hub": False,
        # Without packing the records come tokenized, labelled and cut: nothing is left to prepare.
        "dataset_kwargs": {"skip_prepare_dataset": not parameters.packing},
    }
    return SFTConfig(**arguments)


def lora_config(parameters: TrainingParameters) -> LoraConfig:
    """What the adapter looks like."""
    target = parameters.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=parameters.lora_r,
        lora_alpha=parameters.lora_alpha,
        lora_dropout=parameters.lora_dropout,
        target_modules=target if isinstance(target, str) else list(target),
    )


def quantization_config(parameters: TrainingParameters) -> BitsAndBytesConfig | None:
    """How the frozen weights are compressed, if at all."""
    if parameters.use_8bit:
        return BitsAndBytesConfig(load_in_8bit=True)
    if not parameters.use_4bit:
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=parameters.bnb_4bit_quant_type,
        bnb_4bit_compute_dtype=getattr(torch, parameters.bnb_4bit_compute_dtype or "float32"),
        bnb_4bit_use_double_quant=parameters.use_nested_quant,
    )


def weight_dtype(parameters: TrainingParameters) -> torch.dtype:
    """In what the weights are held: the frozen ones of an adapter in the type that they are computed in."""
    if not parameters.use_lora:
        return torch.float32  # an optimizer's small updates are lost in 16 bits
    return torch.bfloat16 if parameters.bf16 else torch.float16 if parameters.fp16 else torch.float32


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


def _precision(parameters: TrainingParameters) -> tuple[bool, bool]:
    """16-bit computing where the device is made for it; on the CPU only if asked for."""
    bf16, fp16 = parameters.bf16, parameters.fp16
    if bf16 is None:
        bf16 = not fp16 and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if fp16 is None:
        fp16 = not bf16 and torch.cuda.is_available()
    return bf16, fp16


def _refuse_conflicts(parameters: TrainingParameters, strategy: Strategy) -> None:
    quantized = parameters.use_4bit or parameters.use_8bit
    conflicts = (
        (parameters.use_4bit and parameters.use_8bit, "use_4bit and use_8bit exclude each other: keep one."),
        (
            quantized and not parameters.use_lora,
            "Quantized weights cannot be trained themselves: set use_lora, or neither use_4bit nor use_8bit.",
        ),
        (
            strategy == "qlora" and not quantized,
            "qlora trains on quantized weights: set use_4bit or use_8bit, or use the strategy sft.",
        ),
        (parameters.bf16 and parameters.fp16, "bf16 and fp16 exclude each other: keep one."),
        (
            parameters.early_stopping_patience is not None and parameters.eval_split == 0,
            "early_stopping_patience needs records to evaluate on: set eval_split.",
        ),
    )
    for holds, text in conflicts:
        if holds:
            raise ConflictingParameters(text)
