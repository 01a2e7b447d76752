"""A trained model on disk: there whole, or not at all."""
# mypy: allow-untyped-calls

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import PeftModel

from trainer_entry.artifacts.initial_adapter import save_plain
from trainer_entry.artifacts.model_card import write_card
from trainer_entry.runtime import distributed
from trainer_entry.runtime.claim import check_claim
from trainer_entry.runtime.disk import disk_full_errors, sync_entry, sync_tree
from trainer_entry.wire import JobSpec, ModelKind, SavedModel, TrainingParameters

if TYPE_CHECKING:
    from trainer_entry.providers.huggingface import KnownModel, LoadedModel
    from trainer_entry.training.trainer import AttemptTrainer


def save_model(
    trainer: AttemptTrainer,
    loaded: LoadedModel,
    job: JobSpec,
    parameters: TrainingParameters,
    metrics: dict[str, float | None],
    reward_model: Path | None = None,
) -> SavedModel:
    """Write weights, tokenizer, chat template, generation config and card, and only then give them their place.

    `reward_model`: the folder of one that was trained for this model; it is moved to stand in the model's folder.
    """
    output = Path(job.output_dir)
    partial = output.with_name(output.name + ".partial")
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    kind: ModelKind = "adapter" if isinstance(model, PeftModel) else "full"
    if trainer.is_world_process_zero():
        check_claim()  # or what another attempt has published would go
        for leftover in (partial, output):  # of an earlier attempt that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        with disk_full_errors(partial):
            write_model(partial, model, loaded, job, parameters, metrics)
            if reward_model is not None:
                shutil.copytree(reward_model, partial / reward_model.name, dirs_exist_ok=True)
            sync_tree(partial)
        check_claim()
        partial.rename(output)
        sync_entry(output.parent)
        if reward_model is not None:  # nothing goes on from it any more
            shutil.rmtree(reward_model, ignore_errors=True)
    distributed.wait_for_all()
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    reward_model_path = None if reward_model is None else str(output / reward_model.name)
    return SavedModel(
        path=str(output), kind=kind, size_bytes=size, metrics=metrics, reward_model_path=reward_model_path
    )


def write_model(
    folder: Path,
    model: Any,
    loaded: LoadedModel,
    job: JobSpec,
    parameters: TrainingParameters,
    metrics: dict[str, float | None],
) -> None:
    """Write a model into a folder, with all that belongs to it."""
    is_adapter = isinstance(model, PeftModel)
    if is_adapter and parameters.changes_base:
        save_plain(model, job, folder)
    else:
        model.save_pretrained(folder)
    if is_adapter and model.can_generate():  # peft writes none
        model.generation_config.save_pretrained(folder)
    write_beside(folder, "adapter" if is_adapter else "full", loaded, job, parameters, metrics)


def write_beside(
    folder: Path,
    kind: ModelKind,
    known: KnownModel,
    job: JobSpec,
    parameters: TrainingParameters,
    metrics: dict[str, float | None],
) -> None:
    """Write what is known before the model is loaded: tokenizer, chat template and card."""
    known.tokenizer.save_pretrained(folder)
    card = write_card(job, parameters, metrics, kind, known.revision, encoder_decoder=known.is_encoder_decoder)
    (folder / "README.md").write_text(card, encoding="utf-8")
