"""Datasets, what jobs train on: their commands, events, state, evolve and decide, in this order."""

from typing import assert_never

import msgspec
from msgspec import Struct

from modelforge.domain.idempotency import IdempotencyKey
from modelforge.errors import Conflict, LineError, NotFound
from modelforge.fields import project_struct
from trainer_entry import wire

DatasetFormat = wire.DatasetFormat


class CheckedFile(Struct, frozen=True, kw_only=True, tag_field="type", gc=False):
    """A file as it was uploaded, and what its check found.

    `columns`: which column of the file each field was taken from, where it was not the one of its name. `fields`: those
    that are read, and those that are not; None of a file that was checked before that was noted. `has_tools`: some
    record has tools, or calls one.
    `records_sha256`, `records_bytes`: of the JSON lines that were made from it; None where it is such lines itself.
    `warnings`: the first of `warning_count`. `source`: where it came from, if not from the client.
    """

    filename: str
    sha256: str
    format: DatasetFormat
    num_examples: int
    size_bytes: int
    container: wire.Container = "jsonl"
    compression: wire.Compression | None = None
    columns: dict[str, str | list[str]] | None = None
    fields: wire.FieldNames | None = None
    has_tools: bool = False
    records_sha256: str | None = None
    records_bytes: int | None = None
    warnings: tuple[LineError, ...] = ()
    warning_count: int = 0
    source: str | None = None


class RegisterDataset(CheckedFile, frozen=True, kw_only=True, tag="RegisterDataset", gc=False):
    """Take a checked file, already in place under its hash, into the list."""

    key: IdempotencyKey | None = None


class DeleteDataset(Struct, frozen=True, kw_only=True, tag_field="type", tag="DeleteDataset", gc=False):
    """Take a dataset with all its revisions out of the list, and off the disk what nobody else needs of it."""

    filename: str
    key: IdempotencyKey | None = None


Command = RegisterDataset | DeleteDataset


class DatasetUploaded(CheckedFile, frozen=True, kw_only=True, tag="DatasetUploaded", gc=False):
    """A dataset, or a new revision under its name, is there."""

    revision: int


class DatasetDeleted(Struct, frozen=True, kw_only=True, tag_field="type", tag="DatasetDeleted", gc=False):
    """The dataset is gone from the list; `files`, which it alone had, go next, also after a crash."""

    filename: str
    files: tuple[str, ...]


class DatasetFilesRemoved(Struct, frozen=True, kw_only=True, tag_field="type", tag="DatasetFilesRemoved", gc=False):
    """These files of the deleted dataset are off the disk, but for those that were uploaded again meanwhile."""

    filename: str
    files: tuple[str, ...]


class DatasetFilesKept(Struct, frozen=True, kw_only=True, tag_field="type", tag="DatasetFilesKept", gc=False):
    """The deleted dataset's files could not be removed, and why; the next start tries again."""

    filename: str
    reason: str


class ReportDatasetFilesRemoved(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="ReportDatasetFilesRemoved", gc=False
):
    """The reactor's word that these files of a deleted dataset are gone."""

    filename: str
    files: tuple[str, ...]


class ReportDatasetFilesKept(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="ReportDatasetFilesKept", gc=False
):
    """The reactor's word that a deleted dataset's files could not be removed, and why."""

    filename: str
    reason: str


Report = ReportDatasetFilesRemoved | ReportDatasetFilesKept
Event = DatasetUploaded | DatasetDeleted | DatasetFilesRemoved | DatasetFilesKept


class Revision(Struct, frozen=True, kw_only=True, gc=False):
    """What deciding needs of one revision."""

    revision: int
    sha256: str
    records_sha256: str | None = None
    columns: dict[str, str | list[str]] | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The names of its files, as they lie in the folder of datasets."""
        return files_of(self.sha256, self.records_sha256)


class Dataset(Struct, frozen=True, kw_only=True, gc=False):
    """What deciding needs of a dataset. `revision`: the last number that was given, before and after a deletion.

    `revisions`: those that are there, of a deleted dataset none. `removing`: the files of what was deleted, until it
    is known that they are off the disk.
    """

    filename: str
    revision: int = 0
    revisions: tuple[Revision, ...] = ()
    removing: tuple[str, ...] = ()
    files_kept: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files of its revisions, each as often as a revision has it."""
        return tuple(file for revision in self.revisions for file in revision.files)

    def is_settled(self, files: tuple[str, ...]) -> bool:
        """Whether it is known what became of files that were deleted."""
        return self.files_kept is not None or not any(file in self.removing for file in files)


def files_of(sha256: str, records_sha256: str | None) -> tuple[str, ...]:
    """The names of the files of an upload: the records, and the upload itself where it is another file."""
    return (f"{sha256}.jsonl",) if records_sha256 is None else (f"{records_sha256}.jsonl", f"{sha256}.upload")


def file_of(trained_on: wire.DatasetFile) -> str | None:
    """The name of the file that a job reads, where it is one of the folder of datasets.

    It is known by its name, which is its content's hash: the data directory may have been moved since.
    """
    name = trained_on.path.rpartition("/")[2]
    return name if name == f"{trained_on.content}.jsonl" else None


def evolve(dataset: Dataset | None, event: Event) -> Dataset:
    """The dataset after `event`."""
    if isinstance(event, DatasetUploaded):
        earlier = Dataset(filename=event.filename) if dataset is None else dataset
        revision = project_struct(event, Revision)
        removing = _without(earlier.removing, revision.files)
        return msgspec.structs.replace(
            earlier,
            revision=event.revision,
            revisions=(*earlier.revisions, revision),
            removing=removing,
            files_kept=earlier.files_kept if removing else None,
        )
    if dataset is None:
        raise ValueError(f"{type(event).__name__} of a dataset that was never uploaded: {event.filename}")
    match event:
        case DatasetDeleted(files=files):
            removing = (*_without(dataset.removing, files), *files)
            return msgspec.structs.replace(dataset, revisions=(), removing=removing, files_kept=None)
        case DatasetFilesRemoved(files=files):
            return msgspec.structs.replace(dataset, removing=_without(dataset.removing, files), files_kept=None)
        case DatasetFilesKept(reason=reason):
            return msgspec.structs.replace(dataset, files_kept=reason)
        case _:
            assert_never(event)


def _without(files: tuple[str, ...], gone: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(file for file in files if file not in gone)


def decide(dataset: Dataset | None, command: RegisterDataset) -> list[Event]:
    """The same bytes, read in the same way, are the same dataset; all else under its name is its next revision."""
    number = 1 if dataset is None else dataset.revision + 1
    if dataset is not None and dataset.revisions:
        last = dataset.revisions[-1]
        if project_struct(command, Revision, revision=last.revision) == last:
            return []
    return [project_struct(command, DatasetUploaded, revision=number)]


def decide_deletion(
    dataset: Dataset | None, command: DeleteDataset, used_by: str | None, files: tuple[str, ...]
) -> list[Event]:
    """Delete. `used_by`: an active job that trains on a revision, if one does. `files`: those that nobody else needs.

    Raises:
        NotFound: there is no such dataset, or no longer.
        Conflict: an active job uses it.
    """
    if dataset is None or not dataset.revisions:
        raise no_such_dataset(command.filename)
    if used_by is not None:
        raise Conflict(
            "The dataset is in use",
            f"Job {used_by} trains on {command.filename}; stop it or wait for its end.",
        )
    return [DatasetDeleted(filename=command.filename, files=files)]


def decide_report(dataset: Dataset | None, report: Report) -> list[Event]:
    """What became of a deleted dataset's files, unless that is known already."""
    if dataset is None or not dataset.removing:
        return []
    match report:
        case ReportDatasetFilesRemoved(filename=filename, files=files):
            removed = tuple(file for file in files if file in dataset.removing)
            return [DatasetFilesRemoved(filename=filename, files=removed)] if removed else []
        case ReportDatasetFilesKept(reason=reason) if reason == dataset.files_kept:
            return []
        case ReportDatasetFilesKept(filename=filename, reason=reason):
            return [DatasetFilesKept(filename=filename, reason=reason)]
        case _:
            assert_never(report)


def no_such_dataset(filename: str) -> NotFound:
    """The refusal of a name that no dataset has."""
    return NotFound("No such dataset", f"There is no dataset {filename[:200]!r}; GET /api/datasets lists them.")


def stream_of(filename: str) -> str:
    """The stream of a dataset."""
    return f"dataset:{filename}"
