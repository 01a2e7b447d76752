"""The reward model of rlhf: given, kept from an earlier attempt, or trained from preferences and merged.

It lies beside the checkpoints until the policy is saved, so that a job that is resumed does not train it again.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from msgspec import Struct
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, PreTrainedModel, set_seed
from trl.trainer.reward_trainer import RewardTrainer

from trainer_entry.artifacts.merge import merge_layers
from trainer_entry.artifacts.rehearsal import rehearse_merged
from trainer_entry.providers.huggingface import find, keep_gradients_exact
from trainer_entry.providers.precision import compute_dtype, placement, quantization_config, weight_dtype
from trainer_entry.runtime import distributed
from trainer_entry.runtime.disk import disk_full_errors, sync_entry, sync_tree
from trainer_entry.runtime.failures import ModelUnavailable, NoTrainableTokens
from trainer_entry.runtime.freed_memory import give_memory_back
from trainer_entry.runtime.stdout import note
from trainer_entry.strategies.adapters import reward_lora_config
from trainer_entry.strategies.earlier_adapter import with_earlier
from trainer_entry.strategies.whole_modules import whole_modules
from trainer_entry.training.arguments import policy_steps, reward_arguments
from trainer_entry.training.trainer import AttemptTrainer, count_rows, rows_left_out, set_up, trained_model
from trainer_entry.wire.obstacles import in_reward_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from transformers import BitsAndBytesConfig, PreTrainedTokenizerBase, TrainerState
    from trl.trainer.reward_config import RewardConfig

    from trainer_entry.data.examples import Examples
    from trainer_entry.providers.huggingface import KnownModel
    from trainer_entry.training.loop import Phases
    from trainer_entry.wire import JobSpec, TrainingParameters

    ReportStarted = Callable[[AttemptTrainer, TrainingParameters, TrainerState], None]

_FOLDER = "reward_model"
_REPORT = "reward_model.json"
_OF_WRITERS = frozenset({"lm_head", "embed_out"})
"""Modules of a policy that its reward model lacks: it writes nothing."""
_REPORTED = (
    *("final_loss", "final_reward_accuracy", "final_reward_margin"),
    *("eval_loss", "eval_reward_accuracy", "eval_reward_margin", "base_eval_reward_accuracy"),
)
"""The figures of a reward model that are reported beside its policy's."""


class RewardReport(Struct, frozen=True, gc=False):
    """What the training of a reward model came to; it stands beside the model, and means that the model is whole.

    `left_out`: examples that it does not learn from.
    """

    steps: int
    metrics: dict[str, float | None]
    left_out: int = 0


class RewardModel(Struct, frozen=True, gc=False):
    """The model that rewards the policy. `folder`: where it lies until the policy is saved; None if it was given."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    report: RewardReport
    folder: Path | None


class RewardModelTrainer(AttemptTrainer, RewardTrainer):
    """trl's reward trainer."""

    sides = 2  # chosen and rejected


def train_reward_model(
    phases: Phases, job: JobSpec, known: KnownModel, examples: Examples, parameters: TrainingParameters,
    report_started: ReportStarted,
) -> RewardModel:  # fmt: skip
    """The reward model: the one that was given, the one of an earlier attempt, or a new one."""
    if job.reward_model_path is not None:
        return _load(job.reward_model_path, parameters, RewardReport(0, {}), None)
    folder = Path(job.checkpoint_dir) / _FOLDER
    if not (folder / _REPORT).exists():
        report = _train(phases, job, known, examples, parameters, report_started)
        give_memory_back()  # the trainer's, its model's and its optimizer's, which hold each other
        torch.cuda.empty_cache()
        if distributed.rank() == 0:
            _save(job, known.tokenizer, parameters, report, folder)
            give_memory_back()
        distributed.wait_for_all()
    report = msgspec.json.decode((folder / _REPORT).read_bytes(), type=RewardReport)
    return _load(str(folder), parameters, report, folder)


def _train(
    phases: Phases, job: JobSpec, known: KnownModel, examples: Examples, parameters: TrainingParameters,
    report_started: ReportStarted,
) -> RewardReport:  # fmt: skip
    """Train a new one, leave what was learned in its folder, and say what it came to."""
    set_seed(parameters.seed)  # the head that rewards begins with random numbers
    dtype, quantization = weight_dtype(parameters), quantization_config(parameters, rewards=True)
    model, _ = _model_at(job.model_path, parameters, dtype, quantization, placement(), num_labels=1)
    if quantization is not None:
        keep_gradients_exact(model)
    else:
        model = with_earlier(model, job, known.revision)  # which compressed weights would round away
    model.config.get_text_config().pad_token_id = known.tokenizer.pad_token_id
    whole = whole_modules(model, parameters, lacks=_OF_WRITERS)
    trainer = RewardModelTrainer(
        model=model,
        args=reward_arguments(parameters, job.checkpoint_dir),
        train_dataset=examples.train,
        eval_dataset=examples.evaluation,
        processing_class=known.tokenizer,
        peft_config=reward_lora_config(parameters, whole) if parameters.use_lora else None,
    )
    _check_rows(trainer, examples, parameters)
    set_up(trainer, job, parameters)
    if trainer.is_world_process_zero():
        rehearse_merged(trained_model(trainer), known.tokenizer, Path(job.checkpoint_dir) / _FOLDER)
    trainer.steps_after = policy_steps(parameters, len(examples.train))
    trainer.left_out_elsewhere = examples.dropped  # for the policy has no room for their prompts
    trained = phases.train(
        trainer,
        lambda state: report_started(trainer, parameters, state),
        phase="training_reward_model",
        resume_from=phases.spec.resume_from,
    )
    phases.enter("merging_reward_model")
    if trainer.is_world_process_zero():
        learned = _learned(job)
        shutil.rmtree(learned, ignore_errors=True)
        with disk_full_errors(learned):
            unwrapped: Any = trainer.accelerator.unwrap_model(trained_model(trainer))
            unwrapped.save_pretrained(learned)
            known.tokenizer.save_pretrained(learned)  # without one, weights that are all its own are read by nobody
    trainer.accelerator.free_memory()
    figures = {f"reward_model_{name}": trained.metrics[name] for name in _REPORTED if name in trained.metrics}
    return RewardReport(trained.step, figures, examples.dropped + rows_left_out(trainer, examples))


def tokenized_pairs(rows: Dataset, tokenizer: PreTrainedTokenizerBase, arguments: RewardConfig) -> Dataset:
    """What trl's trainer of reward models makes of rows when it is built: `chosen_ids` and `rejected_ids`."""
    trainer: Any = None  # it asks nothing of itself
    return RewardTrainer._prepare_dataset(trainer, rows, tokenizer, arguments, "train")  # noqa: SLF001 - no public way


def _learned(job: JobSpec) -> Path:
    """Where the adapter lies until it is merged, or all weights until they are the reward model."""
    return Path(job.checkpoint_dir) / f"{_FOLDER}.partial" / "learned"


def _save(
    job: JobSpec, tokenizer: PreTrainedTokenizerBase, parameters: TrainingParameters, report: RewardReport, folder: Path
) -> None:
    """Put an adapter into the weights as they are on disk, which may have been quantized for the training."""
    learned = _learned(job)
    partial, dtype = learned.parent, weight_dtype(parameters)
    where = job.model_path if parameters.use_lora else str(learned)
    model, _ = _model_at(where, parameters, dtype, None, None, num_labels=1)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    if parameters.use_lora:
        if quantization_config(parameters, rewards=True) is None:
            model = with_earlier(model, job, None if job.adapter is None else job.adapter.base_revision)
        model = merge_layers(PeftModel.from_pretrained(model, str(learned)), dtype)
    with disk_full_errors(partial):
        model.save_pretrained(partial)
        shutil.rmtree(learned)
        tokenizer.save_pretrained(partial)
        (partial / _REPORT).write_bytes(msgspec.json.encode(report))
        sync_tree(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    sync_entry(folder.parent)


def _check_rows(trainer: AttemptTrainer, examples: Examples, parameters: TrainingParameters) -> None:
    """Note what trl leaves out in silence: prompts with an answer that is too long.

    Raises:
        NoTrainableTokens: nothing is left to learn from, or to evaluate on.
    """
    of_evaluation = examples.evaluation is not None and count_rows(trainer.eval_dataset) == 0
    if count_rows(trainer.train_dataset) == 0 or of_evaluation:
        raise NoTrainableTokens(
            f"No prompt {'held out for evaluation ' if of_evaluation else ''}with its answers fits into "
            f"{parameters.max_seq_length} tokens. Raise max_seq_length, or shorten the records."
        )
    left_out = rows_left_out(trainer, examples)
    if left_out:
        note(f"The reward model does not learn from {left_out} records, which have an answer that ends after "
             f"{parameters.max_seq_length} tokens.")  # fmt: skip


def _load(path: str, parameters: TrainingParameters, report: RewardReport, folder: Path | None) -> RewardModel:
    quantization = quantization_config(parameters, rewards=True)
    model, tokenizer = _model_at(path, parameters, compute_dtype(parameters), quantization, placement())
    obstacle = in_reward_model(path, model.config.num_labels or 0)
    if obstacle is not None:
        raise ModelUnavailable(obstacle.text)
    return RewardModel(model.eval(), tokenizer, report, folder)


def _model_at(
    path: str,
    parameters: TrainingParameters,
    dtype: torch.dtype,
    quantization: BitsAndBytesConfig | None,
    place: dict[str, torch.device] | None,
    **config: int,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model that gives figures for a text, and its tokenizer."""
    source = find(path)
    model = AutoModelForSequenceClassification.from_pretrained(
        source.where,
        dtype=dtype,
        quantization_config=quantization,
        attn_implementation=parameters.attn_implementation,
        device_map=place,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=source.cache_only,
        **config,
    )
    return model, source.tokenizer
