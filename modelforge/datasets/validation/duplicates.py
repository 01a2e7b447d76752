"""Records that are there more than once, letter by letter or but for whitespace; in bounded memory, at any size.

A sieve first: a number for each record, made of the ends of its texts, so that equal records have equal
numbers and reading them all costs next to nothing. Only records whose number another one has are read again and
compared whole.
"""

from __future__ import annotations

import array
import tempfile
from typing import TYPE_CHECKING, BinaryIO

from msgspec import Struct

from modelforge.datasets.validation.lines import split
from modelforge.datasets.validation.record_errors import decoders
from modelforge.datasets.validation.record_texts import texts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from trainer_entry import wire

_END = 32  # characters
_KEPT = 1 << 16  # numbers in memory before they go to the disk
_PART = 1 << 19  # records compared at once


class Duplicate(Struct, frozen=True, gc=False):
    """A record that stands on an earlier line already; `exact`: letter by letter."""

    line: int
    first_line: int
    exact: bool


class Duplicates(Struct, frozen=True, gc=False):
    """The first ones, and how many there are."""

    listed: tuple[Duplicate, ...] = ()
    exact: int = 0
    but_for_whitespace: int = 0


class Stretch(Struct, frozen=True, array_like=True, gc=False):
    """Lines that were read at once: where they stand, the number of the first line, and their records."""

    offset: int
    size: int
    line: int
    records: int


class Numbers:
    """Numbers of 64 bits on the disk, in the order in which they came."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._kept: array.array[int] = array.array("q")

    def extend(self, numbers: Iterable[int]) -> None:
        """Add some."""
        self._kept.extend(numbers)
        if len(self._kept) > _KEPT:
            self.flush()

    def flush(self) -> None:
        """Put what is in memory on the disk."""
        self._file.write(self._kept.tobytes())
        self._file.flush()
        del self._kept[:]


def sieve_numbers(records: Iterable[tuple[str, ...]]) -> list[int]:
    """For the texts of each record a number that is the same where they are, but for whitespace, and rarely else."""
    return [
        hash(end)
        if len(end := _end_of(texts[-1])) == _END
        else hash((end, *map(_end_of, texts[:-1])))  # an end that is short is not enough to tell it from others
        for texts in records
    ]


def _end_of(text: str) -> str:
    """The last characters of a text, as they are where single spaces are its only whitespace."""
    end = text[-_END:]
    if end.isprintable() and "  " not in end and end[-1:] != " " and (len(text) > _END or end[:1] != " "):
        return end
    near = " ".join(text[-3 * _END :].split())
    if len(near) <= _END and len(text) > 3 * _END:
        near = " ".join(text.split())
    return near[-_END:]


def find_duplicates(
    path: Path,
    dataset_format: wire.DatasetFormat,
    sieves: Sequence[Path],
    stretches: Sequence[Stretch],
    listed: int,
) -> Duplicates:
    """Compare the records of a file without errors. `sieves`: the numbers of its records, in order, in some files.

    Raises:
        OSError: a file cannot be read, or the disk is full.
    """
    import numpy as np

    suspects = _not_alone([np.memmap(sieve, np.int64, "r") for sieve in sieves if sieve.stat().st_size])
    if not suspects.any():
        return Duplicates()
    with tempfile.TemporaryFile(dir=sieves[0].parent) as compared:
        kept = Numbers(compared)
        for found in _compared(path, dataset_format, suspects, stretches):
            kept.extend(found)
        kept.flush()
        return _same(np.memmap(compared, np.int64, "r").reshape(-1, 3), listed)


def _not_alone(sieves: Sequence[NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Which of the numbers of all sieves, one after the other, are there more than once."""
    import numpy as np

    count = sum(map(len, sieves))
    found = np.zeros(count, np.bool_)
    parts = -(-count // _PART)
    for part in range(parts):
        in_order = np.sort(np.concatenate([_twice_at_most(some) for _, some in _picked(sieves, part, parts)]))
        twice = in_order[1:][in_order[1:] == in_order[:-1]]
        if len(twice):
            for places, some in _picked(sieves, part, parts):
                found[places[np.isin(some, twice)]] = True
    return found


def _twice_at_most(some: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers without those that are there for the third time or more: a million of one kind are no more than two."""
    import numpy as np

    values, counts = np.unique(some, return_counts=True)
    return np.repeat(values, np.minimum(counts, 2))


def _picked(
    sieves: Sequence[NDArray[np.int64]], part: int, parts: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.int64]]]:
    """One part of the numbers, and their places among all."""
    import numpy as np

    before = 0
    for sieve in sieves:
        for begin in range(0, len(sieve), _PART):
            some = sieve[begin : begin + _PART]
            places = np.flatnonzero(some % parts == part)
            yield places + before + begin, some[places]
        before += len(sieve)


def _compared(
    path: Path, dataset_format: wire.DatasetFormat, suspects: NDArray[np.bool_], stretches: Sequence[Stretch]
) -> Iterator[tuple[int, int, int]]:
    """Of each suspect the hash of its texts as words, the hash of them as they are, and its line."""
    decode = decoders[dataset_format].decode
    first = 0
    with path.open("rb") as file:
        for stretch in stretches:
            wanted = suspects[first : first + stretch.records].tolist()
            first += stretch.records
            if not any(wanted):
                continue
            file.seek(stretch.offset)
            lines = split(file.read(stretch.size))
            full = [(number, line) for number, line in enumerate(lines, start=stretch.line) if line.strip()]
            for (number, line), is_wanted in zip(full, wanted, strict=True):
                if is_wanted:
                    texts = texts_of(decode(line))
                    yield hash(tuple(" ".join(text.split()) for text in texts)), hash(texts), number


def _same(compared: NDArray[np.int64], listed: int) -> Duplicates:
    """The records that are the same as an earlier one. The rows are in the order of the lines."""
    import numpy as np

    exact = other = 0
    first_ones: list[Duplicate] = []
    parts = -(-len(compared) // _PART)
    for part in range(parts):
        known = compared[:0]  # of equal records the first
        for some in _rows_of_part(compared, part, parts):
            rows = np.concatenate([known, some])
            rows = rows[np.argsort(rows[:, 0], kind="stable")]
            again = rows[1:, 0] == rows[:-1, 0]
            begins = np.concatenate([[0], np.flatnonzero(~again) + 1])
            firsts = np.repeat(begins, np.diff(np.append(begins, len(rows))))
            places = np.flatnonzero(again) + 1
            equal = rows[places, 1] == rows[firsts[places], 1]
            exact += int(equal.sum())
            other += int((~equal).sum())
            soonest = np.argsort(rows[places, 2], kind="stable")[:listed]
            first_ones += [
                Duplicate(int(rows[place, 2]), int(rows[firsts[place], 2]), exact=bool(is_equal))
                for place, is_equal in zip(places[soonest], equal[soonest], strict=True)
            ]
            first_ones = sorted(first_ones, key=lambda duplicate: duplicate.line)[:listed]
            known = rows[begins]
    return Duplicates(tuple(first_ones), exact, other)


def _rows_of_part(compared: NDArray[np.int64], part: int, parts: int) -> Iterator[NDArray[np.int64]]:
    """The rows of one part, some at a time: where one record stands everywhere, one part has nearly all."""
    import numpy as np

    kept: list[NDArray[np.int64]] = []
    for begin in range(0, len(compared), _PART):
        some = compared[begin : begin + _PART]
        kept.append(some[some[:, 0] % parts == part])
        if sum(map(len, kept)) >= _PART:
            yield np.concatenate(kept)
            kept = []
    if any(map(len, kept)):
        yield np.concatenate(kept)
