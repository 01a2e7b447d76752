"""What a trainer says to the process of a tracker, and what that answers: a JSON line each.

Both are of one release: the process is the trainer's child.
"""

from typing import Any, Literal, Protocol

import msgspec
from msgspec import Struct

from trainer_entry.wire import AttemptSpec, Evaluated, StepLogged, TrainerStarted, TrainingParameters

Outcome = Literal["finished", "stopped", "failed"]
_LONGEST_TAG = 64
"""That of wandb."""
_FIGURES = (
    *("epoch", "loss", "learning_rate", "grad_norm", "tokens_per_second", "elapsed_seconds"),
    *("reward", "kl", "completion_length", "reward_accuracy", "reward_margin", "memory_mb", "gpu_memory_mb"),
)
"""The figures of a step, as `/api/jobs/{job_id}/metrics` has them."""


class OpenRun(Struct, frozen=True, kw_only=True, tag_field="type", tag="open", gc=False):
    """The training begins, or goes on after `resumed_step`: all that a run is described by."""

    job_id: str
    output_name: str
    task: str
    strategy: str
    provider: str
    model_name: str
    base_revision: str | None
    dataset: str
    dataset_sha256: str
    parameters: TrainingParameters
    resumed_step: int

    @classmethod
    def of(cls, spec: AttemptSpec, started: TrainerStarted) -> "OpenRun":
        """The run of a job, with the parameters in effect."""
        job = spec.job
        return cls(
            job_id=job.job_id,
            output_name=job.output_name,
            task=job.task,
            strategy=job.strategy,
            provider=job.provider,
            model_name=job.model_name,
            base_revision=started.base_revision,
            dataset=job.dataset.filename,
            dataset_sha256=started.dataset_sha256,
            parameters=started.parameters,
            resumed_step=started.resumed_step,
        )

    @property
    def name(self) -> str:
        """What the run is called: as it was asked for, or by the model and the job."""
        return self.parameters.tracker_run or f"{self.output_name}-{self.job_id}"

    @property
    def tags(self) -> tuple[str, ...]:
        """Words to find it by."""
        own = tuple(word[:_LONGEST_TAG] for word in (self.task, self.strategy, self.provider, self.model_name))
        return tuple(dict.fromkeys((*own, *(self.parameters.tracker_tags or ()))))

    @property
    def config(self) -> dict[str, Any]:
        """Everything that it is described by, flat: all parameters, and what they were used on."""
        described: dict[str, Any] = msgspec.to_builtins(self)
        parameters: dict[str, Any] = described.pop("parameters")
        described |= parameters
        return {name: value for name, value in described.items() if name not in {"type", "resumed_step"}}


class LogFigures(Struct, frozen=True, kw_only=True, tag_field="type", tag="figures", gc=False):
    """Figures after a step of the job, by the names that the job has for them."""

    step: int
    figures: dict[str, float]

    @classmethod
    def of(cls, message: StepLogged | Evaluated) -> "LogFigures":
        """Those in a message; one that is no number is left out."""
        match message:
            case StepLogged(rewards=rewards):
                found = {name: getattr(message, name) for name in _FIGURES}
                found |= {f"rewards/{name}": value for name, value in rewards.items()}
            case Evaluated(metrics=metrics):
                found = {name: value for name, value in metrics.items() if name != "epoch"}  # the step has said it
        return cls(step=message.step, figures={name: value for name, value in found.items() if value is not None})


class CloseRun(Struct, frozen=True, kw_only=True, tag_field="type", tag="close", gc=False):
    """The attempt ends."""

    outcome: Outcome


AnyTold = OpenRun | LogFigures | CloseRun


class RunClosed(Struct, frozen=True, tag_field="type", tag="closed", gc=False):
    """Everything that was said has been told the tracker."""


class RunFailed(Struct, frozen=True, kw_only=True, tag_field="type", tag="failed", gc=False):
    """The tracker cannot be told anything more, and why."""

    message: str


AnyAnswer = RunClosed | RunFailed


class Run(Protocol):
    """A run of a tracker. Every method may raise what the tracker raises."""

    def log(self, step: int, figures: dict[str, float], /) -> None:
        """Tell it the figures after a step."""

    def close(self, outcome: Outcome, /) -> None:
        """Tell it that the attempt ended, and wait until all is told."""
