"""What the trainer's loop tells, as messages on the wire."""
# mypy: allow-untyped-calls
# ruff: noqa: ARG002 - the signatures are transformers'

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainer_entry.signals import Signals
from trainer_entry.stdout import Wire, note
from trainer_entry.wire import CheckpointSaved, Evaluated, StepLogged

_SIGN_OF_LIFE_SECONDS = 5.0


class StopNow(Exception):
    """Leaves the loop between two optimizer steps, where the loop itself offers no way out."""


class WireCallback(TrainerCallback):
    """Reports steps, evaluations and checkpoints, and ends the training when that was asked for."""

    def __init__(
        self,
        wire: Wire,
        attempt: int,
        signals: Signals,
        started: Callable[[TrainerState], None],
        tokens_seen: Callable[[], int],
    ) -> None:
        """`started` reports the beginning, once the trainer has counted its steps."""
        self._wire = wire
        self._attempt = attempt
        self._signals = signals
        self._started = started
        self._tokens_seen = tokens_seen
        self._began = time.monotonic()
        self.first_step = 0
        self._last_report = (self._began, 0)
        self.checkpoint: tuple[int, str] | None = None
        self.final_loss: float | None = None
        self.evaluation: dict[str, float | None] = {}
        self._evaluated_at: int | None = None
        self._showed_life = self._began

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report the beginning."""
        # After a resume the state has the intervals of the attempt that saved it.
        state.compute_steps(args, state.max_steps)
        self.first_step = state.global_step
        self._started(state)
        self._began = time.monotonic()
        self._last_report = (self._began, self._tokens_seen())

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Do not wait for the rest of a long step."""
        self._show_life()
        self._leave_if_asked()

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Do not wait for the rest of an evaluation."""
        self._show_life()
        self._leave_if_asked()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save, and end, if that was asked for; log the last step whatever the interval."""
        self._show_life()
        if self._signals.checkpoint_asked:
            control.should_save = True
        if self._signals.stop_asked:
            control.should_save = True
            control.should_evaluate = False
            control.should_training_stop = True
        if control.should_training_stop or state.global_step >= state.max_steps:
            control.should_log = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """An evaluation can end the training after its last step was over."""
        if control.should_training_stop:
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report the figures of a step."""
        if logs is None or "loss" not in logs:
            return
        figures, nonfinite = finite({name: logs.get(name) for name in ("loss", "learning_rate", "grad_norm")})
        now, tokens = time.monotonic(), self._tokens_seen()
        seconds, new_tokens = now - self._last_report[0], tokens - self._last_report[1]
        self._last_report = (now, tokens)
        elapsed, done = now - self._began, state.global_step - self.first_step
        self.final_loss = figures["loss"]
        step = state.global_step
        self._wire.send(
            lambda seq: StepLogged(
                attempt=self._attempt,
                seq=seq,
                step=step,
                total_steps=state.max_steps,
                epoch=float(state.epoch or 0.0),
                elapsed_seconds=elapsed,
                eta_seconds=elapsed / done * (state.max_steps - step) if done else None,
                loss=figures["loss"],
                learning_rate=figures["learning_rate"],
                grad_norm=figures["grad_norm"],
                tokens_per_second=new_tokens / seconds if seconds > 0 else None,
                nonfinite=nonfinite,
            )
        )
        note(f"step {step}/{state.max_steps}  loss {logs['loss']:.4f}  {elapsed:.1f} s")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report the figures on the held-out records."""
        figures, nonfinite = finite(metrics or {})
        self.evaluation, self._evaluated_at = figures, state.global_step
        self._wire.send(
            lambda seq: Evaluated(
                attempt=self._attempt,
                seq=seq,
                step=state.global_step,
                epoch=float(state.epoch or 0.0),
                metrics=figures,
                nonfinite=nonfinite,
            )
        )
        note(f"step {state.global_step}/{state.max_steps}  eval_loss {figures.get('eval_loss')}")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report a checkpoint, which survives a power loss from now on."""
        folder = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
        self._signals.checkpoint_saved()
        self.checkpoint = (state.global_step, str(folder))
        self._wire.send(
            lambda seq: CheckpointSaved(attempt=self._attempt, seq=seq, step=state.global_step, path=str(folder))
        )

    def must_evaluate(self, args: TrainingArguments, step: int) -> bool:
        """Whether the weights at the end, after `step`, were never evaluated, or are no longer the last ones."""
        return self._evaluated_at != step or bool(args.load_best_model_at_end)

    def _show_life(self) -> None:
        """Silence is no sign of a hang where only every hundredth step is logged."""
        if time.monotonic() - self._showed_life > _SIGN_OF_LIFE_SECONDS:
            self._showed_life = time.monotonic()
            self._wire.touch()

    def _leave_if_asked(self) -> None:
        if self._signals.stop_asked:
            raise StopNow


def finite(figures: Mapping[str, Any]) -> tuple[dict[str, float | None], tuple[str, ...]]:
    """Plain floats, with null for what is no finite number, and the names of those that were NaN or infinite."""
    numbers: dict[str, float | None] = {}
    nonfinite: list[str] = []
    for name, figure in figures.items():
        number = None if figure is None else float(figure)
        if number is not None and not math.isfinite(number):
            nonfinite.append(name)
            number = None
        numbers[name] = number
    return numbers, tuple(nonfinite)
