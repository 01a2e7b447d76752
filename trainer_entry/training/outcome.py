"""What a training loop leaves behind: its last checkpoint, and its final figures."""
# mypy: allow-untyped-calls

from typing import Any

from trainer_entry.training.callback import WireCallback, finite
from trainer_entry.training.trainer import AttemptTrainer


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
