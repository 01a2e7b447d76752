"""How long sequences are: quantiles and a histogram of as many lengths as come."""

import array
from collections.abc import Iterator

import numpy as np

from trainer_entry.preview.sequences import TokenizationContext, TokenizedExample, TokenizedSequence
from trainer_entry.wire import DatasetFile, DatasetStatistics, Histogram, Lengths, Quantiles, SequenceName

_BINS = 20
_LISTED = 100
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


class _Measured:
    """The lengths of one kind of sequence so far: a number each, however long it is."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lengths = array.array("q")

    def add(self, sequence: TokenizedSequence) -> None:
        self.lengths.append(sequence.length)

    def summary(self, name: SequenceName) -> Lengths:
        lengths = np.frombuffer(self.lengths, dtype=np.int64)
        quantiles = np.quantile(lengths, _QUANTILES, method="inverted_cdf")  # lengths that are there
        counts, edges = np.histogram(lengths, bins=_BINS)
        truncated = int((lengths > self.limit).sum())
        return Lengths(
            sequence=name,
            count=len(lengths),
            mean=float(lengths.mean()),
            quantiles=Quantiles(**dict(zip(Quantiles.__struct_fields__, map(int, quantiles), strict=True))),
            histogram=Histogram(edges=tuple(map(float, edges)), counts=tuple(map(int, counts))),
            limit=self.limit,
            truncated=truncated,
            truncated_share=truncated / len(lengths),
        )


def places_of(count: int, sample: int) -> frozenset[int] | None:
    """Which of `count` records stand for all: `sample` of them, evenly spread; None: all."""
    return None if count <= sample else frozenset(place * count // sample for place in range(sample))


def statistics_of(
    examples: Iterator[TokenizedExample], context: TokenizationContext, dataset: DatasetFile, revision: int
) -> DatasetStatistics:
    """The lengths of examples that come one after another, each record's together."""
    measured: dict[SequenceName, _Measured] = {}
    left_out_lines: list[int] = []
    records = count = left_out = cut = tokens = loss_tokens = line = 0
    for example in examples:
        records += example.line != line
        line = example.line
        count += 1
        for sequence in example.sequences:
            measured.setdefault(sequence.name, _Measured(sequence.limit)).add(sequence)
        if example.left_out is not None:
            left_out += 1
            if len(left_out_lines) < _LISTED and left_out_lines[-1:] != [line]:
                left_out_lines.append(line)
            continue
        cut += any(sequence.length > sequence.limit for sequence in example.sequences)
        tokens += sum(len(sequence.ids) for sequence in example.sequences)
        loss_tokens += sum(sum(sequence.loss) for sequence in example.sequences)
    return DatasetStatistics(
        filename=dataset.filename,
        revision=revision,
        format=dataset.format,
        num_examples=dataset.num_examples,
        measured=records,
        examples=count,
        left_out=left_out,
        left_out_lines=tuple(left_out_lines),
        tokens=tokens,
        loss_tokens=loss_tokens,
        lengths=tuple(found.summary(name) for name, found in measured.items()),
        seen_with=context.settings,
        cut=cut,
    )
