"""Supervised fine-tuning: of an adapter, or of all weights."""
# mypy: allow-untyped-calls

from collections.abc import Sized
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer
from trl.trainer.sft_trainer import SFTTrainer

from trainer_entry.checkpoint import prune, seal
from trainer_entry.failures import told_as_disk_full
from trainer_entry.parameters import lora_config, trainer_arguments
from trainer_entry.providers.huggingface import LoadedModel
from trainer_entry.tasks.text_generation import TokenizedRecords
from trainer_entry.wire import CHECKPOINT_MANIFEST, TrainingParameters


class CompletionTrainer(SFTTrainer):
    """trl's trainer with the model's own loss.

    trl's loss also computes entropy and accuracy for its logs, over every position where there is no Triton;
    the loss is the same, and a test holds it to that.
    """

    tokens_seen: torch.Tensor | int = 0
    checkpoint_limit: int | None = None

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - the signature is transformers'
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The mean over the completion tokens of the whole step."""
        if model.training:
            mask = inputs.get("attention_mask")
            self.tokens_seen = self.tokens_seen + (inputs["input_ids"].numel() if mask is None else mask.sum())
        return Trainer.compute_loss(self, model, inputs, return_outputs, num_items_in_batch)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save, seal, and only then remove older ones, which transformers would before this one is on the disk."""
        if not self.args.should_save:
            super()._save_checkpoint(model, trial)
            return
        folder = Path(self.args.output_dir or ".") / f"checkpoint-{self.state.global_step}"
        # An earlier attempt may have saved this step: from now until the end that checkpoint is not whole.
        (folder / CHECKPOINT_MANIFEST).unlink(missing_ok=True)
        with told_as_disk_full(folder):
            super()._save_checkpoint(model, trial)
            seal(folder, self.state.global_step)
        if self.checkpoint_limit is not None:
            prune(folder, self.checkpoint_limit, self.state.best_model_checkpoint)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """A checkpoint is no model: the card is written with the model, once."""


def build_trainer(
    loaded: LoadedModel,
    records: TokenizedRecords,
    parameters: TrainingParameters,
    checkpoint_dir: str,
) -> CompletionTrainer:
    """A trainer for the model as it is loaded."""
    adapter: PeftConfig | None = lora_config(parameters) if parameters.use_lora else None
    trainer = CompletionTrainer(
        model=loaded.model,
        args=trainer_arguments(parameters, checkpoint_dir),
        train_dataset=records.train,
        eval_dataset=records.evaluation,
        processing_class=loaded.tokenizer,
        peft_config=adapter,
    )
    # Ours to keep to: transformers removes checkpoints before the new one is on the disk, and at the end the newest.
    trainer.checkpoint_limit, trainer.args.save_total_limit = parameters.save_total_limit, None
    if parameters.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(parameters.early_stopping_patience))
    trainer.remove_callback(PrinterCallback)
    for weights in trained_model(trainer).parameters():
        if weights.requires_grad:
            # trl makes an adapter on quantized weights 16-bit, where an optimizer's small updates are lost.
            weights.data = weights.data.float()
    return trainer


def trained_model(trainer: Trainer) -> torch.nn.Module:
    """The trainer's model, which the libraries allow to be missing."""
    if trainer.model is None:
        raise TypeError("A trainer without a model.")
    return trainer.model


def count_rows(dataset: object) -> int:
    """How many rows the trainer made of a dataset; packing makes fewer of them."""
    return len(dataset) if isinstance(dataset, Sized) else 0


def count_parameters(trainer: Trainer) -> tuple[int, int]:
    """How many parameters are trained, and how many there are."""
    model = trained_model(trainer)
    if isinstance(model, PeftModel):  # knows how many parameters a packed 4-bit weight stands for
        trainable, total = model.get_nb_trainable_parameters()
        return int(trainable), int(total)
    sizes = [(weights.numel(), weights.requires_grad) for weights in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
