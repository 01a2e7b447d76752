"""A trained model on disk: there whole, or not at all."""
# mypy: allow-untyped-calls

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import PeftModel

from trainer_entry import ranks
from trainer_entry.callback import WireCallback, finite
from trainer_entry.checkpoint import sync, sync_entry
from trainer_entry.failures import told_as_disk_full
from trainer_entry.model_card import write_card
from trainer_entry.wire import JobSpec, ModelKind, SavedModel, TrainingParameters

if TYPE_CHECKING:
    from trainer_entry.attempt_trainer import AttemptTrainer
    from trainer_entry.providers.huggingface import LoadedModel
    from trainer_entry.strategies.rlhf import Rewards


def save_model(
    trainer: AttemptTrainer,
    loaded: LoadedModel,
    job: JobSpec,
    parameters: TrainingParameters,
    metrics: dict[str, float | None],
    rewards: Rewards | None = None,
) -> SavedModel:
    """Write weights, tokenizer, chat template, generation config and card, and only then give them their place.

    A reward model that was trained for `rewards` goes beside them.
    """
    kind: ModelKind = "adapter" if isinstance(trainer.model, PeftModel) else "full"
    output = Path(job.output_dir)
    partial = output.with_name(output.name + ".partial")
    if trainer.is_world_process_zero():
        for leftover in (partial, output):  # of an earlier attempt that did not live to tell of it
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        with told_as_disk_full(partial):
            model = trainer.accelerator.unwrap_model(trainer.model)
            model.save_pretrained(partial)
            loaded.tokenizer.save_pretrained(partial)
            if kind == "adapter" and model.can_generate():
                model.generation_config.save_pretrained(partial)
            if rewards is not None:
                rewards.keep_beside(partial)
            card = write_card(
                job, parameters, metrics, kind, loaded.revision, encoder_decoder=loaded.is_encoder_decoder
            )
            (partial / "README.md").write_text(card, encoding="utf-8")
            sync(partial)
        partial.rename(output)
        sync_entry(output.parent)
        if rewards is not None:
            rewards.remove_from_checkpoints()
    ranks.wait_for_all()
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    reward_model = None if rewards is None else rewards.path_beside(output)
    return SavedModel(path=str(output), kind=kind, size_bytes=size, metrics=metrics, reward_model_path=reward_model)


def save_checkpoint(trainer: AttemptTrainer, callback: WireCallback) -> str | None:
    """The checkpoint of the last step that was made; it is saved now unless it was, or there was no step."""
    step = trainer.state.global_step
    if step > callback.first_step and (callback.checkpoint is None or callback.checkpoint[0] != step):
        # The loop was left where it saves nothing itself: this is what it calls after a step.
        trainer._save_checkpoint(trainer.model_wrapped, trial=None)  # noqa: SLF001
        callback.on_save(trainer.args, trainer.state, trainer.control)
    return callback.checkpoint[1] if callback.checkpoint else None


def final_metrics(trained: dict[str, Any], callback: WireCallback, trainer: AttemptTrainer) -> dict[str, float | None]:
    """Every figure of the end: of the training, and of the last evaluation.

    Of a job that was resumed, those are left out that would be of its last attempt alone: its speed, its tokens.
    """
    logged = [(int(entry["step"]), float(entry["loss"])) for entry in trainer.state.log_history if "loss" in entry]
    if callback.first_step == 0:
        figures = {name: value for name, value in trained.items() if name != "epoch"}
        figures["num_tokens"] = float(trainer.count_tokens()) or float(trainer.state.num_input_tokens_seen)
    else:
        figures = {"train_loss": _mean_over_steps(logged)}
    plain, _ = finite({"final_loss": logged[-1][1] if logged else None, **figures})
    return {**plain, **callback.last_figures, "epoch": float(trainer.state.epoch or 0.0), **callback.evaluation}


def _mean_over_steps(logged: list[tuple[int, float]]) -> float | None:
    """The mean loss of all steps, from (step, mean loss since the entry before)."""
    before = [0, *(step for step, _ in logged)]
    sums = [(step - last) * loss for last, (step, loss) in zip(before, logged, strict=False)]
    return sum(sums) / before[-1] if logged else None
