"""Reinforcement learning from human feedback: a reward model from preferences, and a policy that it rewards.

Three phases of one job: the reward model is trained, its adapter is merged into it, and the policy learns by RLOO
(arXiv 2402.14740) or GRPO (arXiv 2402.03300), held to the model that it came from by a KL term. The reward model is
kept beside the checkpoints until the policy is saved, so that a job that goes on does not train it again.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

from trainer_entry.data.edges import text_ids
from trainer_entry.data.prompts import asked_ids, rendered_ids
from trainer_entry.data.records import Turn
from trainer_entry.data.templates import write_by_template
from trainer_entry.strategies.adapters import new_adapter
from trainer_entry.training.arguments import policy_arguments, policy_steps
from trainer_entry.training.trainer import AttemptTrainer, set_up

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from trainer_entry.data.examples import Examples
    from trainer_entry.providers.huggingface import LoadedModel
    from trainer_entry.strategies.reward_model import RewardModel
    from trainer_entry.wire import JobSpec, TrainingParameters


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


def build_policy(
    job: JobSpec, loaded: LoadedModel, reward_model: RewardModel, examples: Examples, parameters: TrainingParameters
) -> AttemptTrainer:
    """A trainer for the model as it is loaded, rewarded by `reward_model`."""
    steps = policy_steps(parameters, len(examples.train))
    arguments: dict[str, Any] = {
        "model": loaded.model,
        "reward_funcs": [reward_model.model],
        "reward_processing_classes": [RewardReading(reward_model.tokenizer)],
        # Beside the job's own checkpoints: they are numbered after those of the reward model.
        "args": policy_arguments(parameters, str(Path(job.checkpoint_dir) / "policy"), steps),
        "train_dataset": _prompts(examples.train),
        "eval_dataset": None if examples.evaluation is None else _prompts(examples.evaluation),
        "processing_class": loaded.tokenizer,
        "peft_config": new_adapter(job, loaded, parameters),
    }
    trainer = RlooTrainer(**arguments) if parameters.rl_algorithm == "rloo" else GrpoTrainer(**arguments)
    set_up(trainer, job, parameters, steps_before=reward_model.report.steps)
    trainer.left_out_elsewhere = reward_model.report.left_out
    return trainer


def _prompts(preferences: Dataset) -> Dataset:
    return preferences.select_columns(["prompt"])
