"""Several datasets as one, and which records are held out: counted by the server, and read so by the trainer.

A dataset of N records with the weight W gives round(W * N) of them, rounded half up, at least one, and at most its
`max_samples`. Weights are shares of a dataset, as in the mixers of open-r1 and open-instruct, and no probabilities: 1.0
takes all of it, 0.5 a half that the seed draws, 2.0 each record twice. Shares stand in the ratio of weight * size.

Held out are records, and not lines of the mixture: the share `eval_split` of the different records that are taken of
each dataset. None of them is trained on, in any repetition. Where the same records are named twice, what is held out
the first time is left out the second, and only those that were not taken before are held out then.
"""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from trainer_entry.wire.job import DatasetFile, DatasetPart, JobSpec, Strategy
from trainer_entry.wire.obstacles import Obstacle, held_out_count, in_prompts, in_records
from trainer_entry.wire.parameters import TrainingParameters


class Counts(Struct, frozen=True, gc=False):
    """How many records are trained on, and evaluated on."""

    train: int
    evaluation: int


class Reading(Struct, frozen=True, gc=False):
    """One reading of a file: the places of the records taken from it, in its order; `held_out` among them."""

    dataset: DatasetFile
    places: range | tuple[int, ...]
    held_out: frozenset[int] = frozenset()


def taken_of(records: int, weight: float, max_samples: int | None) -> int:
    """How many records a dataset of so many gives."""
    taken = max(1, math.floor(weight * records + 0.5))
    return taken if max_samples is None else min(taken, max_samples)


def mixed(parts: tuple[DatasetPart, ...], seed: int) -> DatasetFile:
    """The datasets as one."""
    recipe = [(part.dataset.content, part.dataset.format, part.taken) for part in parts]
    return DatasetFile(
        filename=" + ".join(part.dataset.filename for part in parts),
        path="",
        sha256=hashlib.sha256(msgspec.json.encode([seed, recipe])).hexdigest(),
        format=parts[0].dataset.format,
        num_examples=sum(part.taken for part in parts),
        has_tools=any(part.dataset.has_tools for part in parts),
        parts=parts,
        seed=seed,
    )


def counts_of(dataset: DatasetFile, validation: DatasetFile | None, eval_split: float, seed: int) -> Counts:
    """How many records a training on a dataset learns from and is judged by; `seed`: that of the training."""
    if not dataset.parts:
        held_out = held_out_count(dataset.num_examples, eval_split)
        train = dataset.num_examples - held_out
    elif eval_split > 0 and _named_twice(dataset):  # it depends on which records are drawn both times
        readings = [*readings_of(dataset, eval_split, seed)]
        held_out = sum(len(reading.held_out) for reading in readings)
        train = sum(len(reading.places) for reading in readings) - held_out
    else:
        different = [min(part.taken, part.dataset.num_examples) for part in dataset.parts]
        held = [held_out_count(count, eval_split) for count in different]
        held_out = sum(held)
        train = sum(different) - held_out
        train += sum(
            _repeated(part.taken - count, count, count - kept)
            for part, count, kept in zip(dataset.parts, different, held, strict=True)
        )
    return Counts(train, held_out if validation is None else validation.num_examples)


def _repeated(more: int, different: int, learned: int) -> int:
    """How many of the records taken again are learned from: those of the whole repetitions, and of the last one."""
    whole, rest = divmod(more, different)
    return whole * learned + math.floor(rest * learned / different + 0.5)


def readings_of(dataset: DatasetFile, eval_split: float, seed: int) -> Iterator[Reading]:
    """How the files of a dataset are read, one after the other."""
    if not dataset.parts:
        count = dataset.num_examples
        yield Reading(dataset, range(count), held_out_of(count, eval_split, seed))
        return
    twice, earlier = _named_twice(dataset), dict[str, _Earlier]()
    for number, part in enumerate(dataset.parts):
        content, seeds = part.dataset.content, (f"{dataset.seed}/{number}", f"{seed}/{number}")
        before = earlier.get(content, _Earlier())
        places = _taken_from(part, seeds[0])
        readings = [*_readings_of_part(part, places, before, eval_split, *seeds)]
        yield from readings
        if content in twice:
            held_out = before.held_out.union(*(reading.held_out for reading in readings))
            earlier[content] = _Earlier(before.places.union(places), held_out)


class _Earlier(Struct, frozen=True, gc=False):
    """What was taken, and held out, of the same records where they were named before."""

    places: frozenset[int] = frozenset()
    held_out: frozenset[int] = frozenset()


def _named_twice(dataset: DatasetFile) -> set[str]:
    """The contents that several parts have."""
    return {content for content, times in Counter(part.dataset.content for part in dataset.parts).items() if times > 1}


def _taken_from(part: DatasetPart, seed: str) -> range | tuple[int, ...]:
    count = part.dataset.num_examples
    return range(count) if part.taken >= count else _drawn(range(count), part.taken, f"{seed}/taken")


def _readings_of_part(
    part: DatasetPart,
    places: range | tuple[int, ...],
    before: _Earlier,
    eval_split: float,
    of_mixture: str,
    of_split: str,
) -> Iterator[Reading]:
    kept = tuple(place for place in places if place not in before.held_out) if before.held_out else places
    new = tuple(place for place in kept if place not in before.places) if before.places else kept
    held_out = frozenset(_drawn(new, held_out_count(len(new), eval_split), f"{of_split}/held out"))
    if kept:
        yield Reading(part.dataset, kept, held_out)
    whole, rest = divmod(part.taken - len(places), len(places))
    learned = tuple(place for place in kept if place not in held_out) if held_out else kept
    for _ in range(whole if learned else 0):
        yield Reading(part.dataset, learned)
    last = math.floor(rest * len(learned) / len(places) + 0.5)
    if last:
        yield Reading(part.dataset, _drawn(learned, last, f"{of_mixture}/again"))


def _drawn(places: range | tuple[int, ...], count: int, seed: str) -> tuple[int, ...]:
    """So many of the places, in their order. The seed is a text, as each drawing needs one of its own."""
    return tuple(sorted(random.Random(seed).sample(places, count)))  # noqa: S311 - no secret


def held_out_of(count: int, fraction: float, seed: int) -> frozenset[int]:
    """Which of `count` records are kept for evaluation: at least one if a fraction is asked for, never all."""
    size = held_out_count(count, fraction)
    return frozenset(random.Random(seed).sample(range(count), size))  # noqa: S311 - no secret


def in_datasets(spec: JobSpec) -> Obstacle | None:
    """What speaks against a training on so many records."""
    return in_counts(spec.dataset, spec.validation, spec.parameters, spec.strategy)


def in_counts(
    dataset: DatasetFile, validation: DatasetFile | None, parameters: TrainingParameters, strategy: Strategy
) -> Obstacle | None:
    """The same, of datasets by themselves."""
    counts = counts_of(dataset, validation, parameters.eval_split, parameters.seed)
    if dataset.parts and parameters.eval_split > 0 and counts.evaluation == 0:
        return Obstacle(
            "eval_split",
            f"eval_split {parameters.eval_split:g} cannot hold back one record of any dataset",
            "Take more of them, or leave it out.",
        )
    if dataset.parts or validation is not None:
        return in_prompts(parameters, counts.train) if strategy == "rlhf" else None
    return in_records(parameters, strategy, dataset.num_examples)
