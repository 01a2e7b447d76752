"""What jobs and models are chosen by for a list, beside what is known of each: no list unpacks them all."""

from functools import lru_cache

from msgspec import Struct

from modelforge.domain.job import JobStatus
from modelforge.projections.jobs import JobDetails
from modelforge.projections.models import ModelDetails
from trainer_entry import wire

_SHARED = 4096


class ListedJob(Struct, frozen=True, gc=False):
    """A job as lists choose it. `datasets`: file name and SHA-256 of each that it reads. `metadata`: by name."""

    status: JobStatus
    kind: wire.JobKind
    datasets: tuple[tuple[str, str], ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()


class ListedModel(Struct, frozen=True, gc=False):
    """A trained model as it is looked for. Each field is the one of that name in its details."""

    name: str
    path: str
    task: wire.Task
    base_model: str
    base_path: str
    created_at: str


_shared_job = lru_cache(_SHARED)(ListedJob)


def listed_job(details: JobDetails) -> ListedJob:
    """What a job is chosen by; the same object for those that are equal in it."""
    if details.status == "idle":
        raise AssertionError("a job is never idle")
    datasets = tuple((one.filename, one.sha256) for one in details.datasets)
    return _shared_job(details.status, details.kind, datasets, tuple(details.metadata.items()))


def listed_model(details: ModelDetails) -> ListedModel:
    """What a model is looked for by."""
    return ListedModel(
        name=details.name,
        path=details.path,
        task=details.task,
        base_model=details.base_model,
        base_path=details.base_path,
        created_at=details.created_at,
    )
