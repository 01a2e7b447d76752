"""By what jobs and models are found without going through all of them; made at a start, and kept with each record."""

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Hashable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import groupby
from pathlib import PurePath
from typing import Generic, TypeVar, get_args

from modelforge.domain import job, model
from modelforge.domain.job import JobStatus, first_position, job_id_at
from modelforge.domain.messages import PlacedMessage
from modelforge.projections.listed import ListedJob, ListedModel
from modelforge.projections.read_models import ReadModels
from trainer_entry import wire

_K = TypeVar("_K", bound=Hashable)
_NONE: Sequence[int] = ()


class Index(Generic[_K]):
    """Numbers under keys, rising. One that is alone under its key is held as it is: most names are of one model."""

    def __init__(self) -> None:
        self._found: dict[_K, int | array[int]] = {}

    def __iter__(self) -> Iterator[_K]:
        return iter(self._found)

    def __contains__(self, key: object) -> bool:
        return key in self._found

    def __getitem__(self, key: _K) -> Sequence[int]:
        found = self._found.get(key, _NONE)
        return (found,) if isinstance(found, int) else found

    def add(self, key: _K, number: int) -> None:
        """Put a number under a key."""
        found = self._found.get(key)
        if found is None:
            self._found[key] = number
        elif isinstance(found, int):
            self._found[key] = array("q", sorted((found, number)))
        else:
            insort(found, number)

    def remove(self, key: _K, number: int) -> None:
        """Take a number away that is under a key."""
        found = self._found[key]
        if isinstance(found, int) or len(found) == 1:
            del self._found[key]
        else:
            del found[bisect_left(found, number)]


class Indexes:
    """Beside the read models, which it folds new records into: whatever is asked of it is as they stand.

    A job's number is the position at which it begins, a model's its id: what is newer has a higher one.
    """

    def __init__(self, read_models: ReadModels) -> None:
        self.read_models = read_models
        self._jobs: array[int] = array("q")
        self._of_kind: Index[wire.JobKind] = Index()
        self._of_status: Index[JobStatus] = Index()
        self._trained_on: Index[tuple[str, str]] = Index()
        self._models: array[int] = array("q")
        self._models_named: Index[str] = Index()
        self._models_from: Index[tuple[str, wire.Task]] = Index()
        for job_id, listed_job in read_models.listed_jobs.items():
            self._add_job(first_position(job_id), listed_job)
        for model_id, listed_model in read_models.listed_models.items():
            self._add_model(model_id, listed_model)

    def apply(self, record: PlacedMessage) -> None:
        """Fold one record into the read models, and follow what it changed."""
        models = self.read_models
        match record.message:
            case job.MetricsLogged():  # nearly all; nothing is found by what they say
                models.apply(record)
            case job.JobEvent(job_id=job_id):
                before = models.listed_jobs.get(job_id)
                models.apply(record)
                self._follow_job(first_position(job_id), before, models.listed_jobs[job_id])
            case model.ModelRegistered(model_id=model_id):
                models.apply(record)
                self._add_model(model_id, models.listed_models[model_id])
            case model.ModelDeleted(model_id=model_id):
                gone = models.listed_models[model_id]
                models.apply(record)
                del self._models[bisect_left(self._models, model_id)]
                self._models_named.remove(gone.name, model_id)
                self._models_from.remove((gone.base_model, gone.task), model_id)
            case _:
                models.apply(record)

    def newest_jobs(self, status: str | None = None, *, before: str | None = None) -> Iterator[str]:
        """The ids of all jobs, or of those that are something now, the newest first; older than one, if it is named."""
        return _newest(self._jobs if status is None else self._of_status[status], before)  # type: ignore[index] # others have none

    def newest_trainings(self, *, before: str | None = None) -> Iterator[str]:
        """The same of the jobs that are trainings."""
        return _newest(self._of_kind["training"], before)

    def count_jobs(self, status: JobStatus) -> int:
        """How many jobs are something now."""
        return len(self._of_status[status])

    def count_kind(self, kind: wire.JobKind) -> int:
        """How many jobs of a kind there ever were."""
        return len(self._of_kind[kind])

    def trained_on(self, filename: str, contents: Iterable[str]) -> Iterator[str]:
        """The trainings on any of the contents that a dataset had, by their SHA-256, the newest first."""
        each = (reversed(self._trained_on[filename, sha256]) for sha256 in contents)
        return (job_id_at(number) for number, _ in groupby(merge(*each, reverse=True)))

    def models_after(self, number: int) -> Sequence[int]:
        """The trained models that are newer than one, the oldest first; they stay the same whatever comes."""
        return self._models[bisect_right(self._models, number) :]

    def models_called(self, name: str) -> Sequence[int]:
        """The trained models of a name, or whose folder has that path, the oldest first."""
        listed = self.read_models.listed_models
        made_by = self.read_models.jobs.get(PurePath(name).name)  # a model's folder is called like its job
        number = None if made_by is None else made_by.model_id
        if number is not None and number in listed and listed[number].path == name:
            return sorted({number, *self._models_named[name]})
        return self._models_named[name]

    def bases(self) -> Iterator[str]:
        """What the trained models were trained from, each once, in the order of the oldest model of each."""
        oldest = sorted(self._models_from, key=lambda key: self._models_from[key][0])
        return iter(dict.fromkeys(name for name, _ in oldest))

    def is_base(self, name: str) -> bool:
        """Whether a trained model was trained from what has that name."""
        return any((name, task) in self._models_from for task in get_args(wire.Task))

    def newest_from(self, base_model: str, task: wire.Task) -> ListedModel | None:
        """The newest model for a task that was trained from a base, by its name."""
        found = self._models_from[base_model, task]
        return self.read_models.listed_models[found[-1]] if found else None

    def newest_model(self, task: wire.Task | None) -> ListedModel | None:
        """The newest trained model, for a task if one is named."""
        newest = (self._models_from[key][-1] for key in self._models_from if task in {None, key[1]})
        number = max(newest, default=None)
        return None if number is None else self.read_models.listed_models[number]

    def _add_job(self, number: int, listed: ListedJob) -> None:
        insort(self._jobs, number)
        self._of_kind.add(listed.kind, number)
        self._of_status.add(listed.status, number)
        if listed.kind == "training":
            for dataset in dict.fromkeys(listed.datasets):
                self._trained_on.add(dataset, number)

    def _follow_job(self, number: int, before: ListedJob | None, after: ListedJob) -> None:
        if before is None:
            self._add_job(number, after)
        elif before.status != after.status:
            self._of_status.remove(before.status, number)
            self._of_status.add(after.status, number)

    def _add_model(self, number: int, listed: ListedModel) -> None:
        insort(self._models, number)
        self._models_named.add(listed.name, number)
        self._models_from.add((listed.base_model, listed.task), number)


def _newest(numbers: Sequence[int], before: str | None) -> Iterator[str]:
    end = len(numbers) if before is None else bisect_left(numbers, first_position(before))
    return (job_id_at(numbers[place]) for place in range(end - 1, -1, -1))
