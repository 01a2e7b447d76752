"""The datasets that a training names: one, or several with weights, and one to evaluate on; each checked by itself."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from modelforge.admission.context import Admission
from modelforge.admission.dataset import resolve_dataset
from modelforge.admission.problems import Problems
from modelforge.admission.rewards import check_fields
from modelforge.domain.purposes import check_format
from modelforge.domain.rewards import check_rewards
from modelforge.errors import BadInput, NotFound
from trainer_entry import wire
from trainer_entry.wire.mixture import Counts, counts_of, mixed, taken_of

MOST_DATASETS = 100
DatasetName = Annotated[str, Meta(min_length=1, max_length=4000)]
Columns = dict[str, str | list[str]]
Encoding = Annotated[str, Meta(min_length=1, max_length=100)]
MaxSamples = Annotated[int, Meta(ge=1, le=1_000_000_000)]
_OF_A_FILE = ("columns", "encoding")
_DATASET, _VALIDATION = "dataset", "validation_dataset"


class WeighedDataset(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of several datasets: `weight` times its records are taken, rounded, at most `max_samples`.

    `dataset`, `columns`, `encoding`: as for a dataset alone.
    """

    dataset: DatasetName
    weight: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    max_samples: MaxSamples | None = None
    columns: Columns | None = None
    encoding: Encoding | None = None


WeighedDatasets = Annotated[list[WeighedDataset], Meta(min_length=1, max_length=MOST_DATASETS)]


class TakenRecords(Struct, frozen=True, kw_only=True, gc=False):
    """How many records of a dataset are taken: more than it has where some are taken again."""

    filename: str
    records: int
    taken: int


class RecordCounts(Struct, frozen=True, kw_only=True, gc=False):
    """How many records would be trained and evaluated on, and how many each dataset gives."""

    train: int
    evaluation: int
    datasets: tuple[TakenRecords, ...]


class FoundDatasets(Struct):
    """What was found of the datasets of a training, and the files of records that had to be made or fetched."""

    staged: list[Path]
    dataset: wire.DatasetFile | None = None
    validation: wire.DatasetFile | None = None

    async def discard_staged(self) -> None:
        """Remove the staged files, but for those that were stored."""
        for path in self.staged:
            await asyncio.to_thread(path.unlink, missing_ok=True)


class AskedRecords(Struct, frozen=True):
    """The part of a request that names records. `strategy`: None of an evaluation, for which any is good."""

    dataset: str | list[WeighedDataset]
    validation_dataset: str | None
    columns: Columns | None
    encoding: str | None
    task: wire.Task
    strategy: wire.Strategy | None


async def find_datasets(
    admission: Admission, asked: AskedRecords, parameters: wire.TrainingParameters, problems: Problems
) -> FoundDatasets:
    """Find and check every dataset; what speaks against one is kept in `problems`, under its place in the request."""
    found = FoundDatasets([])
    try:
        await _find(admission, asked, parameters, problems, found)
    except BaseException:
        await found.discard_staged()
        raise
    return found


async def _find(
    admission: Admission,
    asked: AskedRecords,
    parameters: wire.TrainingParameters,
    problems: Problems,
    found: FoundDatasets,
) -> None:
    alone = isinstance(asked.dataset, str)
    listed = (
        [WeighedDataset(dataset=asked.dataset, columns=asked.columns, encoding=asked.encoding)]
        if isinstance(asked.dataset, str)
        else asked.dataset
    )
    for name in _OF_A_FILE:
        if not alone and getattr(asked, name) is not None:
            with problems.collecting(name):
                raise BadInput(
                    f"{name} is for one dataset, and there is a list of them",
                    f"Send it with the dataset that it is for, as dataset[0].{name}.",
                    field=name,
                )
    files: list[tuple[str, wire.DatasetFile]] = []
    for number, one in enumerate(listed):
        place = _DATASET if alone else f"{_DATASET}[{number}]"
        with problems.collecting(place), naming(place):
            file, staged = await resolve_dataset(admission, one.dataset, one.columns, one.encoding)
            found.staged += [] if staged is None else [staged]
            await _check(file, asked, parameters)
            files.append((place, file))
    if len(files) == len(listed):
        with problems.collecting(_DATASET):
            _check_alike(files)
            found.dataset = files[0][1] if alone else _mixed(listed, [file for _, file in files], parameters.seed)
    if asked.validation_dataset is not None:
        with problems.collecting(_VALIDATION), naming(_VALIDATION):
            if parameters.eval_split > 0:
                raise BadInput(
                    "validation_dataset and eval_split do not go together",
                    'Leave out one: with "eval_split": 0 all of the dataset is trained on.',
                    field=_VALIDATION,
                )
            file, staged = await resolve_dataset(admission, asked.validation_dataset, None)
            found.staged += [] if staged is None else [staged]
            await _check(file, asked, parameters)
            _check_alike([*files[:1], (_VALIDATION, file)])
            found.validation = file


async def _check(file: wire.DatasetFile, asked: AskedRecords, parameters: wire.TrainingParameters) -> None:
    check_format(file.format, asked.task, asked.strategy)
    if asked.strategy is not None:  # an evaluation rewards nothing
        check_rewards(asked.strategy, file, parameters)
        await asyncio.to_thread(check_fields, file, parameters)


def _check_alike(files: list[tuple[str, wire.DatasetFile]]) -> None:
    """Refuse preferences beside records without: they train and reward a policy in another way.

    Raises:
        BadInput: it names the first that is not as those before it.
    """
    for place, file in files[1:]:
        if (file.format == "preferences") != (files[0][1].format == "preferences"):
            raise BadInput(
                f"{file.format} and {files[0][1].format} cannot be trained on together",
                f"{place} is {file.filename}: name datasets that all have preferences, or none.",
                field=place,
            )


def _mixed(listed: list[WeighedDataset], files: list[wire.DatasetFile], seed: int) -> wire.DatasetFile:
    parts = (
        wire.DatasetPart(
            dataset=file,
            weight=one.weight,
            max_samples=one.max_samples,
            taken=taken_of(file.num_examples, one.weight, one.max_samples),
        )
        for one, file in zip(listed, files, strict=True)
    )
    return mixed(tuple(parts), seed)


def places_of(spec: wire.JobSpec) -> Iterator[tuple[str, wire.DatasetFile]]:
    """Each file of records that a training reads, with its place in the request."""
    if not spec.dataset.parts:
        yield _DATASET, spec.dataset
    for number, part in enumerate(spec.dataset.parts):
        yield f"{_DATASET}[{number}]", part.dataset
    if spec.validation is not None:
        yield _VALIDATION, spec.validation


def records_of(spec: wire.JobSpec) -> RecordCounts:
    """How many records a training would use."""
    parameters = spec.parameters
    counts: Counts = counts_of(spec.dataset, spec.validation, parameters.eval_split, parameters.seed)
    taken = [(part.dataset, part.taken) for part in spec.dataset.parts] or [(spec.dataset, spec.dataset.num_examples)]
    return RecordCounts(
        train=counts.train,
        evaluation=counts.evaluation,
        datasets=tuple(
            TakenRecords(filename=file.filename, records=file.num_examples, taken=count) for file, count in taken
        ),
    )


@contextlib.contextmanager
def naming(place: str) -> Iterator[None]:
    """Let a refusal say which of several datasets it is of."""
    try:
        yield
    except (BadInput, NotFound) as error:
        if place == _DATASET:
            raise
        if isinstance(error, BadInput) and error.field in {None, _DATASET}:
            error.field = place
        elif isinstance(error, BadInput) and error.field in _OF_A_FILE:
            error.field = f"{place}.{error.field}"
        named = f"{_DATASET}: "
        if error.detail.startswith(named):
            error.detail = error.detail.removeprefix(named)
        if not error.detail.startswith(place):
            error.detail = f"{place}: {error.detail}"
        raise
