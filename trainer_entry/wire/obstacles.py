"""What speaks against a training and can be known before its model is loaded: one rule for the server and the trainer.

The server refuses by it before anything is started, and the trainer as soon as it knows what the server could not.
"""

import math

from msgspec import Struct

from trainer_entry.wire.job import Strategy, Task
from trainer_entry.wire.parameters import TrainingParameters
from trainer_entry.wire.rewards import FormatTags, LengthReward

_LEAST_TEXT = 2
_LEAST_WINDOW = 4
_MOST_SEED = 2**32 - 1
_LAST_RATE = 1e-7
"""Where the schedule `polynomial` ends, in transformers: it has to begin above."""


_READ_AS_ONE = frozenset({"bert", "bloom", "gpt_oss", "mamba", "mpt", "opt", "xglm"})
"""Types of models that were found to read records which share a sequence as one; the trainer tries each other one."""


_TRANSPOSED = frozenset({"gpt2", "imagegpt", "openai-gpt"})
"""Types of models whose linear layers are transformers' `Conv1D`."""


class Obstacle(Struct, frozen=True, gc=False):
    """Why a training cannot be made. `field`: the setting to change; `remedy`: what would work."""

    field: str
    message: str
    remedy: str

    @property
    def text(self) -> str:
        """All of it, as a sentence or two."""
        return f"{self.message}. {self.remedy}"


def held_out_count(records: int, eval_split: float) -> int:
    """How many of the records are kept for evaluation: at least one if a share is asked for, never all."""
    return max(0, min(max(1, round(records * eval_split)), records - 1)) if eval_split > 0 else 0


def policy_steps(parameters: TrainingParameters, prompts: int) -> int:
    """The optimizer steps of reinforcement learning; each completes as many prompts as its groups have room for.

    trl's RepeatSampler leaves out the prompts at an epoch's end that fill no step: too few prompts make none, however
    many steps are asked for.
    """
    completions = (
        parameters.per_device_train_batch_size * parameters.gradient_accumulation_steps * parameters.num_processes
    )
    in_epoch = prompts * parameters.num_generations // completions
    if parameters.max_steps > 0 and in_epoch > 0:
        return parameters.max_steps
    return math.ceil((parameters.num_train_epochs or 1) * in_epoch)


def in_records(parameters: TrainingParameters, strategy: Strategy, records: int) -> Obstacle | None:
    """What speaks against a training on so many records."""
    held_out = held_out_count(records, parameters.eval_split)
    if parameters.eval_split > 0 and held_out == 0:
        return Obstacle(
            "eval_split",
            f"eval_split {parameters.eval_split:g} cannot hold back one of {records} records",
            "Add some, or leave it out.",
        )
    return in_prompts(parameters, records - held_out) if strategy == "rlhf" else None


def in_prompts(parameters: TrainingParameters, prompts: int) -> Obstacle | None:
    """What speaks against reinforcement learning from so many prompts."""
    if policy_steps(parameters, prompts) > 0:
        return None
    return Obstacle(
        "per_device_train_batch_size",
        f"{prompts} prompts fill no step",
        "It completes per_device_train_batch_size * gradient_accumulation_steps * num_processes / num_generations of "
        "them. Lower these, or add records.",
    )


def in_context(parameters: TrainingParameters, strategy: Strategy, context: int) -> Obstacle | None:
    """What speaks against a training of a model that takes so many tokens."""
    if strategy != "rlhf" or parameters.max_completion_length < context:
        return None
    return Obstacle(
        "max_completion_length",
        f"max_completion_length {parameters.max_completion_length} leaves no room for a prompt",
        f"The model takes {context} tokens: lower it.",
    )


def in_seed(parameters: TrainingParameters, strategy: Strategy) -> Obstacle | None:
    """What speaks against a seed: each process of reinforcement learning has its own, counted from it."""
    most = _MOST_SEED - (parameters.num_processes - 1)
    if strategy != "rlhf" or parameters.seed <= most:
        return None
    return Obstacle(
        "seed",
        f"seed {parameters.seed} leaves none for {parameters.num_processes} processes",
        f"Each counts its own from it: send {most} or less.",
    )


def in_reward_model(name: str, figures: int) -> Obstacle | None:
    """What speaks against a model that gives so many figures, and is to reward a policy."""
    if figures == 1:
        return None
    return Obstacle(
        "reward_model",
        f"{name} is no reward model: it gives {figures} figures, and a reward is one",
        "Name a sequence classifier with num_labels 1, or leave out reward_model to have one trained.",
    )


def in_reward_functions(parameters: TrainingParameters, *, beside_a_model: bool) -> Obstacle | None:
    """What speaks against the options of reward functions. `beside_a_model`: a reward model rewards too."""
    functions = parameters.rewards
    if functions and not beside_a_model and all(function.weight == 0 for function in functions):
        return Obstacle(
            "reward_functions",
            "Every reward function has the weight 0, so nothing is rewarded",
            "Give one another weight, or leave it out for 1.",
        )
    for place, function in enumerate(functions):
        at = f"reward_functions[{place}]"
        match function:
            case LengthReward(target=None, min=None, max=None):
                return Obstacle(at, "length has nothing to compare with", 'Send "target", or "min", "max" or both.')
            case LengthReward(target=int(), min=least, max=most) if (least, most) != (None, None):
                return Obstacle(f"{at}.target", "target and min or max do not go together", "Send one of both.")
            case LengthReward(min=int(least), max=int(most)) if least > most:
                return Obstacle(f"{at}.min", f"min {least} is more than max {most}", "Lower min, or raise max.")
            case FormatTags(tags=tags) if len(set(tags)) < len(tags):
                return Obstacle(f"{at}.tags", "A tag is there twice", "Name each once.")
            case _:
                pass
    return None


def in_length(parameters: TrainingParameters, task: Task) -> Obstacle | None:
    """What speaks against a length: a text's first token is never predicted, and a window has tokens of its own."""
    least = _LEAST_WINDOW if task == "extractive-question-answering" else _LEAST_TEXT
    length = parameters.max_seq_length
    if length is None or length < 1 or length >= least:
        return None
    return Obstacle(
        "max_seq_length",
        f"Nothing can be learned within max_seq_length {length}",
        f"Send {least} or more, or leave it out for the model's own maximum.",
    )


def in_packing(parameters: TrainingParameters, kind: str | None, *, encoder_decoder: bool) -> Obstacle | None:
    """What speaks against packing the records of a model of a kind, as its config has it in `model_type`."""
    if not parameters.packing:
        return None
    if encoder_decoder:
        return Obstacle(
            "packing",
            "packing is for causal models, and this is an encoder-decoder",
            "Leave it out, or use a causal model.",
        )
    return read_as_one(kind) if kind in _READ_AS_ONE else None


def in_build(parameters: TrainingParameters, kind: str | None, *, encoder_decoder: bool) -> Obstacle | None:
    """What speaks against what else was asked for, in a model of a kind, as its config has it in `model_type`."""
    if encoder_decoder and parameters.neftune_noise_alpha is not None:
        return Obstacle(
            "neftune_noise_alpha",
            "neftune_noise_alpha is for causal models: the parts of an encoder-decoder read embeddings past the noise",
            "Leave it out, or use a causal model.",
        )
    if encoder_decoder and parameters.liger:
        return Obstacle(
            "liger", "liger has no kernels for encoder-decoder models", "Leave it out, or use a causal model."
        )
    if encoder_decoder and parameters.torch_compile:
        return Obstacle(
            "torch_compile", "torch_compile is for causal models here", "Leave it out, or use a causal model."
        )
    if kind in _TRANSPOSED and parameters.init_lora_weights == "olora":
        return Obstacle(
            "init_lora_weights",
            f"init_lora_weights olora: models of type {kind} hold their weights transposed, which peft does not heed",
            'Use "pissa", or leave it out.',
        )
    return None


def read_as_one(kind: str | None) -> Obstacle:
    """That models of a kind read records which share a sequence as one."""
    return Obstacle(
        "packing",
        f"packing: models of type {kind} do not know records apart that share a sequence, and would learn each from "
        "those before it",
        "Leave packing out, or use a model of another kind, such as Llama or Qwen.",
    )


def in_schedule(parameters: TrainingParameters) -> Obstacle | None:
    """What speaks against the learning rates, as far as they are said: `polynomial` goes down to 1e-7."""
    if parameters.lr_scheduler_type != "polynomial":
        return None
    for name in ("learning_rate", "reward_learning_rate"):
        rate = getattr(parameters, name)
        if rate is not None and rate <= _LAST_RATE:
            return Obstacle(
                name,
                f"{name} {rate:g} is no more than the {_LAST_RATE:g} that lr_scheduler_type polynomial ends at",
                f'Raise {name}, or send "lr_scheduler_type": "linear".',
            )
    return None


def on_cpu_with_unsloth(parameters: TrainingParameters, strategy: Strategy) -> Obstacle | None:
    """What speaks against a training by unsloth on a machine without a GPU."""
    if parameters.fp16:
        return Obstacle(
            "fp16",
            "unsloth does not compute in fp16 on a CPU",
            "Set bf16, or neither, or use the provider huggingface.",
        )
    if parameters.use_8bit:
        return Obstacle(
            "use_8bit",
            "unsloth does not quantize to 8 bits on a CPU",
            "Set use_4bit, or use the provider huggingface.",
        )
    quantizes = strategy == "qlora" if parameters.use_4bit is None else parameters.use_4bit
    computed_in = "bfloat16" if parameters.bf16 else "float32"
    has_its_way = (
        (parameters.bnb_4bit_quant_type, parameters.use_nested_quant) == ("nf4", True)
        and parameters.bnb_4bit_compute_dtype in {None, computed_in}
    )  # fmt: skip
    if not quantizes or has_its_way:
        return None
    return Obstacle(
        "provider",
        "On a CPU unsloth quantizes in one way only",
        "Leave out bnb_4bit_quant_type, bnb_4bit_compute_dtype and use_nested_quant, which are then "
        f'"nf4", "{computed_in}" and true, or use the provider huggingface.',
    )
