"""Evaluations whose figures are those of the held-out records, however these fall into batches and processes.

transformers gives the mean of the batches' means, weighed by their rows: where answers are of unequal lengths that is
another number for every batch size. trl gives the mean of the batches' figures, though the last batch is seldom full.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer

from trainer_entry.data.examples import IGNORED
from trainer_entry.runtime import distributed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.utils.data import DataLoader
    from transformers.trainer_utils import EvalLoopOutput


class WeighedEvaluation(Trainer):
    """An evaluation in which each record counts as much as every other.

    `sides`: rows of a batch that stand for one record, one block of them after the other.
    """

    sides = 1
    _sums: torch.Tensor  # of the losses, and of what they are weighed by
    _records: list[int]

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,  # noqa: FBT001 - the signature is transformers'
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate; the sums of all batches and processes make the figures."""
        self._sums, self._records = torch.zeros(2, dtype=torch.float64), []
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix=metric_key_prefix
        )
        loss, weight = distributed.sums(self._sums).tolist()
        metrics: Any = output.metrics
        metrics[f"{metric_key_prefix}_loss"] = loss / weight if weight else math.nan
        for values in getattr(self, "_metrics", {}).get("eval", {}).values():  # what trl has of each batch
            if len(values) == len(self._records):
                values[:] = [_mean(values, self._records)]
        return output

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: Any,
        prediction_loss_only: bool,  # noqa: FBT001 - the signature is transformers'
        ignore_keys: list[str] | None = None,
        **_: Any,
    ) -> Any:
        """One batch."""
        self._records.append(self._records_of(inputs))
        loss, weight = self.mean_loss(model, inputs, prediction_loss_only, ignore_keys)
        if weight:
            self._sums += torch.tensor([float(loss) * weight, weight], dtype=torch.float64)
        return loss, None, None

    def mean_loss(self, model: torch.nn.Module, inputs: Any, *how: Any) -> tuple[torch.Tensor, int]:
        """The loss of a batch, and of how many of what it is the mean: records."""
        loss: Any = super().prediction_step(model, inputs, *how)[0]
        return loss, _rows_of(inputs) // self.sides

    def own_rows(self, rows: int) -> int:
        """How many of a batch's rows no other process has.

        In the last batch accelerate gives out rows once more, so that every process has as many; the records are the
        first of all those rows, in the order of the processes.
        """
        records = self._records_of_last()
        return rows if records is None else min(max(records - distributed.rank() * rows, 0), rows)

    def _records_of(self, inputs: Any) -> int:
        """How many records the batches of all processes have together."""
        records = self._records_of_last()
        return _rows_of(inputs) // self.sides * distributed.count() if records is None else records

    def _records_of_last(self) -> int | None:
        """How many records the last batches of all processes have together; None where no row is given out twice."""
        last = self.accelerator.gradient_state
        repeats = distributed.count() > 1 and last.end_of_dataloader and last.remainder > 0
        return int(last.remainder) if repeats else None


class RowEvaluation(WeighedEvaluation):
    """The same where the rows of a batch can be taken apart: those that another process has as well are left out."""

    def mean_loss(self, model: torch.nn.Module, inputs: Any, *how: Any) -> tuple[torch.Tensor, int]:
        """The loss of a batch, and how many rows it is the mean of."""
        own = self.own_rows(_rows_of(inputs))
        loss, _ = super().mean_loss(model, {name: rows[: max(own, 1)] for name, rows in inputs.items()}, *how)
        return loss, own


class TokenLoss(WeighedEvaluation):
    """A loss that is the mean over all tokens of all answers, in an evaluation and between two reports of a training.

    `predicts_next`: a label is that of the token before it, and the first one of a row is no answer.
    """

    predicts_next = True
    _trained: torch.Tensor | int = 0  # the sums of losses and of tokens since the last report

    def training_step(
        self, model: torch.nn.Module, inputs: Any, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """One forward and backward."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if num_items_in_batch is not None:  # of all processes, and all batches of the step
            tokens = torch.as_tensor(num_items_in_batch, dtype=torch.float64, device=loss.device).mean()
            share = self.current_gradient_accumulation_steps * distributed.count()
            self._trained = self._trained + torch.stack([loss.double() * tokens / distributed.count(), tokens / share])
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Report, and remember the loss by token beside transformers' own, which is the mean of the steps'."""
        if "loss" in logs and isinstance(self._trained, torch.Tensor):
            loss, tokens = distributed.sums(self._trained).tolist()
            self._trained = 0
            logs |= {"token_loss": loss / tokens, "loss_tokens": tokens}
        super().log(logs, start_time)

    def mean_loss(self, model: torch.nn.Module, inputs: Any, *_: Any) -> tuple[torch.Tensor, int]:
        """The loss of a batch, and how many tokens it is the mean of."""
        labels = inputs["labels"].clone()
        starts = _starts(inputs)
        if starts is None:
            labels[self.own_rows(len(labels)) :] = IGNORED
        elif (own := self.own_rows(len(starts))) < len(starts):
            labels[:, starts[own] :] = IGNORED
        inputs = self._prepare_inputs({**inputs, "labels": labels})
        with torch.no_grad(), self.compute_loss_context_manager():
            loss: Any = self.compute_loss(model, inputs)
        return loss, int(((labels[..., 1:] if self.predicts_next else labels) != IGNORED).sum())


def _starts(inputs: Any) -> list[int] | None:
    """Where the rows of a batch without padding begin, which stand in one; None where each has its own."""
    positions = inputs.get("position_ids")
    if positions is None or len(positions) > 1:
        return None
    return [int(start) for start in (positions[0] == 0).nonzero().flatten()]


def _rows_of(inputs: Any) -> int:
    """How many rows a batch has; a policy's is a list of prompts."""
    if isinstance(inputs, list):
        return len(inputs)
    starts = _starts(inputs)
    return len(next(iter(inputs.values()))) if starts is None else len(starts)


def _mean(values: Sequence[float], weights: Sequence[int]) -> float:
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if not math.isnan(value)]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else math.nan
