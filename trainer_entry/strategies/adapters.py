"""The LoRA adapters that are trained: their ranks, layers and heads, as peft takes them."""
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft import LoraConfig
from transformers import set_seed

from trainer_entry.artifacts.initial_adapter import kept_initial
from trainer_entry.strategies.whole_modules import NONE, WholeModules, whole_modules

if TYPE_CHECKING:
    from trainer_entry.providers.huggingface import LoadedModel
    from trainer_entry.wire import JobSpec, Task, TrainingParameters


def new_adapter(job: JobSpec, loaded: LoadedModel, parameters: TrainingParameters) -> LoraConfig | None:
    """The adapter that the trainer is to put on the model at once, if one is trained and it does not have it already.

    It begins with the numbers that the seed gives, whatever was drawn before; by itself trl sees to that from 1.16 on.
    Where an earlier attempt took a part off the base, this one will take off the same (`initial_adapter`).
    """
    if not parameters.use_lora or loaded.is_adapted:
        return None
    set_seed(parameters.seed)
    whole = whole_modules(loaded.model, parameters)
    config = lora_config(parameters, job.task, encoder_decoder=loaded.is_encoder_decoder, whole=whole)
    if kept_initial(job, parameters):
        config.init_lora_weights = True
    return config


def lora_config(
    parameters: TrainingParameters, task: Task, *, encoder_decoder: bool, whole: WholeModules = NONE
) -> LoraConfig:
    """The adapter's configuration. A head for answers is trained whole: it is new.

    Such an adapter has no task type: peft's own class for answers would keep the token types from the model.
    """
    answers = task == "extractive-question-answering"
    task_type = None if answers else "SEQ_2_SEQ_LM" if encoder_decoder else "CAUSAL_LM"
    return _config(parameters, task_type, ["qa_outputs"] if answers else [], whole)


def reward_lora_config(parameters: TrainingParameters, whole: WholeModules = NONE) -> LoraConfig:
    """The configuration of a reward model's adapter, before it is merged; the head that rewards is trained whole."""
    return _config(parameters, "SEQ_CLS", ["score"], whole)


def _config(parameters: TrainingParameters, task_type: str | None, heads: list[str], whole: WholeModules) -> LoraConfig:
    initial: Any = parameters.init_lora_weights
    return LoraConfig(
        task_type=task_type,
        r=parameters.lora_r,
        lora_alpha=parameters.lora_alpha,
        lora_dropout=parameters.lora_dropout,
        use_rslora=parameters.use_rslora,
        use_dora=parameters.use_dora,
        init_lora_weights=initial,
        target_modules=parameters.adapted_layers,
        modules_to_save=list(dict.fromkeys([*heads, *whole.paths])) or None,
        exclude_modules=list(dict.fromkeys([*heads, *whole.within])) or None,
        ensure_weight_tying=whole.tied,
    )
