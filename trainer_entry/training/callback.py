"""The events of the training loop, as messages on the wire."""
# mypy: allow-untyped-calls
# ruff: noqa: ARG002 - the signatures are transformers'

import math
import resource
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainer_entry.runtime import distributed
from trainer_entry.runtime.signals import Signals
from trainer_entry.runtime.stdout import Wire, note
from trainer_entry.training.trainer import AttemptTrainer, check_shares_gradients
from trainer_entry.wire import CheckpointWritten, Evaluated, Phase, StepLogged

_HEARTBEAT_SECONDS = 5.0
FIGURES = {
    "loss": ("loss",),
    "learning_rate": ("learning_rate",),
    "grad_norm": ("grad_norm",),
    "reward": ("reward", "mean_reward"),
    "kl": ("kl",),
    "completion_length": ("completions/mean_length",),
    "reward_accuracy": ("rewards/accuracies", "accuracy"),
    "reward_margin": ("rewards/margins", "margin"),
}
"""Our figures of a step, and what the trainers call them."""


class StopNow(Exception):
    """Leaves the loop between two optimizer steps, where the loop itself offers no way out."""


class WireCallback(TrainerCallback):
    """Reports steps, evaluations and checkpoints, and ends the training when that was asked for."""

    def __init__(
        self,
        wire: Wire,
        attempt: int,
        signals: Signals,
        trainer: AttemptTrainer,
        started: Callable[[TrainerState], None],
        phase: Phase = "training",
    ) -> None:
        """`started` reports the beginning, once the trainer has counted its steps."""
        self._wire = wire
        self._attempt = attempt
        self._signals = signals
        self._trainer = trainer
        self._started = started
        self._phase: Phase = phase
        self._before = trainer.steps_before
        self._after = trainer.steps_after
        self._began = time.monotonic()
        self.first_step = 0
        self._last_report = (self._began, 0)
        self._tokens_before = 0
        self.checkpoint: tuple[int, str] | None = None
        self.evaluation: dict[str, float | None] = {}
        self._evaluated_at: int | None = None
        self._last_heartbeat = self._began

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report the beginning."""
        check_shares_gradients(self._trainer)
        # After a resume the state has the intervals of the attempt that saved it.
        state.compute_steps(args, state.max_steps)
        self.first_step = state.global_step
        self._started(state)
        self._began = time.monotonic()
        self._tokens_before = state.num_input_tokens_seen
        self._last_report = (self._began, self._trainer.count_tokens())

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Do not wait for the rest of a long step."""
        self.go_on()

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Do not wait for the rest of an evaluation."""
        self.go_on()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save, and end, if that was asked for; log the last step whatever the interval."""
        self.heartbeat()
        stop, save = distributed.agree_on(self._signals.stop_asked, self._signals.checkpoint_asked)
        if save:
            control.should_save = True
        if stop:
            control.should_save = True
            control.should_evaluate = False
            control.should_training_stop = True
        # What was not reported before a checkpoint would be lost with this attempt.
        if control.should_save or control.should_training_stop or state.global_step >= state.max_steps:
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
        figures, nonfinite = finite({name: figure_of(logs, names) for name, names in FIGURES.items()})
        rewards, lost = finite({label: logs.get(f"rewards/{label}/mean") for label in self._trainer.reward_labels})
        nonfinite += tuple(f"rewards.{label}" for label in lost)
        now, tokens = time.monotonic(), self._trainer.count_tokens()
        if not tokens and "num_tokens" in logs:  # trl counts completions itself, through all attempts of a job
            tokens = int(logs["num_tokens"]) - self._tokens_before
        seconds, new_tokens = now - self._last_report[0], tokens - self._last_report[1]
        self._last_report = (now, tokens)
        elapsed, done = now - self._began, state.global_step - self.first_step
        step, total = self._before + state.global_step, self._before + state.max_steps + self._after
        left = elapsed / done * (state.max_steps - state.global_step) if done else None
        host, gpu = memory()
        self._wire.send(
            lambda seq: StepLogged(
                attempt=self._attempt,
                seq=seq,
                step=step,
                total_steps=total,
                epoch=float(state.epoch or 0.0),
                elapsed_seconds=elapsed,
                eta_seconds=left if not self._after else None,  # the next phase has a speed of its own
                phase_eta_seconds=left,
                tokens_per_second=new_tokens / seconds if seconds > 0 else None,
                phase=self._phase,
                phase_step=state.global_step,
                phase_total_steps=state.max_steps,
                memory_mb=host,
                gpu_memory_mb=gpu,
                nonfinite=nonfinite,
                rewards=rewards,
                **figures,
            )
        )
        if state.is_world_process_zero:
            note(f"step {step}/{total}  loss {logs['loss']:.4f}  {elapsed:.1f} s")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report the figures on the held-out records."""
        reported = dict(metrics or {})
        for ours, names in FIGURES.items():
            figure = figure_of(reported, tuple(f"eval_{name}" for name in names))
            if figure is not None:
                reported[f"eval_{ours}"] = figure
        figures, nonfinite = finite(reported)
        self.evaluation, self._evaluated_at = figures, state.global_step
        self._wire.send(
            lambda seq: Evaluated(
                attempt=self._attempt,
                seq=seq,
                step=self._before + state.global_step,
                epoch=float(state.epoch or 0.0),
                metrics=figures,
                nonfinite=nonfinite,
            )
        )
        if state.is_world_process_zero:
            note(f"step {state.global_step}/{state.max_steps}  eval_loss {figures.get('eval_loss')}")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report a checkpoint, which survives a power loss from now on."""
        folder, step = str(self._trainer.checkpoint_at(state.global_step)), self._before + state.global_step
        self._signals.checkpoint_saved()
        self.checkpoint = (state.global_step, folder)
        self._wire.send(lambda seq: CheckpointWritten(attempt=self._attempt, seq=seq, step=step, path=folder))

    def report_measured(self, state: TrainerState, figures: Mapping[str, float | None]) -> None:
        """Report how good the answers are; it belongs to the evaluation after the same step."""
        step = self._before + state.global_step
        metrics = {**self.evaluation, **figures}
        self._wire.send(
            lambda seq: Evaluated(
                attempt=self._attempt, seq=seq, step=step, epoch=float(state.epoch or 0.0), metrics=metrics
            )
        )

    def forget_evaluation(self) -> None:
        """What was found out of the untrained model says nothing of the trained one."""
        self.evaluation, self._evaluated_at = {}, None

    def must_evaluate(self, args: TrainingArguments, step: int) -> bool:
        """Whether the weights at the end, after `step`, were never evaluated, or are no longer the last ones."""
        return self._evaluated_at != step or bool(args.load_best_model_at_end)

    def heartbeat(self) -> None:
        """Touch the wire, every few seconds: silence is no hang where only every hundredth step is logged."""
        if time.monotonic() - self._last_heartbeat > _HEARTBEAT_SECONDS:
            self._last_heartbeat = time.monotonic()
            self._wire.touch()

    def go_on(self) -> None:
        """Send a heartbeat, and leave if that was asked for. For everything that takes long and makes no step.

        All processes of the attempt come here together, and leave together.

        Raises:
            StopNow: the attempt is to end.
        """
        self.heartbeat()
        if distributed.agree(self._signals.stop_asked):
            raise StopNow

    def go_on_alone(self) -> None:
        """The same for what one process does while the others wait for it."""
        self.heartbeat()
        if self._signals.stop_asked:
            raise StopNow


def figure_of(logs: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """A figure of a report, by the first of its names that stands there."""
    return next((logs[name] for name in names if name in logs), None)


def memory() -> tuple[float, float | None]:
    """The most that this process, and torch on its GPU, held so far, in 10^6 bytes."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return host, torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None


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
