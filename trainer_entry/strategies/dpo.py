"""Direct preference optimization: the chosen answer made more likely than the rejected one (arXiv 2305.18290)."""
# mypy: allow-untyped-calls

from collections.abc import Iterator
from typing import Any

import torch
from datasets import Dataset
from msgspec import Struct
from transformers import PreTrainedTokenizerBase
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

from trainer_entry.data.examples import LINE, Examples
from trainer_entry.providers.huggingface import LoadedModel
from trainer_entry.strategies.adapters import new_adapter
from trainer_entry.strategies.earlier_adapter import hold_to_the_beginning
from trainer_entry.strategies.lora_linear import join_adapters
from trainer_entry.training.arguments import preference_arguments
from trainer_entry.training.trainer import AttemptTrainer, set_up, trained_model
from trainer_entry.wire import JobSpec, TrainingParameters


class PreferenceTrainer(AttemptTrainer, DPOTrainer):
    """trl's own. With an adapter the model without it is the reference; otherwise a second copy is loaded."""

    sides = 2  # chosen and rejected

    def _prepare_dataset(self, dataset: Any, *_: object) -> Any:
        """The rows are tokens already; trl writes conversations in another way than a supervised training."""
        return dataset


def build_trainer(
    job: JobSpec, loaded: LoadedModel, examples: Examples, parameters: TrainingParameters
) -> AttemptTrainer:
    """A trainer for the model as it is loaded."""
    trainer = PreferenceTrainer(
        model=loaded.model,
        args=preference_arguments(parameters, job.checkpoint_dir),
        train_dataset=examples.train,
        eval_dataset=examples.evaluation,
        processing_class=loaded.tokenizer,
        peft_config=new_adapter(job, loaded, parameters),
    )
    set_up(trainer, job, parameters)
    if job.provider == "huggingface" and not torch.cuda.is_available() and not parameters.torch_compile:
        join_adapters(trained_model(trainer))
    hold_to_the_beginning(trainer, job)
    return trainer


class Pair(Struct, frozen=True, gc=False):
    """What trl reads of a preference: the prompt with either answer, and whether a token is the answer's."""

    line: int
    chosen: list[int]
    chosen_mask: list[int]
    rejected: list[int]
    rejected_mask: list[int]


def pairs_of(rows: Dataset, tokenizer: PreTrainedTokenizerBase, arguments: DPOConfig) -> Iterator[Pair]:
    """What trl's collator makes of rows."""
    collate = DataCollatorForPreference(
        pad_token_id=tokenizer.pad_token_id or 0,
        max_length=arguments.max_length,
        truncation_mode=arguments.truncation_mode,
    )
    for row in rows:
        batch = collate([row])
        kept = batch["attention_mask"].bool()
        (chosen, rejected), (chosen_mask, rejected_mask) = (
            [values[kept[side]].tolist() for side, values in enumerate(batch[name])]
            for name in ("input_ids", "completion_mask")
        )
        yield Pair(row[LINE], chosen, chosen_mask, rejected, rejected_mask)
