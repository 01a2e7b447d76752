"""What a job's parameters are in effect: what was asked for, and what is chosen where nothing was.

Chosen by task and strategy, and where each value comes from:

    learning_rate     adapter            all weights
    sft, qlora        2e-4 [1]           2e-5 [2]           text generation, and summaries by causal models
                      1e-3 [3]           1e-4 [4]           summaries by encoder-decoder models
                      5e-4 [5]           3e-5 [6]           question answering
    dpo               5e-6 [7]           5e-7 [7]
    rlhf              1e-5 [8]           1e-6 [8]
    reward model      1e-4 [9]           1e-5 [9]

    num_train_epochs  3 for sft and qlora [2], 2 for question answering [6], 1 for dpo and rlhf [7] [8]
    beta              0.1 for dpo [7]; 0.05 for rloo [8], 0.04 for grpo [10]

    [1] QLoRA, arXiv 2305.14314, table 9        [6] BERT, arXiv 1810.04805, A.3; run_qa.py of transformers
    [2] trl's SFTConfig and TrainingArguments   [7] dpo.py of trl and its DPOConfig
    [3] peft's guide to seq2seq with LoRA       [8] trl's RLOOConfig; ten times that for adapters, as trl's guide says
    [4] transformers' guide to T5               [9] reward_modeling.py of trl
    [5] LoRA, arXiv 2106.09685, table 9         [10] DeepSeekMath, arXiv 2402.03300, section 4.2
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import torch

from trainer_entry.runtime.failures import ConflictingParameters
from trainer_entry.wire import REWARD_DEFAULTS, UNSLOTH_LENGTH, Defaults, defaults_of

if TYPE_CHECKING:
    from trainer_entry.wire import JobSpec, Strategy, TrainingParameters


def resolve_parameters(job: JobSpec) -> TrainingParameters:
    """The parameters with everything chosen that depends on neither the model nor the data.

    Raises:
        ConflictingParameters: two of them cannot both be had.
    """
    parameters, strategy = job.parameters, job.strategy
    use_4bit = parameters.use_4bit
    if use_4bit is None:
        use_4bit = strategy == "qlora" and not parameters.use_8bit
    bf16, fp16 = _precision(parameters)
    checkpointing = parameters.gradient_checkpointing
    length = parameters.max_seq_length
    chosen = msgspec.structs.replace(
        parameters,
        per_device_eval_batch_size=_eval_batch(parameters, strategy),
        # As trl has it, where memory is short: on the CPU the time is missed more.
        gradient_checkpointing=torch.cuda.is_available() if checkpointing is None else checkpointing,
        bf16=bf16,
        fp16=fp16,
        weight_dtype=None if parameters.use_lora else parameters.weight_dtype or "float32",
        use_4bit=use_4bit,
        bnb_4bit_compute_dtype=parameters.bnb_4bit_compute_dtype
        or ("bfloat16" if bf16 else "float16" if fp16 else "float32"),
        max_seq_length=UNSLOTH_LENGTH if length is None and job.provider == "unsloth" else length,
    )
    _refuse_conflicts(chosen, strategy, evaluates=job.evaluates)
    return chosen


def with_model(
    parameters: TrainingParameters, job: JobSpec, context: int, *, encoder_decoder: bool, recomputes: bool = True
) -> TrainingParameters:
    """The parameters with what depends on the model: learning rates, and a length that its context has room for.

    `recomputes`: it can compute its activations again, as gradient checkpointing needs.

    Raises:
        ConflictingParameters: gradient checkpointing was asked for, and the model cannot do it.
    """
    if job.parameters.gradient_checkpointing and not recomputes:
        raise ConflictingParameters("This model has no gradient checkpointing: leave gradient_checkpointing out.")
    defaults = defaults_of(job.task, job.strategy, parameters.rl_algorithm, encoder_decoder=encoder_decoder)
    rewards = REWARD_DEFAULTS if job.trains_reward_model else None
    asked = parameters.max_seq_length
    return msgspec.structs.replace(
        parameters,
        gradient_checkpointing=parameters.gradient_checkpointing and recomputes,
        num_train_epochs=parameters.num_train_epochs or defaults.epochs,
        learning_rate=parameters.learning_rate or _rate(parameters, defaults),
        beta=defaults.beta if parameters.beta is None else parameters.beta,
        reward_learning_rate=parameters.reward_learning_rate or (_rate(parameters, rewards) if rewards else None),
        max_seq_length=context if asked is None or asked < 1 else min(asked, context),
    )


def _rate(parameters: TrainingParameters, defaults: Defaults) -> float:
    return defaults.adapter_learning_rate if parameters.use_lora else defaults.full_learning_rate


def with_evaluation(
    parameters: TrainingParameters, examples: int, tokens: int, *, evaluates: bool | None = None
) -> TrainingParameters:
    """The parameters with an evaluation interval: an epoch, unless another was asked for.

    `evaluates`: whether there are records for it; None where they could only be a part of the dataset.
    """
    if not (parameters.eval_split > 0 if evaluates is None else evaluates):
        return msgspec.structs.replace(parameters, eval_steps=None)  # of which there is no evaluation
    rows = math.ceil(tokens / (parameters.max_seq_length or 1)) if parameters.packing else examples
    batches = math.ceil(rows / (parameters.per_device_train_batch_size * parameters.num_processes))
    epoch = math.ceil(batches / parameters.gradient_accumulation_steps)
    eval_steps = parameters.eval_steps or max(1, epoch)
    # The best model can only be kept where a checkpoint was saved when it was evaluated.
    save_steps = eval_steps if parameters.early_stopping_patience else parameters.save_steps
    return msgspec.structs.replace(parameters, eval_steps=eval_steps, save_steps=save_steps)


def _eval_batch(parameters: TrainingParameters, strategy: Strategy) -> int:
    """As in training, unless it was said; rlhf evaluates whole groups of completions."""
    size = parameters.per_device_eval_batch_size or parameters.per_device_train_batch_size
    if strategy != "rlhf":
        return size
    return math.ceil(size / parameters.num_generations) * parameters.num_generations


def _precision(parameters: TrainingParameters) -> tuple[bool, bool]:
    """16-bit computing where the device is made for it, and does not emulate it; on the CPU only if asked for."""
    bf16, fp16 = parameters.bf16, parameters.fp16
    if bf16 is None:
        made_for_it = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        bf16 = not fp16 and (made_for_it or parameters.weight_dtype == "bfloat16")
    if fp16 is None:
        fp16 = not bf16 and torch.cuda.is_available()
    return bf16, fp16


def _refuse_conflicts(parameters: TrainingParameters, strategy: Strategy, *, evaluates: bool) -> None:
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
            parameters.weight_dtype == "bfloat16" and not parameters.bf16,
            "Weights in bfloat16 are computed with in it: leave out bf16 and fp16, or weight_dtype.",
        ),
        (
            parameters.early_stopping_patience is not None and not evaluates,
            "early_stopping_patience needs records to evaluate on: set eval_split or validation_dataset.",
        ),
    )
    for holds, text in conflicts:
        if holds:
            raise ConflictingParameters(text)
