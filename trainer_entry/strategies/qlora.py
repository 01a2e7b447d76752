"""What trainers of the release before ask for while they run on: an upgrade replaces the files under them.

Nothing of this release reads it. Its trainers take quantized weights as they are (`sft`, `dpo`, `rlhf`).
"""
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
