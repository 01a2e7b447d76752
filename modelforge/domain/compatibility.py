"""Which settings of a training go together; what cannot work is refused by name, with what would."""

import math
from typing import Literal, assert_never

from modelforge.domain.conflicts import Asked, check_conflicts
from modelforge.domain.purposes import TUNED, Purpose
from modelforge.errors import BadInput
from trainer_entry import wire


def check_combination(
    task: wire.Task,
    strategy: wire.Strategy,
    provider: wire.Provider,
    parameters: wire.TrainingParameters,
    *,
    evaluates: bool = False,
) -> None:
    """Refuse what this release cannot train, and settings that contradict each other.

    `evaluates`: there are records to evaluate on beside the dataset.

    Raises:
        BadInput: `field` is the setting to change.
    """
    _check_task(task, strategy, provider)
    _check_provider(provider, parameters)
    _check_quantisation(strategy, parameters)
    _check_strategy(task, strategy, parameters)
    _check_precision(parameters)
    check_conflicts(Asked(task, strategy, provider, parameters))
    if parameters.bf16 and parameters.fp16:
        raise _conflict("bf16", "fp16", "Set at most one of them; with neither, the machine decides.")
    if parameters.max_seq_length == 0:
        raise BadInput(
            "max_seq_length cannot be 0", "Leave it out for the model's own maximum.", field="max_seq_length"
        )
    if parameters.max_steps == 0:
        raise BadInput("max_steps cannot be 0", "Leave it out to train for num_train_epochs.", field="max_steps")
    if not parameters.eval_split and not evaluates:
        for name in ("eval_steps", "early_stopping_patience"):
            if getattr(parameters, name) is not None:
                raise _conflict(name, "eval_split 0", f'Send "eval_split": 0.1 too, or leave out {name}.')
    if strategy == "rlhf":
        _check_generations(parameters)
        if parameters.use_vllm and parameters.use_8bit:
            raise _conflict(
                "use_vllm", "use_8bit", 'vLLM reads none in 8 bits: leave one out, or send "use_4bit": true.'
            )


def _check_task(task: wire.Task, strategy: wire.Strategy, provider: wire.Provider) -> None:
    if task != "extractive-question-answering":
        return
    if strategy in {"dpo", "rlhf"}:
        raise _conflict(
            f"strategy {strategy}", f"task {task}", 'Preferences are between generated texts: use "sft".', "strategy"
        )
    if provider == "unsloth":
        raise _conflict(
            "provider unsloth", f"task {task}", 'It trains causal models only: use "huggingface".', "provider"
        )


def _check_provider(provider: wire.Provider, parameters: wire.TrainingParameters) -> None:
    if provider != "unsloth":
        return
    if parameters.max_seq_length == -1:
        raise _conflict(
            "max_seq_length -1",
            "provider unsloth",
            "It needs a length that is fixed: send one, or leave it out for 2048.",
            "max_seq_length",
        )
    if parameters.attn_implementation is not None:
        raise _conflict(
            "attn_implementation", "provider unsloth", 'It has its own: leave it out, or use "huggingface".'
        )
    if parameters.use_vllm:
        raise _conflict(
            "use_vllm", "provider unsloth", 'It generates in its own way: leave it out, or use "huggingface".'
        )
    if parameters.num_processes > 1:
        raise _conflict(
            f"num_processes {parameters.num_processes}",
            "provider unsloth",
            'It trains in one process: send "num_processes": 1, or use "huggingface".',
            "num_processes",
        )


def _check_precision(parameters: wire.TrainingParameters) -> None:
    """Refuse types of numbers that contradict each other, or what attention can be computed with."""
    if parameters.weight_dtype is not None and parameters.use_lora:
        raise _conflict(
            "weight_dtype",
            "use_lora",
            "The frozen weights of an adapter are held as they are computed with, and it is itself held in 32 bits: "
            'leave weight_dtype out, or send "use_lora": false to train all weights.',
        )
    if parameters.weight_dtype == "bfloat16" and (parameters.bf16 is False or parameters.fp16):
        name = "fp16" if parameters.fp16 else "bf16 false"
        raise _conflict(
            "weight_dtype bfloat16",
            name,
            "They are computed with in bfloat16: leave bf16 and fp16 out.",
            "weight_dtype",
        )
    if parameters.attn_implementation == "flash_attention_2" and parameters.bf16 is False and not parameters.fp16:
        raise _conflict(
            "attn_implementation flash_attention_2",
            "bf16 false",
            'It computes in 16 bits: leave bf16 out, or send "fp16": true, or use "sdpa".',
            "attn_implementation",
        )


def _check_quantisation(strategy: wire.Strategy, parameters: wire.TrainingParameters) -> None:
    if parameters.use_4bit and parameters.use_8bit:
        raise _conflict("use_4bit", "use_8bit", "Weights are loaded in one precision: set one of them.")
    if strategy == "qlora":
        if parameters.use_4bit is False and not parameters.use_8bit:
            raise _conflict(
                "use_4bit false",
                "strategy qlora",
                'QLoRA trains on quantised weights: leave it out, send "use_8bit": true, or use "sft".',
                "use_4bit",
            )
        if not parameters.use_lora:
            raise _conflict(
                "use_lora false",
                "strategy qlora",
                'Quantised weights cannot be trained: use "sft".',
                "use_lora",
            )
        return
    for name, wanted in (("use_4bit", parameters.use_4bit), ("use_8bit", parameters.use_8bit)):
        if wanted and strategy == "sft":
            raise _conflict(name, f"strategy {strategy}", 'Use "strategy": "qlora".', name)
        if wanted and not parameters.use_lora:
            raise _conflict(
                "use_lora false",
                name,
                f"Quantised weights cannot be trained, an adapter on them can: leave out use_lora, or {name}.",
                "use_lora",
            )


_LEFT_OUT = wire.TrainingParameters()
_ONLY_RLHF = (
    *("reward_model", "reward_functions", "reward_learning_rate", "rl_algorithm", "num_generations"),
    *("max_completion_length", "use_vllm"),
)


def _check_strategy(task: wire.Task, strategy: wire.Strategy, parameters: wire.TrainingParameters) -> None:
    """Refuse parameters that another task or strategy has, where they are not as they are when left out."""
    changed = {name for name in parameters.__struct_fields__ if getattr(parameters, name) != getattr(_LEFT_OUT, name)}
    prefers = strategy in {"dpo", "rlhf"}
    asks = task == "extractive-question-answering"
    for name in _ONLY_RLHF:
        if name in changed and strategy != "rlhf":
            raise _conflict(name, f"strategy {strategy}", f'Leave out {name}, or use "rlhf".')
    if "beta" in changed and not prefers:
        raise _conflict("beta", f"strategy {strategy}", 'Leave out beta; "dpo" and "rlhf" have one.')
    if "packing" in changed and prefers:
        raise _conflict("packing", f"strategy {strategy}", 'Leave out packing, or use "sft" or "qlora".')
    if "packing" in changed and asks:
        raise _conflict("packing", f"task {task}", "Leave out packing: each question is read with its own context.")
    if "truncation" in changed and strategy == "rlhf":
        raise _conflict("truncation", f"strategy {strategy}", "Leave it out: nothing is cut, but left out if too long.")
    if "truncation" in changed and not prefers and task != "text-generation":
        cut = "contexts are read in windows" if asks else "the text is cut, and its summary is not"
        raise _conflict("truncation", f"task {task}", f"Leave it out: {cut}.")
    if "doc_stride" in changed and not asks:
        raise _conflict("doc_stride", f"task {task}", 'Leave out doc_stride; "extractive-question-answering" has one.')
    if "early_stopping_patience" in changed and strategy == "rlhf":
        raise _conflict(
            "early_stopping_patience",
            f"strategy {strategy}",
            "Leave it out: eval_split holds preferences back for the reward model, and no loss says when to stop.",
        )


def _check_generations(parameters: wire.TrainingParameters) -> None:
    """The completions of a prompt are compared with each other, so they have to stand in one batch."""
    wanted = parameters.num_generations
    beside = parameters.gradient_accumulation_steps * parameters.num_processes
    batch = parameters.per_device_train_batch_size * beside
    if batch % wanted == 0:
        return
    divisors = [number for number in range(2, 65) if batch % number == 0]
    nearest = {max((n for n in divisors if n < wanted), default=0), min((n for n in divisors if n > wanted), default=0)}
    step = wanted // math.gcd(wanted, beside)
    size = parameters.per_device_train_batch_size
    sizes = {size - size % step, size - size % step + step}
    works = [
        f"num_generations {' or '.join(map(str, sorted(nearest - {0})))}" if nearest - {0} else "",
        f"per_device_train_batch_size {' or '.join(map(str, sorted(sizes - {0})))}",
    ]
    raise BadInput(
        f"num_generations {wanted} does not divide the batch of {batch}",
        "The batch is per_device_train_batch_size * gradient_accumulation_steps * num_processes. "
        f"What works: {', or '.join(filter(None, works))}.",
        field="num_generations",
    )


Build = Literal["causal", "encoder-decoder", "headless"]
"""How a model is built: one that goes on with a text, one that turns a text into another, one that only reads it."""


def check_build(name: str, build: Build, purpose: Purpose, field: str) -> None:
    """Refuse a model, described as `name`, that cannot learn the task. `field` is the one that named it.

    Raises:
        BadInput: it says what the model is, and which would do.
    """
    task = purpose.task
    match build:
        case "causal":
            if task == "extractive-question-answering":
                raise BadInput(
                    f"This model cannot be trained for {task}",
                    f"{name} writes text, and the answer is to be found in one: use an encoder, such as BERT or "
                    'RoBERTa, or the task "text-generation".',
                    field=field,
                )
        case "headless":
            if task != "extractive-question-answering":
                raise BadInput(
                    f"This model cannot be trained for {task}",
                    f"{name} reads texts and writes none: use a causal model (…ForCausalLM), "
                    'or the task "extractive-question-answering".',
                    field=field,
                )
        case "encoder-decoder":
            if task != "summarization" or purpose.strategy not in TUNED:
                raise BadInput(
                    f"This model cannot be trained for {task} with {purpose.strategy}",
                    f"{name} is an encoder-decoder model, which is for summarization with sft or qlora: "
                    f"use {'one that only encodes' if task == 'extractive-question-answering' else 'a causal one'}.",
                    field=field,
                )
            if purpose.provider != "huggingface":
                raise BadInput(
                    f"This model cannot be trained by {purpose.provider}",
                    f'{name} is an encoder-decoder model: use "provider": "huggingface", or a causal model.',
                    field=field,
                )
        case _:
            assert_never(build)


def _conflict(one: str, other: str, remedy: str, field: str | None = None) -> BadInput:
    return BadInput(f"{one} and {other} do not go together", remedy, field=field or one)
