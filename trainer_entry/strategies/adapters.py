"""The LoRA adapters that are trained: their ranks, layers and heads, as peft takes them."""
# mypy: allow-untyped-calls

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from transformers import set_seed

from trainer_entry.artifacts.merge import merge_layers
from trainer_entry.providers.model_folder import check_folder
from trainer_entry.runtime.failures import BaseChanged, ModelUnavailable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from trainer_entry.providers.huggingface import LoadedModel
    from trainer_entry.wire import JobSpec, Task, TrainingParameters


def go_on(loaded: LoadedModel, job: JobSpec, parameters: TrainingParameters) -> LoadedModel:
    """The model with the adapter that the job goes on from: as one that is trained, or in all weights that are.

    Raises:
        ModelUnavailable: the adapter is not there any more.
        BaseChanged: these are not the weights that it was trained on.
    """
    if job.adapter is None:
        return loaded
    path = _checked_adapter(job, loaded.revision)
    model: Any = loaded.model
    if not parameters.use_lora:
        model = merge_layers(PeftModel.from_pretrained(model, path), model.dtype)
        model.requires_grad_(requires_grad=True)  # an adapter's base is frozen
    elif isinstance(model, PeftModel):  # unsloth's own, which is new
        loading: Any = set_peft_model_state_dict(model, load_peft_weights(path, device="cpu"))
        if loading.unexpected_keys:
            names = ", ".join(loading.unexpected_keys[:3])
            raise ModelUnavailable(f"unsloth puts no adapter on {names}, and {path} has one there.")
    else:
        config = LoraConfig.from_pretrained(path)
        config.lora_dropout = parameters.lora_dropout
        model = PeftModel.from_pretrained(model, path, is_trainable=True, config=config)
    return msgspec.structs.replace(loaded, model=model)


def _checked_adapter(job: JobSpec, revision: str | None) -> str:
    """The folder of the adapter that the job goes on from, which was trained on the weights of `revision`."""
    adapter = job.adapter
    if adapter is None:
        raise TypeError("The job goes on from no adapter.")
    if not (Path(adapter.path) / "adapter_config.json").is_file():
        raise ModelUnavailable(f"There is no adapter in {adapter.path} any more.")
    check_folder(adapter.path)
    if adapter.base_revision not in {None, revision}:
        raise BaseChanged(
            f"{job.model_path} has other weights ({revision}) than the adapter was trained on "
            f"({adapter.base_revision}). Put those back, or train anew."
        )
    return adapter.path


def with_earlier(model: PreTrainedModel, job: JobSpec, revision: str | None) -> PreTrainedModel:
    """A model of another class with the adapter that the job goes on from in its weights.

    Raises:
        ModelUnavailable: the adapter is not there any more.
        BaseChanged: these are not the weights that it was trained on.
    """
    if job.adapter is None:
        return model
    path = _checked_adapter(job, revision)
    config = LoraConfig.from_pretrained(path)
    config.task_type = None  # peft's class for it asks for what only a model that writes has
    merged = merge_layers(PeftModel.from_pretrained(model, path, config=config), model.dtype)
    merged.requires_grad_(requires_grad=True)  # an adapter's base is frozen
    return merged


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
