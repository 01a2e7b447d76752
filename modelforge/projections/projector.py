"""Follows the log: folds each record into the read models, and keeps snapshots of them."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from modelforge.domain import dataset, job, model, state
from modelforge.domain.messages import GENESIS, Record
from modelforge.domain.needed_files import needed_from
from modelforge.domain.state import State
from modelforge.event_log import LogReader, StoredSnapshot
from modelforge.fields import narrowed
from modelforge.projections import datasets, jobs, models
from modelforge.projections.datasets import DatasetSummary
from modelforge.projections.jobs import DatasetReference, JobDetails, TrainingStatus, status_of
from modelforge.projections.models import ModelDetails
from modelforge.projections.status import Turns
from modelforge.version import VERSION
from trainer_entry import wire


def _release() -> str:
    """The version, and a hash of the code that folds: other code may fold otherwise, whatever its version says."""
    package = Path(__file__).parents[1]
    folders = (package / "domain", package / "projections", Path(wire.__file__).parent)
    sources = sorted(path for folder in folders for path in folder.rglob("*.py") if path.name != "formats.py")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    return f"{VERSION}+{digest.hexdigest()[:16]}"


RELEASE = _release()
"""What a snapshot must have been written by to be read."""

SNAPSHOT_EVERY = 10_000
"""Records between two snapshots: at a microsecond or two each, what a start has to fold on top of one."""


class ReadModels(Struct, kw_only=True):
    """Everything that the API answers from, as of a record.

    `deleted`: when the files of deleted datasets went, by their names; those that were uploaded again are back.
    """

    position: int = 0
    at: int = 0
    jobs: dict[str, JobDetails] = {}
    models: dict[int, ModelDetails] = {}
    datasets: dict[str, DatasetSummary] = {}
    turns: Turns = Turns()
    deleted: dict[str, str] = {}

    def status(self) -> TrainingStatus:
        """The current training status."""
        current = self.turns.current()
        return status_of(None if current is None else self.jobs[current])

    def as_it_stands(self, details: JobDetails) -> JobDetails:
        """A job with what others' records change: its place in the queue, and whether its dataset is there."""
        if details.job_id in self.turns.waiting:
            place = self.turns.waiting.index(details.job_id) + 1
            details = msgspec.structs.replace(details, queue_position=place)
        deleted_at = self._deleted_at(details.dataset)
        if deleted_at is None:
            return details
        dataset = msgspec.structs.replace(details.dataset, deleted_at=deleted_at)
        return msgspec.structs.replace(details, dataset=dataset)

    def model(self, model_id: int) -> ModelDetails | None:
        """A model with whether the dataset of its training is there."""
        details = self.models.get(model_id)
        deleted_at = None if details is None else self._deleted_at(details.dataset)
        if details is None or deleted_at is None:
            return details
        dataset = msgspec.structs.replace(details.dataset, deleted_at=deleted_at)
        return msgspec.structs.replace(details, dataset=dataset)

    def _deleted_at(self, reference: DatasetReference) -> str | None:
        return self.deleted.get(reference.path.rpartition("/")[2]) if self.deleted else None

    def apply(self, record: Record) -> None:
        """Fold one record in."""
        self.position, self.at = record.position, record.at
        if record.kind == "command":
            return
        match record.message:
            case dataset.DatasetUploaded() as event:
                self.datasets[event.filename] = datasets.summary_of(event, record.at)
                self._are_back(needed_from(event))
            case dataset.DatasetDeleted(filename=filename, files=files):
                del self.datasets[filename]
                self.deleted.update(dict.fromkeys(files, jobs.iso(record.at)))
            case model.ModelRegistered() as event:
                self.models[event.model_id] = models.details_of(event, record.at)
                trained = self.jobs[event.spec.job_id]
                self.jobs[event.spec.job_id] = msgspec.structs.replace(trained, model_id=event.model_id)
            case model.ModelDeleted(model_id=model_id):
                del self.models[model_id]
            case job.JobEvent() as event:
                self._apply_to_job(event, record)
            case _:
                pass

    def _are_back(self, files: tuple[str, ...]) -> None:
        for file in files:
            self.deleted.pop(file, None)

    def _apply_to_job(self, event: job.Event, record: Record) -> None:
        if isinstance(event, job.TrainingRequested):
            self._are_back(needed_from(event))
        changed = jobs.evolve(self.jobs.get(event.job_id), event, record.position, record.at)
        self.jobs[event.job_id] = changed
        self.turns = self.turns.after(event, changed.status)


class StateAt(Struct, frozen=True, kw_only=True):
    """The read models as they stood after the record at `position`."""

    position: int
    status: TrainingStatus
    models: list[ModelDetails]
    datasets: list[DatasetSummary]


def state_of(read_models: ReadModels) -> StateAt:
    """The read models as the API shows them."""
    models = (read_models.model(model_id) for model_id in read_models.models)
    return StateAt(
        position=read_models.position,
        status=read_models.status(),
        models=[model for model in models if model is not None],
        datasets=[*read_models.datasets.values()],
    )


class _Snapshot(Struct):
    state: State
    read_models: ReadModels


class Rebuilt(Struct):
    """What the log says, up to its last record."""

    state: State
    read_models: ReadModels
    digest: str


def encode_snapshot(decided: State, read_models: ReadModels, digest: str) -> StoredSnapshot:
    """State and read models as bytes; the same ones always give the same bytes."""
    data = msgspec.json.encode(_Snapshot(decided, read_models))
    return StoredSnapshot(position=decided.position, digest=digest, data=data)


def rebuild(reader: LogReader, *, from_snapshot: bool = True, until: int | None = None) -> Rebuilt:
    """State and read models as the log has them, up to a position if one is named.

    The newest snapshot shortens the way if it may be used and can be read.
    """
    rebuilt = Rebuilt(State(), ReadModels(), GENESIS)
    stored = reader.snapshot(RELEASE) if from_snapshot else None
    if stored is not None:
        with contextlib.suppress(msgspec.DecodeError):  # only a short cut: the records say the same
            snapshot = msgspec.json.decode(stored.data, type=_Snapshot)
            rebuilt = Rebuilt(snapshot.state, snapshot.read_models, stored.digest)
    for record in reader.records(after=rebuilt.state.position, until=until):
        state.evolve(rebuilt.state, record)
        rebuilt.read_models.apply(record)
        rebuilt.digest = record.digest
    return rebuilt


class StatusMessage(TrainingStatus, frozen=True, kw_only=True):
    """The status of one job after the record at `position`. `type`: the record's; `at`: unix microseconds."""

    position: int
    type: str
    at: int


def status_message(read_models: ReadModels, record: Record) -> StatusMessage | None:
    """What a subscriber hears of a record that was just folded in; None if it is not a job's event."""
    if record.kind != "event" or not isinstance(record.message, job.JobEvent):
        return None
    details = read_models.jobs[record.message.job_id]
    return narrowed(details, StatusMessage, position=record.position, type=record.type, at=record.at)


class Projector:
    """Keeps the read models at the log's last record. `listener` hears of every job's event, in order."""

    def __init__(self, rebuilt: Rebuilt) -> None:
        self.read_models = rebuilt.read_models
        self.listener: Callable[[StatusMessage], None] | None = None
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, records: Sequence[Record]) -> None:
        """Fold new records in."""
        for record in records:
            self.read_models.apply(record)
            if self.listener is not None and (message := status_message(self.read_models, record)) is not None:
                self.listener(message)
        changed, self._changed = self._changed, asyncio.get_running_loop().create_future()
        changed.set_result(None)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that only new records can change."""
        while not holds():
            await asyncio.shield(self._changed)


class History:
    """What a subscriber would have heard after a position, read from the log a part at a time."""

    def __init__(self, after: int) -> None:
        self.position = after
        self._read_models = ReadModels()

    def read(self, reader: LogReader, until: int, limit: int) -> list[StatusMessage]:
        """The messages of the next `limit` records at most, up to `until`; `position` moves on with them."""
        messages: list[StatusMessage] = []
        for record in reader.records(after=self.position, until=until, limit=limit):
            self.position = record.position
            if record.kind != "event" or not isinstance(record.message, job.JobEvent):
                continue
            if record.message.job_id not in self._read_models.jobs:
                for earlier in reader.records(until=record.position - 1, streams=(record.stream,)):
                    self._read_models.apply(earlier)
            self._read_models.apply(record)
            if (message := status_message(self._read_models, record)) is not None:
                messages.append(message)
        return messages
