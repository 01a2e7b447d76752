"""What a training loop leaves behind: its last checkpoint, and its final figures."""
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from trainer_entry.training.callback import FIGURES, figure_of, finite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainer_entry.training.callback import WireCallback
    from trainer_entry.training.trainer import AttemptTrainer

_LAST_STEPS = 20
_ROUNDED = 1e-3  # epochs are added up
_MOMENTARY = frozenset({"learning_rate", "grad_norm"})
"""Figures of which the last one says nothing of how a training ended."""


def save_checkpoint(trainer: AttemptTrainer, callback: WireCallback) -> str | None:
    """The checkpoint of the last step that was made; it is saved now unless it was, or there was no step."""
    step = trainer.state.global_step
    if step > callback.first_step and (callback.checkpoint is None or callback.checkpoint[0] != step):
        # The loop was left where it saves nothing itself: this is what it calls after a step.
        trainer._save_checkpoint(trainer.model_wrapped, trial=None)  # noqa: SLF001
        callback.on_save(trainer.args, trainer.state, trainer.control)
    return callback.checkpoint[1] if callback.checkpoint else None


def final_metrics(trained: dict[str, Any], callback: WireCallback, trainer: AttemptTrainer) -> dict[str, float | None]:
    """Every figure of the end: of the training's last steps, and of the last evaluation.

    Of a job that was resumed, those are left out that would be of its last attempt alone: its speed, its tokens.
    """
    logged = [Reported.of(entry) for entry in trainer.state.log_history if "loss" in entry]
    if callback.first_step == 0:
        figures = {name: value for name, value in trained.items() if name != "epoch"}
        figures["num_tokens"] = float(trainer.count_tokens()) or float(trainer.state.num_input_tokens_seen)
    else:
        figures = {"train_loss": _mean_over_steps(logged)}
    plain, _ = finite({"final_loss": None, **figures, **final_figures(logged)})
    return {**plain, "epoch": float(trainer.state.epoch or 0.0), **callback.evaluation}


class Reported(Struct, frozen=True, gc=False):
    """What a trainer reported after a step: means since its last report.

    `token_loss`: the mean over `tokens`, where the loss is one of tokens.
    """

    step: int
    epoch: float
    figures: dict[str, float]
    token_loss: float | None
    tokens: float | None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Reported:
        """The report that stands in an entry of the trainer's history."""
        figures = {name: figure_of(entry, names) for name, names in FIGURES.items() if name not in _MOMENTARY}
        return cls(
            step=int(entry["step"]),
            epoch=float(entry.get("epoch", 0)),
            figures={name: float(figure) for name, figure in figures.items() if figure is not None},
            token_loss=entry.get("token_loss"),
            tokens=entry.get("loss_tokens"),
        )


def final_figures(reports: Sequence[Reported]) -> dict[str, float]:
    """How a training ended, as `final_…`: one batch says little, and the whole training says how it began.

    The means over the last reports that make 20 steps, or over the last epoch's, where these are fewer; the loss of
    tokens by its tokens, all else by its steps.
    """
    last: list[tuple[int, Reported]] = []
    steps, place = 0, len(reports)
    while place and steps < _LAST_STEPS:
        place -= 1
        before = reports[place - 1] if place else None
        covered = reports[place].step - (before.step if before else 0)
        last.append((covered, reports[place]))
        steps += covered
        if before is None or before.epoch <= reports[-1].epoch - 1 + _ROUNDED:
            break
    figures: dict[str, float] = {}
    for name in reports[-1].figures if reports else ():
        found = [(covered, report.figures[name]) for covered, report in last if name in report.figures]
        figures[f"final_{name}"] = sum(covered * figure for covered, figure in found) / sum(step for step, _ in found)
    by_token = [(report.token_loss, report.tokens) for _, report in last if report.token_loss is not None]
    tokens = sum(count or 0 for _, count in by_token)
    if tokens:
        figures["final_loss"] = sum(loss * (count or 0) for loss, count in by_token) / tokens
    return figures


def _mean_over_steps(logged: Sequence[Reported]) -> float | None:
    """The mean loss of all steps."""
    before = [0, *(report.step for report in logged)]
    sums = [(report.step - last) * report.figures["loss"] for last, report in zip(before, logged, strict=False)]
    return sum(sums) / before[-1] if logged else None
