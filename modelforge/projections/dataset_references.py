"""The datasets that a job or a model names: which bytes they are, and whether they are still there."""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from modelforge.fields import project_struct
from trainer_entry import wire


class DatasetReference(Struct, frozen=True, kw_only=True, gc=False):
    """The exact bytes that a job trains on. `revision`: of the uploaded dataset; null of a file named by its path.

    `records_sha256`: of the JSON lines that were made of them; null where they are such lines themselves.
    `path`: what the trainer reads. `deleted_at`: when it was deleted; null while it is there. `source`: of a hub's
    dataset, the split and the commit that it was fetched at; null of all others. `num_examples`: its records.
    `origin`: the path that was named, of a file that was named by one. `columns`, `encoding`: by which the job asked
    for it to be read; null where they were found out, or said with the upload.
    `parts`: the datasets that are trained on together, where there are several; `filename` names them all then,
    `sha256` is that of the mixture, `num_examples` counts what is taken of them, and `deleted_at` is that of the first
    part that was deleted.
    """

    filename: str
    sha256: str
    records_sha256: str | None = None
    revision: int | None = None
    path: str = ""
    deleted_at: str | None = None
    source: str | None = None
    num_examples: int = 0
    origin: str | None = None
    columns: dict[str, str | list[str]] | None = None
    encoding: str | None = None
    parts: tuple["PartReference", ...] = ()


class PartReference(Struct, frozen=True, kw_only=True, gc=False):
    """One of several datasets of a training: `taken` of its records, as `weight` and `max_samples` ask for."""

    dataset: DatasetReference
    taken: int
    weight: float = 1.0
    max_samples: int | None = None


def reference_of(trained_on: wire.DatasetFile) -> DatasetReference:
    """A dataset as a job shows it."""
    parts = (project_struct(part, PartReference, dataset=reference_of(part.dataset)) for part in trained_on.parts)
    return project_struct(trained_on, DatasetReference, deleted_at=None, parts=tuple(parts))


def with_deletion(reference: DatasetReference, deleted: Mapping[str, str]) -> DatasetReference:
    """The same with when it was deleted, if it was: the first of its parts. `deleted`: when, by a file's name."""
    parts = tuple(
        msgspec.structs.replace(part, dataset=with_deletion(part.dataset, deleted)) for part in reference.parts
    )
    when = deleted.get(reference.path.rpartition("/")[2])
    when = when or min((part.dataset.deleted_at for part in parts if part.dataset.deleted_at), default=None)
    return msgspec.structs.replace(reference, parts=parts, deleted_at=when)
