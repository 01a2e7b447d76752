"""QLoRA: an adapter on frozen weights of 4 or 8 bits (arXiv 2305.14314)."""
# mypy: allow-untyped-calls

import msgspec
from peft import prepare_model_for_kbit_training

from trainer_entry.providers.huggingface import LoadedModel
from trainer_entry.wire import TrainingParameters


def prepare(loaded: LoadedModel, parameters: TrainingParameters) -> LoadedModel:
    """The quantized model, ready for an adapter: its norms in 32 bits, and all of it frozen."""
    prepared = prepare_model_for_kbit_training(
        loaded.model, use_gradient_checkpointing=parameters.gradient_checkpointing
    )
    return msgspec.structs.replace(loaded, model=prepared)
