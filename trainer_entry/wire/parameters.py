"""The hyperparameters of a job, named as transformers, trl and peft name them."""

import re
from typing import Annotated, Literal

from msgspec import Meta, Struct

from trainer_entry.wire.rewards import RewardFunction, RewardFunctions, functions_of

Scheduler = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
]
Optimizer = Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"]

Attention = Literal["eager", "sdpa", "flash_attention_2"]
"""How attention is computed, by transformers' names."""
WeightDtype = Literal["float32", "bfloat16"]
"""In what weights are held that are all trained."""

Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]
"""Programs that are told a training's figures beside the server, by the names of their packages."""
Trackers = Annotated[tuple[Tracker, ...], Meta(min_length=1, max_length=4)]
TrackerName = Annotated[str, Meta(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}$(?!\n)")]
"""What all of them take as the name of a project and of a run."""
TrackerTag = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
TrackerTags = Annotated[tuple[TrackerTag, ...], Meta(min_length=1, max_length=32)]

Truncation = Literal["right", "left", "drop"]
"""What is taken of an example that is too long: its beginning, its end, or nothing."""

LOSSES = (
    *("sigmoid", "sigmoid_norm", "hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard"),
    *("apo_zero", "apo_down"),
)
"""Losses of `dpo`, by trl's names, that need nothing else and are means over records."""
ADAPTER_INITIALISATIONS = ("gaussian", "orthogonal", "pissa", "pissa_niter_4", "olora")
"""How an adapter may begin beside peft's own way (true), by peft's names; of `pissa_niter_` any number."""
_INITIALISATION = re.compile(r"gaussian|orthogonal|olora|pissa|pissa_niter_([1-9]|[1-5][0-9]|6[0-4])")
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Layers = Annotated[tuple[Name, ...], Meta(min_length=1, max_length=100)]

PositiveInt = Annotated[int, Meta(ge=1, le=1_000_000)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]

UNSLOTH_LENGTH = 2048
"""The `max_seq_length` of a model that unsloth loads, where none was asked for: its own default."""


class TrainingParameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Every hyperparameter of a job, named as transformers, trl and peft name them.

    None means "chosen by the trainer for this strategy and device"; the trainer reports what it chose in
    `TrainerStarted.parameters`, where no field of this kind is left open.
    """

    num_train_epochs: Annotated[float, Meta(gt=0, le=10_000)] | None = None
    max_steps: Annotated[int, Meta(ge=-1, le=100_000_000)] = -1
    per_device_train_batch_size: Annotated[int, Meta(ge=1, le=4096)] = 4
    per_device_eval_batch_size: Annotated[int, Meta(ge=1, le=4096)] | None = None
    gradient_accumulation_steps: Annotated[int, Meta(ge=1, le=65_536)] = 1
    gradient_checkpointing: bool | None = None
    learning_rate: Annotated[float, Meta(gt=0, le=10)] | None = None
    lr_scheduler_type: Scheduler = "linear"
    warmup_steps: Annotated[int, Meta(ge=0, le=100_000_000)] = 0
    warmup_ratio: Fraction = 0.0
    weight_decay: Annotated[float, Meta(ge=0, le=10)] = 0.0
    max_grad_norm: Annotated[float, Meta(ge=0, le=1e6)] = 1.0
    optim: Optimizer = "adamw_torch"
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 42
    bf16: bool | None = None
    fp16: bool | None = None
    attn_implementation: Attention | None = None
    torch_compile: bool = False
    liger: bool = False
    max_seq_length: Annotated[int, Meta(ge=-1, le=10_000_000)] | None = None
    truncation: Truncation = "right"
    packing: bool = False
    group_by_length: bool = False
    neftune_noise_alpha: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    eval_split: Annotated[float, Meta(ge=0, le=0.9)] = 0.0
    eval_steps: PositiveInt | None = None
    logging_steps: PositiveInt = 1
    save_steps: PositiveInt = 500
    save_total_limit: PositiveInt | None = 3
    early_stopping_patience: PositiveInt | None = None
    lora_r: Annotated[int, Meta(ge=1, le=4096)] = 16
    lora_alpha: Annotated[int, Meta(ge=1, le=65_536)] = 32
    lora_dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: bool | Annotated[str, Meta(min_length=1, max_length=40)] = True
    loraplus_lr_ratio: Annotated[float, Meta(gt=0, le=10_000)] | None = None
    target_modules: Annotated[str, Meta(min_length=1, max_length=1000)] | Layers = "all-linear"
    modules_to_save: Layers | None = None
    use_lora: bool = True
    weight_dtype: WeightDtype | None = None
    use_4bit: bool | None = None
    use_8bit: bool = False
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    bnb_4bit_compute_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    use_nested_quant: bool = True
    beta: Annotated[float, Meta(ge=0, le=100)] | None = None
    loss_type: Annotated[str, Meta(min_length=1, max_length=40)] = "sigmoid"
    reward_model: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    reward_functions: RewardFunctions | None = None
    reward_learning_rate: Annotated[float, Meta(gt=0, le=10)] | None = None
    rl_algorithm: Literal["rloo", "grpo"] = "rloo"
    num_generations: Annotated[int, Meta(ge=2, le=64)] = 4
    max_completion_length: Annotated[int, Meta(ge=1, le=1_000_000)] = 256
    use_vllm: bool = False
    doc_stride: Annotated[int, Meta(ge=0, le=1_000_000)] = 128
    num_processes: Annotated[int, Meta(ge=1, le=64)] = 1
    report_to: Literal["none", "tensorboard", "wandb", "mlflow", "trackio"] | Trackers = "none"
    tracker_project: TrackerName | None = None
    tracker_run: TrackerName | None = None
    tracker_tags: TrackerTags | None = None

    @property
    def rewards(self) -> tuple[RewardFunction, ...]:
        """The reward functions, each with its options."""
        return functions_of(self.reward_functions)

    @property
    def trackers(self) -> tuple[Tracker, ...]:
        """Who is told the figures, each once."""
        named = self.report_to
        if isinstance(named, str):
            return () if named == "none" else (named,)
        return tuple(dict.fromkeys(named))

    @property
    def adapted_layers(self) -> str | list[str]:
        """`target_modules` as peft takes it, for which a text is a pattern of whole paths: one name is a list of it."""
        target = self.target_modules
        if not isinstance(target, str):
            return list(target)
        return [target] if target.isidentifier() else target

    @property
    def changes_base(self) -> bool:
        """Whether the adapter begins as a part of its base's weights, which is taken off them (PiSSA, OLoRA)."""
        return isinstance(self.init_lora_weights, str) and self.init_lora_weights.startswith(("pissa", "olora"))


def is_initialisation(name: str | bool) -> bool:  # noqa: FBT001 - peft's own type
    """Whether adapters can begin so here, beside peft's own way."""
    return isinstance(name, str) and _INITIALISATION.fullmatch(name) is not None
