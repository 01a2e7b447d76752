"""What a subscriber is sent: a record, and the status of its job after it, live or from the log."""

from collections.abc import Callable
from typing import get_args

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from modelforge.domain import job, webhook
from modelforge.domain.messages import Actor, Kind, Record
from modelforge.event_log.sqlite import LogReader
from modelforge.fields import project_struct
from modelforge.projections.jobs import JobDetails, TrainingStatus, evolve
from modelforge.projections.read_models import ReadModels

_PART_RECORDS = 2000
_PART_BYTES = 64 << 10
_KNOWN_JOBS = 64
"""More than run at once, so that a job is hardly ever looked up twice."""
_LAST: tuple[type[job.JobEvent], ...] = (
    *(job.MetricsLogged, job.EvaluationLogged, job.CheckpointSaved),
    *(job.CheckpointRequested, job.AttemptStalled, job.LineQuarantined),
)
LAST_COUNTS = tuple(str(event.__struct_config__.tag) for event in _LAST)
"""The events of which there may be many, and of which only the last one counts.

Whatever such an event changes of a job, the next one of its type changes again, and no other event between them leaves
anything of it elsewhere. `tests/event_log/test_histories.py` holds that.
"""
_ALL_COUNT = tuple(str(event.__struct_config__.tag) for event in get_args(job.Event) if event not in _LAST)


class LoggedRecord(Struct, frozen=True, kw_only=True):
    """A record as it stands in the log; `at` in unix microseconds, `data` as it was written, but for a webhook's `url`.

    Of that only the scheme and the host are shown: what follows may be a secret of the receiver's, and `digest` is over
    all of it.
    """

    position: int
    stream: str
    version: int
    kind: Kind
    type: str
    at: int
    cause: int | None
    actor: Actor
    data: Raw
    digest: str


class StatusMessage(TrainingStatus, frozen=True, kw_only=True):
    """The status of one job after the record at `position`. `type`: the record's; `at`: unix microseconds.

    `record`: that record itself, where it was asked for.
    """

    position: int
    type: str
    at: int
    record: LoggedRecord | UnsetType = UNSET


def logged_record(record: Record) -> LoggedRecord:
    """A record as the API shows it."""
    match record.message:
        case (
            webhook.CreateWebhook(url=str(url))
            | webhook.UpdateWebhook(url=str(url))
            | webhook.WebhookCreated(url=url)
            | webhook.WebhookUpdated(url=url)
        ):
            shown = msgspec.structs.replace(record.message, url=webhook.shown_url(url))
            return project_struct(record, LoggedRecord, data=Raw(msgspec.json.encode(shown)))
        case _:
            return project_struct(record, LoggedRecord)


def status_message(read_models: ReadModels, record: Record) -> StatusMessage | None:
    """The message for a record that was just folded in; None if it is not a job's event."""
    if record.kind != "event" or not isinstance(record.message, job.JobEvent):
        return None
    return _message(read_models.jobs[record.message.job_id], record)


def _message(details: JobDetails, record: Record) -> StatusMessage:
    return project_struct(
        details, StatusMessage, position=record.position, type=record.type, at=record.at, record=UNSET
    )


class Part(Struct, frozen=True, kw_only=True):
    """What a subscriber is sent of the records up to `position`, after those of the part before.

    `known`: the jobs that were told of last, as they are after it; those of the others are read from the log.
    """

    position: int
    data: bytes = b""
    known: dict[str, JobDetails] = {}


class History(Struct, frozen=True, kw_only=True):
    """What subscribers are sent of the log, read a part at a time.

    `stream`: only of this one. `frame` makes the bytes, from each record and the status of its job; it gets no
    statuses where `with_status` is false, which spares reading what came before of a job.
    """

    frame: Callable[[Record, StatusMessage | None], bytes | None]
    stream: str | None = None
    with_status: bool = True

    def next_part(self, reader: LogReader, last: Part, until: int) -> Part:
        """What comes after a part, of records up to `until`; of the first one only the position is needed."""
        streams = () if self.stream is None else (self.stream,)
        known, frames, size, count, position = dict(last.known), list[bytes](), 0, 0, last.position
        for record in reader.records(after=position, until=until, streams=streams, limit=_PART_RECORDS):
            count, position = count + 1, record.position
            frame = self.frame(record, self._status_after(reader, known, record))
            if frame is not None:
                frames.append(frame)
                size += len(frame)
            if size >= _PART_BYTES:
                break
        else:
            position = position if count == _PART_RECORDS else until
        return Part(position=position, data=b"".join(frames), known=known)

    def _status_after(self, reader: LogReader, known: dict[str, JobDetails], record: Record) -> StatusMessage | None:
        event = record.message
        if not self.with_status or record.kind != "event" or not isinstance(event, job.JobEvent):
            return None
        before = known.pop(event.job_id, None) or details_before(reader, record)
        known[event.job_id] = details = evolve(before, event, record.position, record.at)
        if len(known) > _KNOWN_JOBS:
            del known[next(iter(known))]  # that of which nothing was told for the longest time
        return _message(details, record)


def details_before(reader: LogReader, record: Record) -> JobDetails | None:
    """The job of a record as it was before it, from the few records of its stream that made it so."""
    stream, until = record.stream, record.position - 1
    counted = list(reader.records(until=until, streams=(stream,), types=_ALL_COUNT))
    last = (reader.last_record(stream, tag, until=until) for tag in LAST_COUNTS)
    counted += (one for one in last if one is not None)
    details: JobDetails | None = None
    for one in sorted(counted, key=lambda one: one.position):
        if isinstance(one.message, job.JobEvent):
            details = evolve(details, one.message, one.position, one.at)
    return details
