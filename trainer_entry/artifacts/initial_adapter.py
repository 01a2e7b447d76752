"""Adapters that begin as a part of their base (PiSSA, OLoRA): what is trained on, kept, and saved without it.

PiSSA (arXiv 2404.02948) takes the principal part of a weight W, s B0 A0, off it, and trains it: W - s B0 A0 + s B A.
So does OLoRA (arXiv 2406.01775), with a part of its QR decomposition. The adapter that is saved is a plain one on W, of
twice the rank: s (B A - B0 A0) = s [B, -B0] [A; A0]. Checkpoints have A and B alone, which go with W - s B0 A0: so B0
and A0 are kept beside them, and every attempt takes the same off, whatever its device would decompose W into.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers.pytorch_utils import Conv1D

from trainer_entry.runtime import distributed
from trainer_entry.runtime.disk import disk_full_errors, sync_entry
from trainer_entry.runtime.failures import ConflictingParameters, ModelUnavailable

if TYPE_CHECKING:
    from trainer_entry.training.trainer import AttemptTrainer
    from trainer_entry.wire import JobSpec, TrainingParameters

_FOLDER, _FILE = "initial_adapter", "initial.safetensors"
_NAME = "default"
_HALVES = (("lora_A", 0, 1), ("lora_B", 1, -1))
"""The two matrices of an adapter: along which axis they grow with the rank, and the sign of what is taken off."""


def kept_initial(job: JobSpec, parameters: TrainingParameters) -> bool:
    """Whether an earlier attempt took a part off the base: this one is to take off the same."""
    return parameters.changes_base and _file(job).is_file()


def settle_initial(trainer: AttemptTrainer, job: JobSpec, parameters: TrainingParameters, *, resumes: bool) -> None:
    """Keep what the new adapter took off its base, or take off what that of an earlier attempt did.

    Raises:
        ConflictingParameters: a layer has no such part.
        ModelUnavailable: the attempt goes on from a checkpoint, and what goes with it is not there.
    """
    if not parameters.changes_base:
        return
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    if not isinstance(model, PeftModel):
        return
    layers = _layers_of(model)
    _check(layers, parameters)
    file = _file(job)
    if not file.is_file():
        if resumes:
            raise ModelUnavailable(f"{file} is gone, without which the checkpoint means nothing: start the job anew.")
        distributed.wait_for_all()  # else another process could read what this one writes
        if trainer.is_world_process_zero():
            _keep(layers, file)
        distributed.wait_for_all()
        return
    distributed.wait_for_all()
    initial = load_file(file)
    for name, layer in layers.items():
        _take_off(layer, *(initial[f"{name}.{half}"] for half, _, _ in _HALVES))
    config: Any = model.peft_config[_NAME]
    config.init_lora_weights = parameters.init_lora_weights


def save_plain(model: PeftModel, job: JobSpec, folder: Path) -> None:
    """Save an adapter that began as a part of its base as one of twice the rank, on the base as it was.

    peft's own way (`path_initial_model_for_weight_conversion`) leaves out what is trained whole.
    """
    initial = load_file(_file(job))
    state = model.state_dict()
    for name in _layers_of(model):
        for half, axis, sign in _HALVES:
            key = f"{name}.{half}.{_NAME}.weight"
            ours = state[key]
            theirs = initial[f"{name}.{half}"].to(device=ours.device, dtype=ours.dtype)
            state[key] = torch.cat([ours, sign * theirs], dim=axis)
    trained: Any = model.peft_config[_NAME]
    plain = copy.deepcopy(trained)
    plain.init_lora_weights = True
    plain.r *= 2
    plain.lora_alpha *= math.sqrt(2) if plain.use_rslora else 2  # so that the scale stays
    try:
        model.peft_config[_NAME] = plain
        model.save_pretrained(str(folder), state_dict=state)
    finally:
        model.peft_config[_NAME] = trained


def _layers_of(model: Any) -> dict[str, Any]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}


def _file(job: JobSpec) -> Path:
    return Path(job.checkpoint_dir) / _FOLDER / _FILE


def _keep(layers: dict[str, Any], file: Path) -> None:
    halves = {
        f"{name}.{half}": getattr(layer, half)[_NAME].weight.detach().float().cpu().contiguous()
        for name, layer in layers.items()
        for half, _, _ in _HALVES
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    with disk_full_errors(file.parent):
        save_file(halves, partial)
        sync_entry(partial)
        partial.rename(file)
        sync_entry(file.parent)
        sync_entry(file.parent.parent)


def _take_off(layer: Any, first: torch.Tensor, second: torch.Tensor) -> None:
    """As peft does it: in 32 bits, and the rest in the weight's own type."""
    base = layer.get_base_layer()
    weight = base.weight.data
    device = weight.device
    with torch.no_grad():
        for half, values in (("lora_A", first), ("lora_B", second)):
            getattr(layer, half)[_NAME].weight.data.copy_(values)
        part = layer.scaling[_NAME] * second.to(device) @ first.to(device)
        rest = (weight.float().T if isinstance(base, Conv1D) else weight.float()) - part
        base.weight.data = (rest.T if isinstance(base, Conv1D) else rest).to(weight.dtype)


def _check(layers: dict[str, Any], parameters: TrainingParameters) -> None:
    for name, layer in layers.items():
        base = layer.get_base_layer()
        if not isinstance(base, torch.nn.Linear | Conv1D):
            raise ConflictingParameters(
                f"init_lora_weights {parameters.init_lora_weights}: {name} is no linear layer. Leave it out of "
                "target_modules, or leave out init_lora_weights."
            )
        least = min(base.weight.shape)
        if parameters.lora_r > least:
            raise ConflictingParameters(
                f"init_lora_weights {parameters.init_lora_weights}: {name} has a rank of {least} at most. Lower lora_r "
                f"from {parameters.lora_r}, or leave out init_lora_weights."
            )
        if isinstance(base, Conv1D) and parameters.init_lora_weights == "olora":
            raise ConflictingParameters(
                f"init_lora_weights olora: {name} holds its weight transposed, which peft does not heed. Use pissa."
            )
