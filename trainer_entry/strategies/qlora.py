"""QLoRA: an adapter on frozen weights of 4 or 8 bits (arXiv 2305.14314)."""
# mypy: allow-untyped-calls

import msgspec
from peft import prepare_model_for_kbit_training

from trainer_entry.providers.huggingface import LoadedModel
from trainer_entry.strategies import sft
from trainer_entry.tasks.text_generation import TokenizedRecords
from trainer_entry.wire import TrainingParameters


def build_trainer(
    loaded: LoadedModel,
    records: TokenizedRecords,
    parameters: TrainingParameters,
    checkpoint_dir: str,
) -> sft.CompletionTrainer:
    """A trainer for the quantized model: its norms in 32 bits, everything but the adapter frozen."""
    prepared = prepare_model_for_kbit_training(
        loaded.model, use_gradient_checkpointing=parameters.gradient_checkpointing
    )
    return sft.build_trainer(msgspec.structs.replace(loaded, model=prepared), records, parameters, checkpoint_dir)
