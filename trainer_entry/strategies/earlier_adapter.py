"""The adapter of an earlier training that this one goes on from, on the weights that it was trained on."""
# mypy: allow-untyped-calls

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights

from trainer_entry.artifacts.merge import check_base, merge_layers, untie_ends
from trainer_entry.providers.model_folder import check_folder
from trainer_entry.runtime.failures import ModelUnavailable
from trainer_entry.training.trainer import trained_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

    from trainer_entry.providers.huggingface import LoadedModel
    from trainer_entry.wire import JobSpec, TrainingParameters


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
        model = _merged(PeftModel.from_pretrained(model, path), model)
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
    check_base(job.model_path, revision, adapter.base_revision)
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
    return _merged(PeftModel.from_pretrained(model, path, config=config), model)


def _merged(adapted: PeftModel, base: PreTrainedModel) -> PreTrainedModel:
    """The base with the adapter in its weights, all of which can be trained."""
    model = merge_layers(adapted, base.dtype)
    model.requires_grad_(requires_grad=True)  # an adapter's base is frozen
    return model


def hold_to_the_beginning(trainer: Trainer, job: JobSpec) -> None:
    """Let a model whose weights are all trained be held to itself, with the earlier adapter that was merged into it.

    trl reads its reference anew, from where the model without the adapter lies.
    """
    reference: Any = getattr(trainer, "ref_model", None)
    if job.adapter is None or reference is None:
        return
    reference = trainer.accelerator.unwrap_model(reference)
    model: Any = trainer.accelerator.unwrap_model(trained_model(trainer))
    if not model.config.tie_word_embeddings:
        untie_ends(reference)
    reference.load_state_dict(model.state_dict())
