"""Records that share a sequence: whether a model keeps them apart."""
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trainer_entry.runtime.failures import ConflictingParameters, refuse
from trainer_entry.training.trainer import trained_model
from trainer_entry.wire.obstacles import read_as_one

if TYPE_CHECKING:
    from trainer_entry.training.trainer import AttemptTrainer

_BEFORE, _AFTER = 4, 8


def check_packing(trainer: AttemptTrainer) -> None:
    """Refuse to pack for a model whose records would see those before them in their sequence.

    What a model says of a record must not depend on the one before it. Some architectures know the records apart by
    their positions, others read on.

    Raises:
        ConflictingParameters: they would.
    """
    model: Any = trained_model(trainer)
    words = int(model.config.get_text_config().vocab_size)
    after = [number % words for number in range(_AFTER)]
    try:
        said = [_logits(trainer, model, [token % words] * _BEFORE, after) for token in (1, 2)]
    except ValueError as error:  # a library's own refusal
        raise ConflictingParameters(f"packing: {error} Or leave packing out.") from error
    # Equal but for how sums are rounded: the two batches have the same shape.
    if not torch.allclose(said[0], said[1], rtol=1e-3, atol=1e-3 * float(said[0].abs().max())):
        refuse(read_as_one(model.config.model_type))


def _logits(trainer: AttemptTrainer, model: Any, before: list[int], after: list[int]) -> torch.Tensor:
    """What the model says of the second of two records in one sequence, in the batch that the trainer makes of it."""
    ids = [*before, *after]
    collate: Any = trainer.data_collator
    batch = collate([{"input_ids": ids, "labels": ids, "seq_lengths": [len(before), len(after)]}])
    batch.pop("labels")
    given = {
        name: value.to(model.device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()
    }
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), trainer.accelerator.autocast():
            logits: torch.Tensor = model(**given, use_cache=False).logits
    finally:
        model.train(training)
    return logits[0, len(before) :].float()
