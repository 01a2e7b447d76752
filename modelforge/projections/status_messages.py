"""What a subscriber is sent: the status of a job after each of its events, live or from the log."""

from modelforge.domain import job
from modelforge.domain.messages import Record
from modelforge.event_log.sqlite import LogReader
from modelforge.fields import project_struct
from modelforge.projections.jobs import TrainingStatus
from modelforge.projections.read_models import ReadModels


class StatusMessage(TrainingStatus, frozen=True, kw_only=True):
    """The status of one job after the record at `position`. `type`: the record's; `at`: unix microseconds."""

    position: int
    type: str
    at: int


def status_message(read_models: ReadModels, record: Record) -> StatusMessage | None:
    """The message for a record that was just folded in; None if it is not a job's event."""
    if record.kind != "event" or not isinstance(record.message, job.JobEvent):
        return None
    details = read_models.jobs[record.message.job_id]
    return project_struct(details, StatusMessage, position=record.position, type=record.type, at=record.at)


class History:
    """The messages after a position, read from the log a part at a time."""

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
