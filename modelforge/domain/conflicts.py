"""Parameters that do not go with a task, a strategy, a provider or another parameter: docs/reference/parameters.md.

What transformers, trl and peft would pass over in silence, or train otherwise than it was asked for, is in it too.
"""

from collections.abc import Callable

from msgspec import Struct

from modelforge.errors import BadInput
from trainer_entry import wire

_LEFT_OUT = wire.TrainingParameters()
_ADAM = frozenset({"adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"})
_OF_ADAPTERS = ("use_rslora", "use_dora", "init_lora_weights", "modules_to_save", "loraplus_lr_ratio")
_WITHOUT_UNSLOTH = (
    *("use_dora", "init_lora_weights", "modules_to_save", "neftune_noise_alpha", "torch_compile", "liger"),
)
_OF_A_REFERENCE = "The base without its adapter, from which a part was taken, would be what the model is held to"
_NOT_IN_BITS = "The part that is taken off its weights would be lost as they are quantised again"


class Asked(Struct, frozen=True, gc=False):
    """A training that is asked for."""

    task: wire.Task
    strategy: wire.Strategy
    provider: wire.Provider
    parameters: wire.TrainingParameters

    @property
    def is_quantised(self) -> bool:
        """Whether the frozen weights are compressed."""
        return self.strategy == "qlora" or bool(self.parameters.use_4bit or self.parameters.use_8bit)

    @property
    def asks(self) -> bool:
        """Whether answers are found in contexts."""
        return self.task == "extractive-question-answering"


class Conflict(Struct, frozen=True, gc=False):
    """A parameter, and what it does not go with. `holds`: in a training in which it is set; `value`: to what."""

    parameter: str
    other: str
    remedy: str
    holds: Callable[[Asked], bool]
    value: str = ""

    @property
    def setting(self) -> str:
        """The parameter, with the value that it is about, if it is about one."""
        return f"{self.parameter} {self.value}".strip()


def _initialised(*names: str) -> Callable[[wire.TrainingParameters], bool]:
    return lambda parameters: str(parameters.init_lora_weights).split("_")[0] in names


_changes_base = _initialised("pissa", "olora")
_is_orthogonal = _initialised("orthogonal")
_TAKEN_OFF, _ORTHOGONAL = "pissa, olora", "orthogonal"

CONFLICTS: tuple[Conflict, ...] = (
    *(
        Conflict(name, "use_lora false", f"It is of adapters: leave out {name}, or use_lora.",
                 lambda asked: not asked.parameters.use_lora)
        for name in _OF_ADAPTERS
    ),
    *(
        Conflict(name, "report_to none", f'It is of trackers: leave out {name}, or name one, such as "wandb".',
                 lambda asked: not asked.parameters.trackers)
        for name in ("tracker_project", "tracker_run", "tracker_tags")
    ),
    *(
        Conflict(name, "provider unsloth", f'Leave out {name}, or use "huggingface".',
                 lambda asked: asked.provider == "unsloth")
        for name in _WITHOUT_UNSLOTH
    ),
    # Its forward pass takes the scales from bitsandbytes' weights, without which the next step fails.
    Conflict("use_dora", "use_8bit", "Its second step would fail: leave out use_dora, or use_8bit for 4 bits.",
             lambda asked: asked.parameters.use_8bit),
    Conflict("init_lora_weights", "strategy dpo", f'{_OF_A_REFERENCE}: use "orthogonal", or leave it out.',
             lambda asked: asked.strategy == "dpo" and _changes_base(asked.parameters), _TAKEN_OFF),
    Conflict("init_lora_weights", "strategy rlhf", f'{_OF_A_REFERENCE}: use "orthogonal", or leave it out.',
             lambda asked: asked.strategy == "rlhf" and _changes_base(asked.parameters), _TAKEN_OFF),
    Conflict("init_lora_weights", "quantised weights", f'{_NOT_IN_BITS}: use "gaussian", or "sft" without use_4bit.',
             lambda asked: asked.is_quantised and _changes_base(asked.parameters), _TAKEN_OFF),
    Conflict("init_lora_weights", "quantised weights", 'peft has none for them: use "gaussian", or leave it out.',
             lambda asked: asked.is_quantised and _is_orthogonal(asked.parameters), _ORTHOGONAL),
    Conflict("init_lora_weights", "use_dora", "Use one of the two.",
             lambda asked: asked.parameters.use_dora and _changes_base(asked.parameters), _TAKEN_OFF),
    Conflict("init_lora_weights", "an odd lora_r", "It is made of pairs: send an even lora_r.",
             lambda asked: asked.parameters.lora_r % 2 == 1 and _is_orthogonal(asked.parameters), _ORTHOGONAL),
    Conflict("modules_to_save", "the same in target_modules", "They are trained whole: name them in one of the two.",
             lambda asked: bool(set(asked.parameters.modules_to_save or ()) & set(_targets(asked.parameters)))),
    Conflict("loraplus_lr_ratio", "optim adafactor, sgd", 'It is for Adam: use "adamw_torch" or "adamw_8bit".',
             lambda asked: asked.parameters.optim not in _ADAM),
    Conflict("neftune_noise_alpha", "strategy dpo", "The reference would be read with other noise: leave it out.",
             lambda asked: asked.strategy == "dpo"),
    Conflict("neftune_noise_alpha", "strategy rlhf", "Completions would be judged with other noise: leave it out.",
             lambda asked: asked.strategy == "rlhf"),
    Conflict("neftune_noise_alpha", "task extractive-question-answering", "It is for written texts: leave it out.",
             lambda asked: asked.asks),
    Conflict("loss_type", "another strategy than dpo", 'Leave out loss_type, or use "dpo".',
             lambda asked: asked.strategy != "dpo"),
    Conflict("loss_type", "beta 0", "It divides by beta: send one above 0, or leave it out for 0.1.",
             lambda asked: asked.parameters.beta == 0 and asked.parameters.loss_type in {"ipo", "sppo_hard"},
             "ipo, sppo_hard"),
    Conflict("group_by_length", "strategy dpo", 'Leave it out, or use "sft" or "qlora".',
             lambda asked: asked.strategy == "dpo"),
    Conflict("group_by_length", "strategy rlhf", 'Leave it out, or use "sft" or "qlora".',
             lambda asked: asked.strategy == "rlhf"),
    Conflict("group_by_length", "packing", "Packed rows are of one length: use one of the two.",
             lambda asked: asked.parameters.packing),
    Conflict("torch_compile", "strategy rlhf", "Its model is changed between writing and learning: leave it out.",
             lambda asked: asked.strategy == "rlhf"),
    Conflict("torch_compile", "quantised weights", 'Leave it out, or use "sft" without use_4bit and use_8bit.',
             lambda asked: asked.is_quantised),
    Conflict("torch_compile", "num_processes above 1", 'Leave it out, or send "num_processes": 1.',
             lambda asked: asked.parameters.num_processes > 1),
    Conflict("liger", "strategy rlhf", 'Leave it out, or use "sft", "qlora" or "dpo".',
             lambda asked: asked.strategy == "rlhf"),
    Conflict("liger", "task extractive-question-answering", "It has no kernels for encoders: leave it out.",
             lambda asked: asked.asks),
)  # fmt: skip
"""Every combination that is refused for a parameter that was set, in the order of docs/training.md."""


def check_conflicts(asked: Asked) -> None:
    """Refuse parameters that do not go together.

    Raises:
        BadInput: it names the parameter that was set, what it does not go with, and what would work.
    """
    _check_names(asked.parameters)
    for conflict in CONFLICTS:
        name = conflict.parameter
        value = getattr(asked.parameters, name)
        if value == getattr(_LEFT_OUT, name) or not conflict.holds(asked):
            continue
        setting = f"{name} {value}" if conflict.value else name
        raise BadInput(f"{setting} and {conflict.other} do not go together", conflict.remedy, field=name)


def _check_names(parameters: wire.TrainingParameters) -> None:
    """Refuse names of initialisations and losses that are none, or that are not trained with here."""
    initial = parameters.init_lora_weights
    if initial is not True and not wire.is_initialisation(initial):
        needs = " needs the records, or other settings," if initial in _NEEDING else ""
        shown = "false" if initial is False else initial
        raise BadInput(
            f"init_lora_weights {shown} is not among those that adapters begin with here",
            f"{f'It{needs} and is left out. ' if needs else ''}Leave it out for true, or use "
            f"{', '.join(wire.ADAPTER_INITIALISATIONS)} (or another number).",
            field="init_lora_weights",
        )
    loss = parameters.loss_type
    if loss not in wire.LOSSES:
        why = _LEFT_OUT_LOSSES.get(loss, "")
        raise BadInput(
            f"loss_type {loss} is not among the losses of dpo here",
            f"{f'{why} ' if why else ''}Use {', '.join(wire.LOSSES)}.",
            field="loss_type",
        )


_NEEDING = frozenset({"eva", "corda", "loftq", "lora_ga", "mica"})
_EXPERIMENTAL = "trl has it in trl.experimental only, which changes without notice: it is left out."
_SMOOTHED = "It needs a label_smoothing, which is no parameter here."
_OF_BATCHES = "It is a loss of whole batches, and no mean over records: it is left out."
_LEFT_OUT_LOSSES = {
    **dict.fromkeys(("simpo", "cpo", "orpo"), _EXPERIMENTAL),
    **dict.fromkeys(("robust", "exo_pair"), _SMOOTHED),
    **dict.fromkeys(("aot", "aot_unpaired"), _OF_BATCHES),
    "discopop": "Trainings begin on the wrong side of its hump, where rejected answers get likelier: it is left out.",
    "sft": 'It learns from the chosen answers alone, which the strategy "sft" does.',
}


def _targets(parameters: wire.TrainingParameters) -> tuple[str, ...]:
    target = parameters.target_modules
    return (target,) if isinstance(target, str) else target
