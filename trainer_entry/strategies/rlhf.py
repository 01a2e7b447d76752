"""Reinforcement learning from human feedback: a reward model from preferences, and a policy that it rewards.

Three phases of one job: the reward model is trained, its adapter is merged into it, and the policy learns by RLOO
(arXiv 2402.14740) or GRPO (arXiv 2402.03300), held to the model that it came from by a KL term. The reward model is
kept beside the checkpoints until the policy is saved, so that a job that goes on does not train it again.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from msgspec import Struct
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, PreTrainedModel, set_seed
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.reward_trainer import RewardTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

from trainer_entry.arguments import policy_arguments, policy_steps, reward_arguments
from trainer_entry.attempt_trainer import AttemptTrainer, count_rows, trained_model
from trainer_entry.checkpoint import sync, sync_entry
from trainer_entry.failures import ModelUnavailable, NoTrainableTokens, told_as_disk_full
from trainer_entry.parameters import reward_lora_config
from trainer_entry.providers.huggingface import find
from trainer_entry.stdout import note
from trainer_entry.strategies.sft import follow, new_adapter

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, TrainerState
    from trl.trainer.reward_config import RewardConfig

    from trainer_entry.examples import Examples
    from trainer_entry.phases import Phases
    from trainer_entry.providers.huggingface import LoadedModel
    from trainer_entry.wire import JobSpec, TrainingParameters

    SayStarted = Callable[[AttemptTrainer, TrainingParameters, TrainerState], None]

_FOLDER = "reward_model"
_REPORT = "reward_model.json"
_TOLD = (
    *("final_loss", "final_reward_accuracy", "final_reward_margin"),
    *("eval_loss", "eval_reward_accuracy", "eval_reward_margin", "base_eval_reward_accuracy"),
)
"""What is told of a reward model beside its policy's figures."""


class RewardReport(Struct, frozen=True, gc=False):
    """What the training of a reward model came to; it stands beside the model, and means that the model is whole."""

    steps: int
    metrics: dict[str, float | None]


class Rewards(Struct, frozen=True, gc=False):
    """What rewards the policy. `folder` is null for a model that was given."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    report: RewardReport
    folder: Path | None

    def keep_beside(self, model: Path) -> None:
        """Put the reward model into the policy's folder, if it was trained with it."""
        if self.folder is not None:
            shutil.copytree(self.folder, model / _FOLDER, dirs_exist_ok=True)

    def remove_from_checkpoints(self) -> None:
        """Once it lies beside the policy, nothing goes on from it any more."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def path_beside(self, model: Path) -> str | None:
        """Where it lies then."""
        return None if self.folder is None else str(model / _FOLDER)


class RewardModelTrainer(AttemptTrainer, RewardTrainer):
    """trl's own."""


class RlooTrainer(AttemptTrainer, RLOOTrainer):
    """trl's own."""


class GrpoTrainer(AttemptTrainer, GRPOTrainer):
    """trl's own."""


def learn_rewards(
    phases: Phases, job: JobSpec, loaded: LoadedModel, examples: Examples, parameters: TrainingParameters,
    say_started: SayStarted,
) -> Rewards:  # fmt: skip
    """The reward model: the one that was given, the one of an earlier attempt, or a new one."""
    if job.reward_model_path is not None:
        return _load_rewards(job.reward_model_path, parameters, RewardReport(0, {}), None)
    folder = Path(job.checkpoint_dir) / _FOLDER
    if (folder / _REPORT).exists():
        report = msgspec.json.decode((folder / _REPORT).read_bytes(), type=RewardReport)
        return _load_rewards(str(folder), parameters, report, folder)
    set_seed(parameters.seed)  # the head that rewards begins with random numbers
    source = find(job.model_path)
    model = AutoModelForSequenceClassification.from_pretrained(
        source.where,
        num_labels=1,
        dtype=torch.float32,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=source.cache_only,
    )
    model.config.get_text_config().pad_token_id = loaded.tokenizer.pad_token_id
    trainer = RewardModelTrainer(
        model=model,
        args=reward_arguments(parameters, job.checkpoint_dir),
        train_dataset=examples.train,
        eval_dataset=examples.evaluation,
        processing_class=loaded.tokenizer,
        peft_config=reward_lora_config(parameters) if parameters.use_lora else None,
    )
    _check_rows(trainer, examples, parameters)
    follow(trainer, job, parameters)
    trainer.steps_after = policy_steps(parameters, len(examples.train))
    trained = phases.train(
        trainer,
        lambda state: say_started(trainer, parameters, state),
        phase="training_reward_model",
        resume_from=phases.spec.resume_from,
    )
    phases.enter("merging_reward_model")
    figures = {f"reward_model_{name}": trained.metrics[name] for name in _TOLD if name in trained.metrics}
    report = RewardReport(trained.step, figures)
    if trainer.is_world_process_zero():
        _save_rewards(trainer, loaded.tokenizer, report, folder)
    trainer.accelerator.wait_for_everyone()
    return _load_rewards(str(folder), parameters, report, folder)


def rewarded_of(rows: Dataset, tokenizer: PreTrainedTokenizerBase, arguments: RewardConfig) -> Dataset:
    """What trl's trainer of reward models makes of rows when it is built: `chosen_ids` and `rejected_ids`."""
    trainer: Any = None  # it asks nothing of itself
    return RewardTrainer._prepare_dataset(trainer, rows, tokenizer, arguments, "train")  # noqa: SLF001 - no public way


def prompts_of(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The tokens that a policy completes, as trl makes them of each row's prompt."""
    trainer: Any = SimpleNamespace(processing_class=tokenizer, chat_template_kwargs={})
    ids, *_ = RLOOTrainer._tokenize_prompts(trainer, list(_prompts(rows)["prompt"]))  # noqa: SLF001 - no public way
    return [list(prompt) for prompt in ids]


def build_policy(
    job: JobSpec, loaded: LoadedModel, rewards: Rewards, examples: Examples, parameters: TrainingParameters
) -> AttemptTrainer:
    """A trainer for the model as it is loaded, rewarded by `rewards`."""
    steps = policy_steps(parameters, len(examples.train))
    if steps == 0:
        raise NoTrainableTokens(
            f"{len(examples.train)} prompts fill no step: it completes per_device_train_batch_size * "
            "gradient_accumulation_steps / num_generations of them. Lower these, or add records."
        )
    arguments: dict[str, Any] = {
        "model": loaded.model,
        "reward_funcs": [rewards.model],
        "reward_processing_classes": [rewards.tokenizer],
        # Beside the job's own checkpoints: they are numbered after those of the reward model.
        "args": policy_arguments(parameters, str(Path(job.checkpoint_dir) / "policy"), steps),
        "train_dataset": _prompts(examples.train),
        "eval_dataset": None if examples.evaluation is None else _prompts(examples.evaluation),
        "processing_class": loaded.tokenizer,
        "peft_config": new_adapter(job, loaded, parameters),
    }
    trainer = RlooTrainer(**arguments) if parameters.rl_algorithm == "rloo" else GrpoTrainer(**arguments)
    follow(trainer, job, parameters, steps_before=rewards.report.steps)
    return trainer


def _prompts(preferences: Dataset) -> Dataset:
    return preferences.select_columns(["prompt"])


def _save_rewards(
    trainer: AttemptTrainer, tokenizer: PreTrainedTokenizerBase, report: RewardReport, folder: Path
) -> None:
    model: Any = trainer.accelerator.unwrap_model(trained_model(trainer))
    merged = model.merge_and_unload() if isinstance(model, PeftModel) else model
    partial = folder.with_name(f"{_FOLDER}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with told_as_disk_full(partial):
        merged.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / _REPORT).write_bytes(msgspec.json.encode(report))
        sync(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    sync_entry(folder.parent)


def _check_rows(trainer: AttemptTrainer, examples: Examples, parameters: TrainingParameters) -> None:
    """Tell what trl leaves out in silence: prompts with an answer that is too long.

    Raises:
        NoTrainableTokens: nothing is left to learn from, or to evaluate on.
    """
    of_evaluation = examples.evaluation is not None and count_rows(trainer.eval_dataset) == 0
    if count_rows(trainer.train_dataset) == 0 or of_evaluation:
        raise NoTrainableTokens(
            f"No prompt {'held out for evaluation ' if of_evaluation else ''}with its answers fits into "
            f"{parameters.max_seq_length} tokens. Raise max_seq_length, or shorten the records."
        )
    left_out = len(examples.train) - count_rows(trainer.train_dataset)
    if left_out:
        note(f"The reward model does not learn from {left_out} records, which have an answer that ends after "
             f"{parameters.max_seq_length} tokens.")  # fmt: skip


def _load_rewards(path: str, parameters: TrainingParameters, report: RewardReport, folder: Path | None) -> Rewards:
    source = find(path)
    model = AutoModelForSequenceClassification.from_pretrained(
        source.where,
        dtype=torch.bfloat16 if parameters.bf16 else torch.float32,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=source.cache_only,
    )
    if model.config.num_labels != 1:
        raise ModelUnavailable(
            f"{path} is no reward model: it gives {model.config.num_labels} figures, and a reward is one. Name a "
            "sequence classifier with num_labels 1, or leave out reward_model to have one trained."
        )
    return Rewards(model.eval(), source.tokenizer, report, folder)
