"""What tasks make of records: rows for a trainer, and how the answers of its model are judged."""

from __future__ import annotations

import array
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from trainer_entry.runtime.failures import NoTrainableTokens
from trainer_entry.runtime.stdout import note

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]
    from datasets import Dataset

LINE = "line"
"""The column of a dataset that says in which line of the file a record stands; no model takes it."""

IGNORED = -100
"""The label of a token that carries no loss (torch's and transformers' own)."""

Measure = Callable[[Any, Callable[[], None]], Mapping[str, float | None]]
"""The figures of a model's answers to records that were held out; the second is called often, to show life."""

MEASURED_RECORDS = 100
"""So many held-out records are answered, at most: generating takes far longer than a loss."""

_BATCH = 1000
_NAMED_LINES = 10


class Examples(Struct, frozen=True, gc=False):
    """Records as a trainer takes them. `tokens`: of the rows in `train`.

    `dropped`: records that teach nothing. `cut`: rows of which a part is missing.
    """

    train: Dataset
    evaluation: Dataset | None
    tokens: int
    dropped: int = 0
    cut: int = 0
    measure: Measure | None = None


class Rows:
    """Rows of 32-bit integers, each with the line it came from: a token costs four bytes, not a Python object."""

    def __init__(self, *lists: str, numbers: tuple[str, ...] = ()) -> None:
        """`lists` and `numbers`: what every row has several integers of, and what it has one of."""
        import pyarrow as pa

        self.count = 0
        self.tokens = 0
        self._lists = lists
        self._numbers = (*numbers, LINE)
        self._schema = pa.schema(
            [*((name, pa.list_(pa.int32())) for name in lists), *((name, pa.int32()) for name in self._numbers)]
        )
        self._batches: list[pa.RecordBatch] = []
        self._waiting: dict[str, list[array.array[int] | int]] = {name: [] for name in self._schema.names}

    def add(self, **values: list[int] | int) -> None:
        """One more row. The length of its first list counts as its tokens."""
        for name, waiting in self._waiting.items():
            value = values[name]
            waiting.append(array.array("i", value) if isinstance(value, list) else value)
        first = values[self._lists[0]]
        self.count += 1
        self.tokens += len(first) if isinstance(first, list) else 0
        if len(self._waiting[LINE]) == _BATCH:
            self._flush()

    def dataset(self) -> Dataset:
        """All rows."""
        import pyarrow as pa
        from datasets import Dataset

        self._flush()
        return Dataset(pa.Table.from_batches(self._batches, schema=self._schema))

    def _flush(self) -> None:
        import pyarrow as pa

        columns = [pa.array(self._waiting[field.name], type=field.type) for field in self._schema]
        self._batches.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        for waiting in self._waiting.values():
            waiting.clear()


def in_words(lines: list[int]) -> str:
    """Lines of a dataset for a message: the first of them, and how many more there are."""
    named = ", ".join(map(str, lines[:_NAMED_LINES]))
    more = f" and {len(lines) - _NAMED_LINES} more" if len(lines) > _NAMED_LINES else ""
    return f"{'line' if len(lines) == 1 else 'lines'} {named}{more}"


def examples_of(
    train: Rows,
    evaluation: Rows,
    dropped: list[int],
    max_length: int,
    *,
    held_out: bool,
    cut: int = 0,
    measure: Measure | None = None,
) -> Examples:
    """The rows as examples; `dropped` are the lines that gave none, `held_out` says whether some were to be kept.

    Raises:
        NoTrainableTokens: nothing to learn from is left, or nothing to evaluate on.
    """
    if dropped:
        note(f"{len(dropped)} records were left out, with no answer within {max_length} tokens: "
             f"{in_words(dropped)}.")  # fmt: skip
    if cut:
        note(f"{cut} examples have more tokens than the {max_length} that there is room for, and were cut.")
    if train.count == 0:
        raise NoTrainableTokens(
            f"No record has an answer within {max_length} tokens ({in_words(dropped)}). "
            "Raise max_seq_length, shorten the prompts, or fill the empty answers."
        )
    if held_out and evaluation.count == 0:
        raise NoTrainableTokens(
            f"No record held out for evaluation has an answer within {max_length} tokens "
            f"({in_words(dropped)}). Raise max_seq_length or eval_split."
        )
    return Examples(
        train=train.dataset(),
        evaluation=evaluation.dataset() if evaluation.count else None,
        tokens=train.tokens,
        dropped=len(dropped),
        cut=cut,
        measure=measure,
    )
