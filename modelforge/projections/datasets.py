"""The datasets: for each name, the revision that it stands for now; and all that is known of one."""

from collections.abc import Iterable
from itertools import islice

from msgspec import Struct

from modelforge.domain.dataset import DatasetDeleted, DatasetUploaded, stream_of
from modelforge.domain.purposes import trainable
from modelforge.errors import LineError
from modelforge.event_log.sqlite import LogReader
from modelforge.fields import project_struct
from modelforge.projections.jobs import iso
from modelforge.projections.models import megabytes
from trainer_entry import wire

_MOST_JOBS = 100


class DatasetSummary(Struct, frozen=True, kw_only=True):
    """An uploaded dataset; `size_mb` counts 10^6 bytes.

    `records_sha256`: of the JSON lines that were made of it; null where it is such lines itself. `columns`: its fields;
    none are named of what was uploaded before that was noted. `has_tools`: some record has tools, or calls one.
    """

    filename: str
    num_examples: int
    size_mb: float
    uploaded_at: str
    format: wire.DatasetFormat
    sha256: str
    revision: int
    container: wire.Container = "jsonl"
    compression: wire.Compression | None = None
    records_sha256: str | None = None
    columns: wire.FieldNames = wire.FieldNames()
    has_tools: bool = False

    @property
    def content(self) -> str:
        """The SHA-256 of the JSON lines that trainers read."""
        return self.records_sha256 or self.sha256


class DatasetRevision(Struct, frozen=True, kw_only=True):
    """One of the uploads under a name."""

    revision: int
    sha256: str
    num_examples: int
    size_mb: float
    uploaded_at: str


class DatasetDetails(DatasetSummary, frozen=True, kw_only=True):
    """One revision of a dataset, and all that there are.

    `warnings`: the first 100 of `warning_count`. `tasks`, `strategies`: what it can be trained on for. `jobs`: those
    that trained on any of the revisions, newest first, at most 100. `source`: where it came from, if not from the
    client.
    """

    size_bytes: int
    records_bytes: int | None
    source: str | None
    revisions: list[DatasetRevision]
    warnings: tuple[LineError, ...]
    warning_count: int
    tasks: tuple[wire.Task, ...]
    strategies: tuple[wire.Strategy, ...]
    jobs: list[str]


class Upload(Struct, frozen=True):
    """A revision as the log has it, and when it came, in unix microseconds."""

    event: DatasetUploaded
    at: int


def summary_of(event: DatasetUploaded, at: int) -> DatasetSummary:
    """The summary of a dataset, from its upload."""
    size_mb = megabytes(event.size_bytes)
    return project_struct(event, DatasetSummary, size_mb=size_mb, uploaded_at=iso(at), columns=_columns(event))


def _columns(event: DatasetUploaded) -> wire.FieldNames:
    return event.fields or wire.FieldNames(mapping=event.columns)


def uploads_of(reader: LogReader, filename: str) -> list[Upload]:
    """The revisions of a dataset that are there, oldest first."""
    uploads: list[Upload] = []
    types = ("DatasetUploaded", "DatasetDeleted")
    for record in reader.records(streams=(stream_of(filename),), types=types):
        match record.message:
            case DatasetUploaded() as event:
                uploads.append(Upload(event, record.at))
            case DatasetDeleted():
                uploads.clear()
            case _:
                pass
    return uploads


def details_of(shown: Upload, uploads: Iterable[Upload], trained: Iterable[str]) -> DatasetDetails:
    """One of the revisions of a dataset, with what they all have in common.

    `trained`: the jobs that trained on any of them, newest first.
    """
    tasks, strategies = trainable(shown.event.format)
    revisions = [
        project_struct(one.event, DatasetRevision, size_mb=megabytes(one.event.size_bytes), uploaded_at=iso(one.at))
        for one in uploads
    ]
    return project_struct(
        shown.event,
        DatasetDetails,
        size_mb=megabytes(shown.event.size_bytes),
        uploaded_at=iso(shown.at),
        revisions=revisions,
        tasks=tasks,
        strategies=strategies,
        jobs=[*islice(trained, _MOST_JOBS)],
        columns=_columns(shown.event),
    )
