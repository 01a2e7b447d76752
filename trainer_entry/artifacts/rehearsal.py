"""Saving, rehearsed before the first step: what could fail after days of training fails at once instead.

All is written that is written at the end, by the same functions, beside the place where the model will lie; but no
weights, which are only looked at: whether safetensors takes them, and whether the disk has room.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peft.peft_model
import transformers.modeling_utils
from safetensors import torch as safetensors

from trainer_entry.artifacts.save import write_beside, write_model
from trainer_entry.runtime import distributed
from trainer_entry.runtime.disk import disk_full_errors, says_no_room
from trainer_entry.runtime.failures import CannotBeSaved, message_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from trainer_entry.providers.huggingface import KnownModel, LoadedModel
    from trainer_entry.training.trainer import AttemptTrainer
    from trainer_entry.wire import JobSpec, TrainingParameters

_WRITERS: tuple[Any, ...] = (transformers.modeling_utils, peft.peft_model)
"""The modules that write weights, each by its own name for what safetensors has for that."""


def rehearse_saving(trainer: AttemptTrainer, loaded: LoadedModel, job: JobSpec, parameters: TrainingParameters) -> None:
    """Write the model as it will be saved, without its weights, and take it away again.

    Raises:
        CannotBeSaved: something of it cannot be written; the message says what the library says.
        DiskFull: there is no room for it.
    """
    if trainer.is_world_process_zero():
        model: Any = trainer.accelerator.unwrap_model(trainer.model)
        with _rehearsed(Path(job.output_dir)) as folder:
            write_model(folder, model, loaded, job, parameters, {})


def rehearse_beside(known: KnownModel, job: JobSpec, parameters: TrainingParameters) -> None:
    """The same for what stands beside a policy's weights, before its reward model is trained.

    Raises:
        CannotBeSaved: something of it cannot be written.
        DiskFull: there is no room for it.
    """
    if distributed.rank() > 0:
        return
    with _rehearsed(Path(job.output_dir)) as folder:
        write_beside(folder, "adapter" if parameters.use_lora else "full", known, job, parameters, {})


def rehearse_merged(model: Any, tokenizer: Any, place: Path) -> None:
    """The same for a model whose adapter, if it has one, is merged before it is saved at `place`.

    Raises:
        CannotBeSaved: something of it cannot be written.
        DiskFull: there is no room for it.
    """
    merged = model.get_base_model() if hasattr(model, "get_base_model") else model
    with _rehearsed(place) as folder:
        merged.save_pretrained(folder, state_dict={})  # the adapter's weights still stand among the others
        tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _rehearsed(place: Path) -> Iterator[Path]:
    """A folder beside a place, in which a model is saved in the block, but for its weights."""
    folder = place.with_name(f"{place.name}.rehearsal")
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
    try:
        folder.mkdir(parents=True)
        with disk_full_errors(folder), _weights_unwritten():
            yield folder
    except Exception as error:
        if says_no_room(error):
            raise
        raise CannotBeSaved(
            f"The trained model could not be saved, so it is not trained: {type(error).__name__}: {message_of(error)} "
            "Correct the model's files (its configuration, tokenizer or generation_config.json), or use another model."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _weights_unwritten() -> Iterator[None]:
    """Look at weights in the block, where the libraries would write them: they have no option for that."""
    originals = [module.safe_save_file for module in _WRITERS]
    try:
        for module in _WRITERS:
            module.safe_save_file = _look_at
        yield
    finally:
        for module, original in zip(_WRITERS, originals, strict=True):
            module.safe_save_file = original


def _look_at(tensors: dict[str, torch.Tensor], filename: str | os.PathLike[str], **_: object) -> None:
    """Instead of writing weights: what safetensors would refuse, and what the disk has no room for, as they say it."""
    shared = [sorted(names) for names in safetensors._find_shared_tensors(tensors) if len(names) > 1]  # noqa: SLF001
    if shared:
        raise RuntimeError(f"Some tensors share memory, which safetensors does not save: {', '.join(shared[0])}.")
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if shutil.disk_usage(Path(filename).parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
