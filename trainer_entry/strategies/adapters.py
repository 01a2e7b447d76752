"""The LoRA adapters that are trained: their ranks, layers and heads, as peft takes them."""
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import TYPE_CHECKING

from peft import LoraConfig
from transformers import set_seed

if TYPE_CHECKING:
    from trainer_entry.providers.huggingface import LoadedModel
    from trainer_entry.wire import JobSpec, Task, TrainingParameters


def new_adapter(job: JobSpec, loaded: LoadedModel, parameters: TrainingParameters) -> LoraConfig | None:
    """The adapter that the trainer is to put on the model at once, if one is trained and it does not have it already.

    It begins with the numbers that the seed gives, whatever was drawn before; by itself trl sees to that from 1.16 on.
    """
    if not parameters.use_lora or loaded.is_adapted:
        return None
    set_seed(parameters.seed)
    return lora_config(parameters, job.task, encoder_decoder=loaded.is_encoder_decoder)


def lora_config(parameters: TrainingParameters, task: Task, *, encoder_decoder: bool) -> LoraConfig:
    """The adapter's configuration. A head for answers is trained whole: it is new.

    Such an adapter has no task type: peft's own class for answers would keep the token types from the model.
    """
    answers = task == "extractive-question-answering"
    return LoraConfig(
        task_type=None if answers else "SEQ_2_SEQ_LM" if encoder_decoder else "CAUSAL_LM",
        r=parameters.lora_r,
        lora_alpha=parameters.lora_alpha,
        lora_dropout=parameters.lora_dropout,
        target_modules=parameters.adapted_layers,
        modules_to_save=["qa_outputs"] if answers else None,
        exclude_modules=["qa_outputs"] if answers else None,
    )


def reward_lora_config(parameters: TrainingParameters) -> LoraConfig:
    """The configuration of a reward model's adapter, before it is merged; the head that rewards is trained whole."""
    causal = lora_config(parameters, "text-generation", encoder_decoder=False)
    return LoraConfig(
        task_type="SEQ_CLS",
        r=causal.r,
        lora_alpha=causal.lora_alpha,
        lora_dropout=causal.lora_dropout,
        target_modules=causal.target_modules,
        modules_to_save=["score"],
        exclude_modules=["score"],
    )
