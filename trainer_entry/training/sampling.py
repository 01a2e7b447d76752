"""The order of records by length: the same in an epoch, whichever attempt begins it or goes on in it."""
# mypy: allow-untyped-calls

from collections.abc import Iterator

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices


class EpochLengthSampler(LengthGroupedSampler):
    """transformers' order, drawn from the seed and the epoch alone.

    Its own is drawn from torch's numbers as an epoch begins, which an attempt that goes on within one no longer has.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths)
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch that is drawn next; accelerate says it."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Places in the dataset, those of like lengths near each other; the longest first."""
        drawn = torch.Generator().manual_seed((self._seed + self._epoch) % 2**63)
        order: list[int] = get_length_grouped_indices(self.lengths, self.batch_size, generator=drawn)
        return iter(order)
