"""What all trainers of an attempt have in common: sealed checkpoints, counted tokens, no step on a broken loss."""
# mypy: allow-untyped-calls

import functools
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from peft.utils.other import ModulesToSaveWrapper
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer

from trainer_entry.data.examples import LINE, Examples, in_words
from trainer_entry.runtime import distributed
from trainer_entry.runtime.claim import check_claim
from trainer_entry.runtime.disk import disk_full_errors, sync_entry
from trainer_entry.runtime.failures import LossNotFinite, NotTrainedWhole
from trainer_entry.training.checkpoint import prune, remove, seal
from trainer_entry.training.evaluation import WeighedEvaluation
from trainer_entry.training.sampling import EpochLengthSampler
from trainer_entry.wire import CHECKPOINT_MANIFEST, JobSpec, TrainingParameters

_REFERENCE, _TRAINED = "ref", "default"  # trl's name, and peft's


class AttemptTrainer(WeighedEvaluation):
    """Stands before transformers' or trl's own trainer among the parents of a class.

    `steps_before`, `steps_after`: optimizer steps of the job's phases before and after this one; its checkpoints are
    numbered after the former. `left_out_elsewhere`: examples that those phases leave out. `reward_labels`: what the
    rewards of a policy are reported as.
    """

    token_count: torch.Tensor | int = 0
    checkpoint_dir: Path
    checkpoint_limit: int | None = None
    steps_before = 0
    steps_after = 0
    left_out_elsewhere = 0
    loraplus_lr_ratio: float | None = None
    reward_labels: tuple[str, ...] = ()
    _loss_was_finite = False

    def keep_checkpoints(self, folder: str, limit: int | None, steps_before: int = 0) -> None:
        """Put the checkpoints into `folder`, the newest `limit` of them.

        transformers would remove checkpoints before the new one is on the disk, and at the end the newest.
        """
        self.checkpoint_dir, self.checkpoint_limit, self.steps_before = Path(folder), limit, steps_before
        self.args.save_total_limit = None
        elsewhere = Path(self.args.output_dir or ".")
        if elsewhere != self.checkpoint_dir and self.is_world_process_zero():
            shutil.rmtree(elsewhere, ignore_errors=True)  # what an earlier attempt left half saved

    def checkpoint_at(self, step: int) -> Path:
        """Where the checkpoint of a step of this phase lies."""
        return self.checkpoint_dir / f"checkpoint-{self.steps_before + step}"

    def training_step(
        self, model: torch.nn.Module, inputs: Any, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """One forward and backward.

        Raises:
            LossNotFinite: not even the first loss was a number.
            NotTrainedWhole: what is to be trained whole has no part in it.
        """
        named = inputs if isinstance(inputs, Mapping) else {}
        if "input_ids" in named:
            mask = named.get("attention_mask")
            self.token_count = self.token_count + (named["input_ids"].numel() if mask is None else mask.sum())
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not self._loss_was_finite:
            if not torch.isfinite(loss):
                raise LossNotFinite(
                    f"The loss of the first records is {float(loss)}{self._lines_of(named)}. "
                    "Check these records, the model's weights, and fp16, which overflows where bf16 does not."
                )
            check_all_learn(trained_model(self))
            self._loss_was_finite = True
        return loss

    def count_tokens(self) -> int:
        """How many tokens this trainer has read, in all processes together, which all ask at the same place."""
        return distributed.total(int(self.token_count))

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As transformers does it; with LoRA+ (arXiv 2402.12354), of peft's groups, which have rates of their own."""
        if self.loraplus_lr_ratio is not None and self.optimizer is None:
            trained: Any = trained_model(self) if model is None else model
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, trained)
            grouped: Any = create_loraplus_optimizer(
                trained,
                _Groups,  # type: ignore[arg-type]  # transformers makes the optimizer of them, for 8 bits too
                lr=self.args.learning_rate,
                loraplus_lr_ratio=self.loraplus_lr_ratio,
                loraplus_weight_decay=self.args.weight_decay,
            )
            self.optimizer_cls_and_kwargs = (kind, {**options, "params": grouped.groups})
        made: torch.optim.Optimizer = super().create_optimizer(model)
        return made

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """As the libraries do it; by length, in an order that an attempt which goes on finds again."""
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return EpochLengthSampler(step, [len(ids) for ids in rows["input_ids"]], self.args.seed)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """As transformers does it; `polynomial` divides by the steps after the warm-up, of which one is left."""
        if (
            self.args.lr_scheduler_type == "polynomial"
            and self.args.get_warmup_steps(num_training_steps) == num_training_steps
        ):
            self.args.warmup_steps = num_training_steps - 1
        return super().create_scheduler(num_training_steps, optimizer)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """A checkpoint is no model: the card is written with the model, once."""

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save, seal, and only then remove older ones, which transformers would before this one is on the disk."""
        step = self.state.global_step
        saved, kept = Path(self.args.output_dir or ".") / f"checkpoint-{step}", self.checkpoint_at(step)
        if not self.args.should_save:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            return
        check_claim()  # or a step that a later attempt has saved would not be whole any more
        # An earlier attempt may have saved this step: from now until the end that checkpoint is not whole.
        (saved / CHECKPOINT_MANIFEST).unlink(missing_ok=True)
        with disk_full_errors(saved):
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # each process saves the state of its random numbers
            check_claim()
            seal(saved, self.steps_before + step)
        if saved != kept:
            if kept.exists():
                remove(kept)
            saved.rename(kept)
            sync_entry(kept.parent)
        if self.checkpoint_limit is not None:
            prune(kept, self.checkpoint_limit, self.state.best_model_checkpoint)

    def _lines_of(self, inputs: Mapping[str, Any]) -> str:
        """Which lines of the dataset the rows of a batch came from, in words, as far as it can be found out."""
        dataset: Any = self.train_dataset
        columns = set(getattr(dataset, "column_names", None) or [])
        if LINE not in columns or "input_ids" not in inputs:
            return ""
        mask = inputs.get("attention_mask")
        rows = inputs["input_ids"].tolist() if mask is None else [
            row[kept.bool()].tolist() for row, kept in zip(inputs["input_ids"], mask, strict=True)
        ]  # fmt: skip
        limit = getattr(self.args, "max_length", None)
        found = {
            line
            for line, texts in zip(dataset[LINE], _texts_of(dataset), strict=True)
            if any(ids[:limit] in rows for ids in texts)
        }
        return f" (dataset, {in_words(sorted(found))})" if found else ""


class _Groups:
    """Stands where peft makes an optimizer, and has the groups that it makes it of."""

    def __init__(self, groups: list[dict[str, Any]], **_: Any) -> None:
        self.groups = groups


def _texts_of(dataset: Any) -> Iterator[list[list[int]]]:
    """What stands in each row as a model reads it: one text, or a prompt with each of its two answers."""
    for row in dataset:
        if "input_ids" in row:
            yield [row["input_ids"]]
        else:
            prompt = row.get("prompt_ids", [])  # a reward model's rows have it in both
            yield [prompt + row["chosen_ids"], prompt + row["rejected_ids"]]


def set_up(trainer: AttemptTrainer, job: JobSpec, parameters: TrainingParameters, steps_before: int = 0) -> None:
    """What every trainer of a job does beside training."""
    trainer.keep_checkpoints(job.checkpoint_dir, parameters.save_total_limit, steps_before)
    trainer.loraplus_lr_ratio = parameters.loraplus_lr_ratio
    if parameters.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(parameters.early_stopping_patience))
    trainer.remove_callback(PrinterCallback)
    if job.adapter is None:
        drop_reference(trainer)
    else:
        leave_reference_unsaved(trainer)
    if parameters.weight_dtype != "bfloat16":
        keep_updates_exact(trainer)


def trained_model(trainer: Trainer) -> torch.nn.Module:
    """The trainer's model, which the libraries allow to be missing."""
    if trainer.model is None:
        raise TypeError("A trainer without a model.")
    return trainer.model


def plain_model(trainer: Trainer) -> torch.nn.Module:
    """The model below its adapter: the one that generates."""
    model = trained_model(trainer)
    return model.get_base_model() if isinstance(model, PeftModel) else model


def prepare_anew(trainer: Trainer) -> None:
    """Let a training after an evaluation prepare the model again.

    The evaluation prepares it for one process alone, and accelerate prepares nothing twice: without an error each
    process would train a model of its own.
    """
    model: Any = trainer.accelerator.unwrap_model(trained_model(trainer), keep_fp32_wrapper=False)
    model._is_accelerate_prepared = False  # noqa: SLF001 - accelerate has no other way


def check_shares_gradients(trainer: Trainer) -> None:
    """Refuse to train several models where one was asked for.

    Raises:
        TypeError: the processes of the attempt would not share their gradients.
    """
    if distributed.count() > 1 and not isinstance(trainer.model_wrapped, torch.nn.parallel.DistributedDataParallel):
        raise TypeError(f"A {type(trainer.model_wrapped).__name__} that {distributed.count()} processes do not share.")


def check_all_learn(model: torch.nn.Module) -> None:
    """Refuse modules that are trained whole and from which no loss depends: nothing of them would be learned.

    Raises:
        NotTrainedWhole: it names the module.
    """
    for name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper) and all(
            weights.grad is None for weights in module.modules_to_save.parameters()
        ):
            path = name.removeprefix("base_model.model.")
            raise NotTrainedWhole(f"modules_to_save: {path} has no part in what is learned: leave it out.")


def count_rows(dataset: Any) -> int:
    """How many rows the trainer made of a dataset; packing makes fewer of them."""
    return len(dataset) if hasattr(dataset, "__len__") else 0


def rows_left_out(trainer: Trainer, examples: Examples) -> int:
    """How many examples the trainer makes no row of: that of reward models leaves out answers that are too long."""
    pairs = ((examples.train, trainer.train_dataset), (examples.evaluation, trainer.eval_dataset))
    return sum(max(0, count_rows(given) - count_rows(made)) for given, made in pairs)


def count_parameters(trainer: Trainer) -> tuple[int, int]:
    """How many parameters are trained, and how many there are."""
    model = trained_model(trainer)
    if isinstance(model, PeftModel):  # knows how many parameters a packed 4-bit weight stands for
        trainable, total = model.get_nb_trainable_parameters()
        return int(trainable), int(total)
    sizes = [(weights.numel(), weights.requires_grad) for weights in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def drop_reference(trainer: Trainer) -> None:
    """Let a new adapter be held to the model without it, and not to the copy that trl makes of one it did not make.

    An untrained adapter changes nothing, so both are the same reference; the copy would go into every checkpoint.
    """
    model = trained_model(trainer)
    if isinstance(model, PeftModel) and _REFERENCE in model.peft_config:
        model.delete_adapter(_REFERENCE)


def leave_reference_unsaved(trainer: Trainer) -> None:
    """Save the adapter that is trained, and not trl's copy of how it was, which a resumed attempt makes again.

    transformers would take a checkpoint with both for one of several adapters, and pass over the one that is trained.
    """
    model: Any = trained_model(trainer)
    if isinstance(model, PeftModel) and _REFERENCE in model.peft_config:
        saved = functools.partial(model.save_pretrained, selected_adapters=[_TRAINED])
        setattr(model, "save_pretrained", saved)  # noqa: B010 - a method, for this model alone


def keep_updates_exact(trainer: Trainer) -> None:
    """Train in 32 bits: trl makes an adapter on quantized weights 16-bit, where small updates are lost."""
    for weights in trained_model(trainer).parameters():
        if weights.requires_grad:
            weights.data = weights.data.float()
