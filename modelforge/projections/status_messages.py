"""What a subscriber is sent: a record, and the status of its job after it, live or from the log."""

from collections.abc import Callable, Iterator

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from modelforge.domain import job, webhook
from modelforge.domain.messages import Actor, Kind, Record
from modelforge.event_log.sqlite import LogReader
from modelforge.fields import project_struct
from modelforge.projections.jobs import TrainingStatus
from modelforge.projections.read_models import ReadModels

_PART_RECORDS = 2000
_PART_BYTES = 64 << 10


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
    details = read_models.jobs[record.message.job_id]
    return project_struct(
        details, StatusMessage, position=record.position, type=record.type, at=record.at, record=UNSET
    )


class History:
    """What a subscriber is sent of the records after a position, read from the log a part at a time.

    `stream`: only of this one. `frame` makes the bytes, from each record and the status of its job; it gets no
    statuses where `with_status` is false, which spares reading what came before of a job.
    """

    def __init__(
        self,
        after: int,
        frame: Callable[[Record, StatusMessage | None], bytes | None],
        *,
        stream: str | None = None,
        with_status: bool = True,
    ) -> None:
        self.position = after
        self._frame = frame
        self._streams = () if stream is None else (stream,)
        self._with_status = with_status
        self._read_models = ReadModels()

    def read(self, reader: LogReader, until: int) -> list[bytes]:
        """The next part, of records up to `until`; `position` moves on with it."""
        frames: list[bytes] = []
        size = 0
        for record in reader.records(after=self.position, until=until, streams=self._streams, limit=_PART_RECORDS):
            self.position = record.position
            frame = self._frame(record, self._status_after(reader, record))
            if frame is not None:
                frames.append(frame)
                size += len(frame)
            if size >= _PART_BYTES:
                return frames
        if next(self._rest(reader, until), None) is None:
            self.position = until
        return frames

    def _rest(self, reader: LogReader, until: int) -> Iterator[Record]:
        return reader.records(after=self.position, until=until, streams=self._streams, limit=1)

    def _status_after(self, reader: LogReader, record: Record) -> StatusMessage | None:
        if not self._with_status or record.kind != "event" or not isinstance(record.message, job.JobEvent):
            return None
        if record.message.job_id not in self._read_models.jobs:
            for earlier in reader.records(until=record.position - 1, streams=(record.stream,)):
                self._read_models.apply(earlier)
        self._read_models.apply(record)
        return status_message(self._read_models, record)
