"""The answers of one model that are written together, within its memory."""
# mypy: allow-untyped-calls

from collections import deque

import torch

from trainer_entry.inference.answers import Answer
from trainer_entry.inference.batch import Batch, Row
from trainer_entry.inference.models import Models
from trainer_entry.providers.huggingface import LoadedModel
from trainer_entry.runtime.failures import kind_of
from trainer_entry.runtime.stdout import note
from trainer_entry.wire import MOST_ANSWERS_AT_ONCE

_PART = 2048
_PART_ON_CPU = 512
"""How many tokens of prompts are read before the others have their next token."""
_CACHE_BYTES = 2 << 30
"""Of the 4 GiB beside a model's weights, on a CPU."""
_CACHE_SHARE = 0.5
"""Of a GPU's memory that is free beside the model."""


class Writing:
    """A model's answers. A new one joins at the next token, and one that ends leaves.

    Long prompts are read a part at a time, so that nobody waits for the whole of another's. Rows with different
    adapters stand in one batch where peft can mix them; adapters that it cannot mix have a batch each, in turn. Where
    memory ends, or the caches would take too much, the newest answer is set aside, and read anew once others have
    ended; only one that has no room alone fails.
    """

    def __init__(self, loaded: LoadedModel, models: Models) -> None:
        self._loaded = loaded
        self._models = models
        self._unread: deque[Row] = deque()
        self._ended: list[Row] = []
        self._batches: dict[str | None, Batch] = {}
        self._most_rows = MOST_ANSWERS_AT_ONCE
        self._cache_bytes = _room_for_caches()

    def add(self, answer: Answer) -> None:
        """Have an answer written; its adapter is loaded."""
        self._unread.append(Row(answer))

    def advance(self) -> list[Answer]:
        """Read what is new, and write a token of each answer. Gives those that have ended."""
        self._read_some()
        for batch in self._batches.values():
            self._step(batch)
        return self._sweep()

    @property
    def _rows(self) -> int:
        return sum(len(batch.rows) for batch in self._batches.values())

    def _read_some(self) -> None:
        left = _PART if torch.cuda.is_available() else _PART_ON_CPU
        while left > 0 and self._unread:
            row = self._unread[0]
            batch = self._batch_of(row)
            if _is_over(row) or not self._fits(row, batch):
                return
            before = row.read
            try:
                is_read = batch.read_on(row, left)
            except Exception as error:  # noqa: BLE001 - it says so as the answer's failure
                self._unread.popleft()
                self._give_up(row, error)
                self._gather(batch)
                return
            left -= row.read - before
            if is_read:
                self._unread.popleft()
                self._ended += [row] if row.answer.is_over else []

    def _batch_of(self, row: Row) -> Batch:
        group = None if self._models.mixes(row.adapter) else row.adapter
        if group not in self._batches:
            self._batches[group] = Batch(self._loaded, self._models)
        return self._batches[group]

    def _fits(self, row: Row, batch: Batch) -> bool:
        """Whether there is room for a row that has been read; for one alone there always is."""
        if not self._rows:
            return True
        grown = (len(batch.rows) + 1) * max(batch.width, len(row.tokens))
        return self._rows < self._most_rows and self._cached_with(batch, grown) <= self._cache_bytes

    def _cached_with(self, batch: Batch, places: int) -> int:
        """What all caches take if that of a batch has so many places for tokens."""
        filled = next(other for other in self._batches.values() if other.rows)
        a_place = filled.cached_bytes() // (len(filled.rows) * filled.width)
        return places * a_place + sum(other.cached_bytes() for other in self._batches.values() if other is not batch)

    def _step(self, batch: Batch) -> None:
        while batch.rows:
            places = len(batch.rows) * (batch.width + 1)
            if self._rows > 1 and self._cached_with(batch, places) > self._cache_bytes:
                self._set_aside(self._taken_out(batch, _newest(batch)))
                continue
            try:
                batch.step()
            except Exception as error:  # noqa: BLE001 - it says so as the answers' failure
                for row in [_newest(batch)] if kind_of(error) == "OutOfMemory" else [*batch.rows]:
                    self._give_up(self._taken_out(batch, row), error)
            else:
                return

    def _taken_out(self, batch: Batch, row: Row) -> Row:
        try:
            batch.take_out([row])
        except Exception as error:  # noqa: BLE001 - the others are read anew
            note(f"Answers are read anew: {type(error).__name__}: {error}")
            self._gather(batch)
        return row

    def _gather(self, batch: Batch) -> None:
        """Set aside the rows of a batch whose cache is of no use any more."""
        for row in batch.scattered():
            self._set_aside(row)

    def _give_up(self, row: Row, error: Exception) -> None:
        """Set a row aside that has no room in company, and fail it for any other cause."""
        row.forget()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if kind_of(error) == "OutOfMemory" and self._rows:
            self._set_aside(row)
        else:
            row.answer.break_off(error)
            self._ended.append(row)

    def _set_aside(self, row: Row) -> None:
        self._most_rows = max(1, self._rows)
        self._unread.append(row)

    def _sweep(self) -> list[Answer]:
        ended, self._ended = [*self._ended, *(row for row in self._unread if row.answer.is_over)], []
        self._unread = deque(row for row in self._unread if not row.answer.is_over)
        for batch in self._batches.values():
            if gone := [row for row in batch.rows if row.answer.is_over]:
                try:
                    batch.take_out(gone)
                except Exception as error:  # noqa: BLE001 - the others are read anew
                    note(f"Answers are read anew: {type(error).__name__}: {error}")
                    self._gather(batch)
                ended += gone
        self._batches = {group: batch for group, batch in self._batches.items() if batch.rows}
        if not self._rows:
            self._most_rows = MOST_ANSWERS_AT_ONCE
        return [row.answer for row in ended]


def _is_over(row: Row) -> bool:
    """Whether a row ends before it is read whole; its first token it always has the time for, if it is short."""
    if row.read or row.answer.written:
        row.answer.look_at_clock()
    return row.answer.is_over


def _newest(batch: Batch) -> Row:
    return max(batch.rows, key=lambda row: row.answer.request.id)


def _room_for_caches() -> int:
    if not torch.cuda.is_available():
        return _CACHE_BYTES
    free, _ = torch.cuda.mem_get_info()
    return int(_CACHE_SHARE * free)
