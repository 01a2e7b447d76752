"""Supervised fine-tuning: of an adapter, on weights of 4 or 8 bits too (QLoRA, arXiv 2305.14314), or of all weights."""
# mypy: allow-untyped-calls

from collections.abc import Mapping
from typing import Any

import torch
import trl.trainer.utils
from datasets import Dataset
from peft import get_peft_model
from transformers import (
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    Seq2SeqTrainer,
    Trainer,
)
from trl.trainer.sft_trainer import SFTTrainer

from trainer_entry.data.examples import IGNORED, LINE, Examples
from trainer_entry.providers.huggingface import LoadedModel
from trainer_entry.strategies.adapters import new_adapter
from trainer_entry.strategies.lora_linear import join_adapters
from trainer_entry.strategies.loss_head import add_loss_head
from trainer_entry.strategies.packing import check_packing
from trainer_entry.training.arguments import completion_arguments, sequence_arguments, span_arguments
from trainer_entry.training.evaluation import RowEvaluation, TokenLoss
from trainer_entry.training.trainer import AttemptTrainer, plain_model, set_up, trained_model
from trainer_entry.wire import JobSpec, TrainingParameters

_TRL_HAS_HEAD = hasattr(trl.trainer.utils, "add_fused_lm_head")
"""From 1.16 on; before, trl put such a loss in the place of the model's own."""


class CompletionTrainer(AttemptTrainer, TokenLoss, SFTTrainer):
    """trl's trainer with a head that never holds all logits: trl's on a GPU, and on the CPU ours.

    trl's loss also computes entropy and accuracy for its logs, over every position where there is no Triton, and
    its head computes the logits twice (`loss_head` does not). The loss is the same, and tests hold it to that. Where a
    model makes something else of its logits than `loss_head` knows, it is the model's own.
    """

    fuses_head = _TRL_HAS_HEAD and torch.cuda.is_available()
    has_loss_head = False

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - the signature is transformers'
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The mean over the completion tokens of the whole step."""
        inputs["use_cache"] = False  # with one, records that share a sequence would see each other
        head = {"fused_lm_head": True} if self.fuses_head else {"loss_head": True} if self.has_loss_head else {}
        asked = {**inputs, **head}
        return Trainer.compute_loss(self, model, asked, return_outputs, num_items_in_batch)


class FusedCompletionTrainer(CompletionTrainer):
    """With the loss that unsloth put into trl's trainer: the same one, without holding the logits of all tokens."""

    fuses_head = False

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - the signature is transformers'
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The mean over the completion tokens of the whole step."""
        if torch.is_grad_enabled():
            return SFTTrainer.compute_loss(self, model, inputs, return_outputs, num_items_in_batch)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


class SequenceTrainer(AttemptTrainer, TokenLoss, Seq2SeqTrainer):
    """For encoder-decoder models."""

    predicts_next = False


class SpanTrainer(AttemptTrainer, RowEvaluation, Trainer):
    """For answers that stand in a context; no answer stands in what fills a batch up, whatever its weight there."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - the signature is transformers'
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The mean over the rows of how unlikely both ends of the answer are."""
        own, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        loss = _loss_of_ends(outputs, inputs) if "start_logits" in outputs else own  # XLNet gives no other
        return (loss, outputs) if return_outputs else loss


def build_trainer(
    job: JobSpec, loaded: LoadedModel, examples: Examples, parameters: TrainingParameters
) -> AttemptTrainer:
    """A trainer for the model as it is loaded."""
    trainer = _build(job, loaded, examples, parameters)
    set_up(trainer, job, parameters)
    # torch.compile joins the operations of a layer itself, and cannot look into those that are joined already.
    if job.provider == "huggingface" and not torch.cuda.is_available() and not parameters.torch_compile:
        join_adapters(trained_model(trainer))
        if isinstance(trainer, CompletionTrainer) and not parameters.fp16:
            trainer.has_loss_head = add_loss_head(plain_model(trainer))
    return trainer


def _build(job: JobSpec, loaded: LoadedModel, examples: Examples, parameters: TrainingParameters) -> AttemptTrainer:
    encoder_decoder = loaded.is_encoder_decoder
    adapter = new_adapter(job, loaded, parameters)
    answers = job.task == "extractive-question-answering"
    if not answers and not encoder_decoder:
        completion_trainer = FusedCompletionTrainer if job.provider == "unsloth" else CompletionTrainer
        trainer = completion_trainer(
            model=loaded.model,
            args=completion_arguments(parameters, job.checkpoint_dir),
            train_dataset=_packable(examples.train, parameters),
            eval_dataset=examples.evaluation and _packable(examples.evaluation, parameters),
            processing_class=loaded.tokenizer,
            peft_config=adapter,
        )
        if parameters.packing and job.provider == "huggingface":  # unsloth packs in its own way
            check_packing(trainer)
        return trainer
    model: Any = get_peft_model(loaded.model, adapter) if adapter is not None else loaded.model
    if parameters.use_lora and parameters.gradient_checkpointing:
        model.enable_input_require_grads()
    if answers:
        return SpanTrainer(
            model=model,
            args=span_arguments(parameters, job.checkpoint_dir),
            train_dataset=examples.train,
            eval_dataset=examples.evaluation,
            data_collator=DataCollatorWithPadding(loaded.tokenizer),
            processing_class=loaded.tokenizer,
        )
    return SequenceTrainer(
        model=model,
        args=sequence_arguments(parameters, job.checkpoint_dir),
        train_dataset=examples.train,
        eval_dataset=examples.evaluation,
        data_collator=DataCollatorForSeq2Seq(loaded.tokenizer, model=model, label_pad_token_id=IGNORED),
        processing_class=loaded.tokenizer,
        compute_loss_func=_loss_by_token,
    )


def _packable(rows: Dataset, parameters: TrainingParameters) -> Dataset:
    """Rows that are packed into one stand in no one line."""
    return rows.remove_columns(LINE) if parameters.packing else rows


def _loss_by_token(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross-entropy, the mean over the answer's tokens of the whole step; few of these models can do it themselves."""
    logits = outputs["logits"].float()
    flat = labels.to(logits.device).reshape(-1)
    total = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), flat, ignore_index=IGNORED, reduction="sum"
    )
    return total / ((flat != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)


def _loss_of_ends(outputs: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy of the first and the last token of the answer, each among the tokens of its own row."""
    filled = inputs["attention_mask"] == 0
    losses = [
        torch.nn.functional.cross_entropy(
            outputs[f"{end}_logits"].float().masked_fill(filled, -torch.inf), inputs[f"{end}_positions"]
        )
        for end in ("start", "end")
    ]
    return torch.stack(losses).mean()
