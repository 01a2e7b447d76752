"""Reinforcement learning: a policy that is rewarded by a reward model, by functions that check it, or by both.

From preferences in three phases of one job: the reward model is trained, its adapter is merged into it, and the policy
learns by RLOO (arXiv 2402.14740) or GRPO (arXiv 2402.03300), held to the model that it came from by a KL term. The
reward model is kept beside the checkpoints until the policy is saved, so that a job that goes on does not train it
again. From prompts there is the last phase alone.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

from trainer_entry.artifacts.rehearsal import rehearse_beside
from trainer_entry.data.edges import text_ids
from trainer_entry.data.prompts import asked_ids, rendered_ids
from trainer_entry.data.records import Turn
from trainer_entry.data.reward_fields import FIELDS
from trainer_entry.data.templates import write_by_template
from trainer_entry.rewards.policy_rewards import measure_of
from trainer_entry.strategies.adapters import new_adapter
from trainer_entry.strategies.earlier_adapter import hold_to_the_beginning
from trainer_entry.strategies.reward_model import RewardModel, train_reward_model
from trainer_entry.training.arguments import policy_arguments, policy_steps
from trainer_entry.training.trainer import AttemptTrainer, set_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from trainer_entry.data.examples import Examples, Measure
    from trainer_entry.providers.huggingface import KnownModel, LoadedModel
    from trainer_entry.rewards.policy_rewards import Rewards
    from trainer_entry.strategies.reward_model import ReportStarted
    from trainer_entry.training.loop import Phases
    from trainer_entry.wire import JobSpec, TrainingParameters


_BY_MODEL = "reward_model"
"""What a reward model's rewards are reported as, beside those of functions."""


class PolicyTrainer(AttemptTrainer):
    """What both of trl's trainers of policies have in common here."""

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """As the playground asks, and a supervised training."""
        return [_ids_of(prompt, self.processing_class) for prompt in prompts], None, {}


class RlooTrainer(PolicyTrainer, RLOOTrainer):
    """trl's RLOO trainer."""


class GrpoTrainer(PolicyTrainer, GRPOTrainer):
    """trl's GRPO trainer."""


def prompts_of(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The tokens that a policy completes, of each row's prompt."""
    return [_ids_of(row["prompt"], tokenizer) for row in _prompts(rows)]


class RewardReading:
    """A reward model's tokenizer that writes a completion as the answers were written that the model learned from.

    trl gives it texts that are to have no special tokens around them: a plain text would miss its beginning and its
    end, and a template's that has no end its end.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer: Any = tokenizer

    def __getattr__(self, name: str) -> Any:
        """Everything else is the tokenizer's."""
        return getattr(self._tokenizer, name)

    def apply_chat_template(self, messages: list[Any], tools: list[Any] | None = None, **options: Any) -> str:
        """A conversation as its template writes it."""
        return write_by_template(self._tokenizer, messages, tools, **options)

    def __call__(self, text: list[str], **_: object) -> Any:
        """The texts as a batch."""
        written = rendered_ids if self._tokenizer.chat_template is not None else text_ids
        ids = [written(self._tokenizer, one) for one in text]
        return self._tokenizer.pad({"input_ids": ids}, padding_side="right", return_tensors="pt")


def _ids_of(prompt: str | list[dict[str, str]], tokenizer: Any) -> list[int]:
    turns = [Turn("user", prompt)] if isinstance(prompt, str) else [msgspec.convert(turn, Turn) for turn in prompt]
    return asked_ids(tokenizer, turns)


class Policy(Struct, frozen=True, gc=False):
    """A policy that is about to learn. `measure`: how its greedy answers are rewarded, where functions reward them."""

    trainer: AttemptTrainer
    reward_model: RewardModel | None
    measure: Measure | None

    @property
    def earlier(self) -> dict[str, float | None]:
        """The figures of a reward model that was trained."""
        return {} if self.reward_model is None else self.reward_model.report.metrics

    @property
    def reward_model_dir(self) -> Path | None:
        """Where a reward model lies that was trained, until the policy is saved."""
        return None if self.reward_model is None else self.reward_model.folder


def prepare_policy(
    phases: Phases,
    job: JobSpec,
    known: KnownModel,
    load: Callable[[], LoadedModel],
    examples: Examples,
    parameters: TrainingParameters,
    rewards: Rewards,
    report_started: ReportStarted,
) -> Policy:
    """Try what rewards it, train a reward model if there is to be one, and build its trainer.

    `load` gives the model: not before its reward model is trained, as both take memory.

    Raises:
        RewardFunctionFails: a function cannot reward the first prompt.
        Stopped: the attempt was asked to end.
    """
    rewards.rehearse(examples.train)
    rehearse_beside(known, job, parameters)
    judge = None
    if job.has_reward_model:
        judge = train_reward_model(phases, job, known, examples, parameters, report_started)
    trainer = build_policy(job, load(), judge, examples, parameters, rewards)
    return Policy(trainer, judge, measure_policy(rewards, examples, job, parameters))


def build_policy(
    job: JobSpec,
    loaded: LoadedModel,
    reward_model: RewardModel | None,
    examples: Examples,
    parameters: TrainingParameters,
    rewards: Rewards | None = None,
) -> AttemptTrainer:
    """A trainer for the model as it is loaded, rewarded by `reward_model` and by `rewards`, where there are any."""
    steps = policy_steps(parameters, len(examples.train))
    models = [] if reward_model is None else [reward_model]
    rewarders = () if rewards is None else rewards.rewarders
    weights = [*(1.0 for _ in models), *(rewarder.weight for rewarder in rewarders)]
    readings = [*(RewardReading(model.tokenizer) for model in models), *(None for _ in rewarders)]
    arguments: dict[str, Any] = {
        "model": loaded.model,
        "reward_funcs": [*(model.model for model in models), *(one.function for one in rewarders)],
        "reward_processing_classes": readings,
        # Beside the job's own checkpoints: they are numbered after those of the reward model.
        "args": policy_arguments(parameters, str(Path(job.checkpoint_dir) / "policy"), steps, weights),
        "train_dataset": _prompts(examples.train),
        "eval_dataset": None if examples.evaluation is None else _prompts(examples.evaluation),
        "processing_class": loaded.tokenizer,
        "peft_config": new_adapter(job, loaded, parameters),
    }
    trainer = RlooTrainer(**arguments) if parameters.rl_algorithm == "rloo" else GrpoTrainer(**arguments)
    labels = [*(_BY_MODEL for _ in models), *(rewarder.label for rewarder in rewarders)]
    trainer.reward_func_names = labels
    trainer.reward_labels = tuple(labels)
    set_up(trainer, job, parameters, steps_before=0 if reward_model is None else reward_model.report.steps)
    hold_to_the_beginning(trainer, job)
    trainer.left_out_elsewhere = 0 if reward_model is None else reward_model.report.left_out
    return trainer


def measure_policy(
    rewards: Rewards, examples: Examples, job: JobSpec, parameters: TrainingParameters
) -> Measure | None:  # fmt: skip
    """How a policy's greedy answers to held-out prompts are rewarded; None where no function rewards."""
    limit, alone = parameters.max_completion_length, not job.has_reward_model
    tokenizer = rewards.tokenizer
    return measure_of(rewards, examples.evaluation, lambda prompt: _ids_of(prompt, tokenizer), limit, alone=alone)


def _prompts(rows: Dataset) -> Dataset:
    return rows.select_columns(["prompt", *(name for name in (FIELDS,) if name in rows.column_names)])
