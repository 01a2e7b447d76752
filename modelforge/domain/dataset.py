"""Datasets, what jobs train on: their commands, events, state, evolve and decide, in this order."""

from msgspec import Struct

from modelforge.domain.idempotency import IdempotencyKey
from trainer_entry import wire

DatasetFormat = wire.DatasetFormat


class RegisterDataset(Struct, frozen=True, kw_only=True, tag_field="type", tag="RegisterDataset", gc=False):
    """Take a checked file, already in place under its hash, into the list."""

    filename: str
    sha256: str
    format: DatasetFormat
    num_examples: int
    size_bytes: int
    key: IdempotencyKey | None = None


Command = RegisterDataset


class DatasetUploaded(Struct, frozen=True, kw_only=True, tag_field="type", tag="DatasetUploaded", gc=False):
    """A dataset, or a new revision under its name, is there."""

    filename: str
    revision: int
    sha256: str
    format: DatasetFormat
    num_examples: int
    size_bytes: int


Event = DatasetUploaded


class Dataset(Struct, frozen=True, kw_only=True, gc=False):
    """What deciding needs of a dataset: the revision that its name stands for now. `contents`: of all revisions."""

    filename: str
    sha256: str
    revision: int
    contents: tuple[str, ...]


def evolve(dataset: Dataset | None, event: Event) -> Dataset:
    """The dataset after `event`."""
    earlier = () if dataset is None else dataset.contents
    return Dataset(
        filename=event.filename,
        sha256=event.sha256,
        revision=event.revision,
        contents=(*earlier, event.sha256),
    )


def decide(dataset: Dataset | None, command: Command) -> list[Event]:
    """The same bytes under the same name are the same dataset; other bytes are its next revision."""
    if dataset is not None and dataset.sha256 == command.sha256:
        return []
    return [
        DatasetUploaded(
            filename=command.filename,
            revision=1 if dataset is None else dataset.revision + 1,
            sha256=command.sha256,
            format=command.format,
            num_examples=command.num_examples,
            size_bytes=command.size_bytes,
        )
    ]


def stream_of(filename: str) -> str:
    """The stream of a dataset."""
    return f"dataset:{filename}"
