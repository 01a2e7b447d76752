"""The phases of an attempt: each said on the wire as it begins, and a training among them run to its end."""
# mypy: allow-untyped-calls

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from trainer_entry.runtime import distributed
from trainer_entry.runtime.attempt import Stopped, resumed_step
from trainer_entry.runtime.disk import sync_entry
from trainer_entry.runtime.heartbeat import touch_while_busy
from trainer_entry.wire import AttemptSpec, Phase, PhaseStarted

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import TrainerState

    from trainer_entry.data.examples import Measure
    from trainer_entry.runtime.signals import Signals
    from trainer_entry.runtime.stdout import Wire
    from trainer_entry.training.callback import WireCallback
    from trainer_entry.training.trainer import AttemptTrainer


class Trained(Struct, frozen=True, gc=False):
    """What a training came to: every final figure, and the job's steps until then."""

    step: int
    metrics: dict[str, float | None]


_OF_THE_RUN = ("runtime", "_per_second", "_time", "num_tokens", "epoch", "flos")


def tells_quality(name: str) -> bool:
    """Whether a figure of an evaluation is one of the model, and not of the machine that found it."""
    return name.startswith("eval_") and not name.endswith(_OF_THE_RUN)


_WITH_STEPS: frozenset[Phase] = frozenset({"training_reward_model", "training", "evaluating_base", "evaluating"})
"""Phases whose every step is a heartbeat."""


class Phases:
    """An attempt's way through its phases."""

    def __init__(self, spec: AttemptSpec, wire: Wire, signals: Signals) -> None:
        self.spec = spec
        self.wire = wire
        self._signals = signals
        self._step = resumed_step(spec)
        self._checkpoint = spec.resume_from
        self._makes_steps = False
        touch_while_busy(wire, lambda: not self._makes_steps)  # loading, tokenizing, saving

    def enter(self, phase: Phase) -> None:
        """Say that another phase begins.

        Raises:
            Stopped: the attempt was asked to end between two trainings.
        """
        if distributed.are_connected() and distributed.agree(self._signals.stop_asked):
            raise Stopped(self._step, self._checkpoint)
        self._makes_steps = phase in _WITH_STEPS
        self.wire.send(lambda seq: PhaseStarted(attempt=self.spec.attempt, seq=seq, phase=phase))

    def train(
        self,
        trainer: AttemptTrainer,
        started: Callable[[TrainerState], None],
        *,
        phase: Phase = "training",
        resume_from: str | None,
        measure: Measure | None = None,
    ) -> Trained:
        """Train, evaluate before and after it, and give all figures.

        `started` reports the beginning; `measure` judges a model's answers to records that were held out.

        Raises:
            Stopped: the attempt was asked to end.
        """
        from trainer_entry.training.callback import StopNow, WireCallback
        from trainer_entry.training.outcome import final_metrics, save_checkpoint
        from trainer_entry.training.trainer import plain_model

        spec, signals = self.spec, self._signals
        callback = WireCallback(self.wire, spec.attempt, signals, trainer, started, phase)
        trainer.add_callback(callback)
        # A policy's step, or a summary to judge, is many tokens long: each of them is a heartbeat.
        hook = plain_model(trainer).register_forward_pre_hook(lambda *_: callback.heartbeat())
        self._begin_together()
        try:
            before = self._evaluate_base(trainer, callback, measure, phase)
            self.enter(phase)
            trained = trainer.train(resume_from_checkpoint=resume_from)
            stopped = distributed.agree(signals.stop_asked)
            if trainer.eval_dataset is not None and not stopped:
                if callback.must_evaluate(trainer.args, trainer.state.global_step):
                    self.enter("evaluating")
                    trainer.evaluate()
                if measure is not None:
                    self.enter("evaluating")
                    callback.evaluation |= self._measure(trainer, callback, measure)
        except StopNow:
            stopped = True
        finally:
            hook.remove()
        self._step = trainer.steps_before + trainer.state.global_step
        if stopped:
            raise Stopped(self._step, save_checkpoint(trainer, callback) or self._checkpoint)
        self._checkpoint = callback.checkpoint[1] if callback.checkpoint else self._checkpoint
        trainer.remove_callback(callback)
        return Trained(self._step, {**final_metrics(trained.metrics, callback, trainer), **before})

    def judge(
        self, trainer: AttemptTrainer, measure: Measure | None, batch_done: Callable[[], None]
    ) -> dict[str, float | None]:
        """The figures of a model as it is; no step is made. `batch_done` is called after each batch."""
        from transformers import TrainerCallback

        from trainer_entry.training.callback import WireCallback

        class Counting(TrainerCallback):
            def on_prediction_step(self, *_: Any, **__: Any) -> None:
                batch_done()

        callback = WireCallback(self.wire, self.spec.attempt, self._signals, trainer, lambda _: None, "evaluating")
        trainer.add_callback(callback)
        trainer.add_callback(Counting())
        self.enter("evaluating")
        trainer.evaluate()
        if measure is not None:
            callback.evaluation |= self._measure(trainer, callback, measure)
        return callback.evaluation

    def _begin_together(self) -> None:
        """From here on a stop is settled by all processes; whoever is asked before, ends by itself."""
        try:
            distributed.wait_for_all()
            self._signals.training_begins()
            distributed.wait_for_all()
        except RuntimeError as error:
            # The stop met another process on the other side of this line.
            if distributed.lost_contact(error) and distributed.comes_true(lambda: self._signals.stop_asked):
                raise Stopped(self._step, self._checkpoint) from None
            raise

    def _evaluate_base(
        self, trainer: AttemptTrainer, callback: WireCallback, measure: Measure | None, phase: Phase
    ) -> dict[str, float | None]:
        """The untrained model's figures on the held-out records; found once in a job, whatever happens to it."""
        import torch

        from trainer_entry.training.trainer import prepare_anew

        if trainer.eval_dataset is None:
            return {}
        kept = Path(self.spec.job.checkpoint_dir) / f"base_metrics-{phase}.json"
        if kept.exists():
            return msgspec.json.decode(kept.read_bytes(), type=dict[str, float | None])
        self.enter("evaluating_base")
        devices = list(range(torch.cuda.device_count()))
        if devices and distributed.count() > 1:
            devices = [torch.cuda.current_device()]
        with torch.random.fork_rng(devices):  # the training draws the same numbers whether this was done or not
            trainer.evaluate()
            if measure is not None:
                callback.evaluation |= self._measure(trainer, callback, measure)
        figures = {f"base_{name}": value for name, value in callback.evaluation.items() if tells_quality(name)}
        callback.forget_evaluation()
        if distributed.count() > 1:
            prepare_anew(trainer)
        if trainer.is_world_process_zero():
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(".partial")
            partial.write_bytes(msgspec.json.encode(figures))
            sync_entry(partial)  # a job whose power was lost could not go on with an empty file
            partial.rename(kept)
            sync_entry(kept.parent)
        return figures

    def _measure(self, trainer: AttemptTrainer, callback: WireCallback, measure: Measure) -> dict[str, float | None]:
        """The figures of the answers, reported after this step. One process measures them, and the others wait."""
        from trainer_entry.training.callback import StopNow

        model: Any = trainer.accelerator.unwrap_model(trainer.model)
        training = model.training
        model.eval()
        figures: dict[str, float | None] = {}
        stopped = False
        try:
            if trainer.is_world_process_zero():
                figures = dict(measure(model, callback.go_on_alone))
        except StopNow:
            stopped = True
        finally:
            model.train(training)
        if distributed.agree(stopped):
            raise StopNow
        callback.report_measured(trainer.state, figures)
        return figures
