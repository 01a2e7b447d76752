"""Delivers every end of a job to every endpoint that hears of it: in order, at least once, each endpoint by itself.

What an endpoint is due stands in the log, and how far it was served too: a restart loses nothing. What is sent again
has the same `webhook-id`, by which a receiver drops what it has.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial

import structlog
from msgspec import Struct

from modelforge.command_handler import CommandHandler
from modelforge.domain import job, webhook
from modelforge.domain.messages import Record
from modelforge.domain.webhook import EventType
from modelforge.errors import SegmentAway, SegmentDamaged, StorageFull
from modelforge.event_log.sqlite import EventLog, LogReader
from modelforge.projections.read_models import ReadModels
from modelforge.webhooks.secrets import SecretFiles
from modelforge.webhooks.sending import Answer, Sender, headers_of

_log = structlog.get_logger()
_FULL_SECONDS = 1.0
_ENDS = ("TrainingCompleted", "TrainingStopped", "TrainingFailed")


class Retries(Struct, frozen=True, kw_only=True):
    """When a delivery is tried again, in seconds: after `first`, and each time `growth` times as long, up to `longest`.

    It is given up once what it tells of is `oldest` seconds old, but not before `fewest` tries.
    """

    first: float = 1.0
    growth: float = 4.0
    longest: float = 3600.0
    oldest: float = 86_400.0
    fewest: int = 5

    def delay(self, attempts: int) -> float:
        """The wait after so many tries."""
        return min(self.first * self.growth ** min(attempts - 1, 30), self.longest)


DEFAULT_RETRIES = Retries()


class Event(Struct, frozen=True, kw_only=True):
    """What an endpoint is sent of an end of a job."""

    event_id: str
    event_type: EventType
    job_id: str
    body: bytes


EventOf = Callable[[Record], Event]


class Deliverer:
    """One task an endpoint. `event_of` makes what is sent of a record that ends a job."""

    def __init__(
        self,
        handler: CommandHandler,
        log: EventLog,
        read_models: ReadModels,
        secrets: SecretFiles,
        event_of: EventOf,
        ended: Callable[[asyncio.Task[None]], None],
        retries: Retries = DEFAULT_RETRIES,
        sender: Sender | None = None,
    ) -> None:
        """`ended` is called with each task that is over.

        `rotating`: held while secrets are rotated, or those of two rotations would be mixed up.
        """
        self._handler = handler
        self._log = log
        self._read_models = read_models
        self.secrets = secrets
        self._event_of = event_of
        self._ended = ended
        self._retries = retries
        self._sender = sender or Sender()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._woken: dict[str, asyncio.Event] = {}
        self.rotating = asyncio.Lock()

    def start(self) -> None:
        """Take up what the log says is due."""
        self.secrets.sweep(self._read_models.webhooks)
        for webhook_id in self._read_models.webhooks:
            self._begin(webhook_id)

    def take(self, records: Sequence[Record]) -> None:
        """Begin what follows from new records, once they are folded into the read models."""
        for record in records:
            match record.message:
                case webhook.WebhookCreated(webhook_id=webhook_id):
                    self._begin(webhook_id)
                case webhook.WebhookDeleted(webhook_id=webhook_id):
                    self._woken.pop(webhook_id).set()
                    self._tasks.pop(webhook_id).cancel()
                case (
                    webhook.WebhookUpdated(webhook_id=webhook_id) | webhook.WebhookSecretRotated(webhook_id=webhook_id)
                ):
                    self._woken[webhook_id].set()
                case job.TrainingCompleted() | job.TrainingStopped() | job.TrainingFailed():
                    for woken in self._woken.values():
                        woken.set()
                case _:
                    pass

    async def send_once(self, webhook_id: str, event_id: str, body: bytes) -> Answer:
        """Send something to an endpoint, once, and record nothing of it.

        Raises:
            NotFound: it was deleted.
        """
        try:
            secrets = await asyncio.to_thread(self.secrets.read, webhook_id)
        except OSError as error:  # or one file would end the server
            return Answer(status_code=None, reason=f"its secret cannot be read: {error.strerror}")
        known = self._read_models.webhooks.get(webhook_id)
        if known is None:
            raise webhook.no_such_webhook(webhook_id)
        if not secrets:
            return Answer(status_code=None, reason="its secret is not in this data directory; rotate it")
        return await self._sender.send(known.url, body, headers_of(secrets, event_id, time.time(), body))

    async def close(self) -> None:
        """Leave the rest to the next server."""
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._sender.close()

    def _begin(self, webhook_id: str) -> None:
        self._woken[webhook_id] = asyncio.Event()
        task = asyncio.get_running_loop().create_task(self._serve(webhook_id, self._woken[webhook_id]))
        self._tasks[webhook_id] = task
        task.add_done_callback(self._ended)

    async def _serve(self, webhook_id: str, woken: asyncio.Event) -> None:
        """Deliver what is due to an endpoint, until it is deleted."""
        known = self._read_models.webhooks[webhook_id]
        seen = max(known.served, min(known.since.values(), default=0))  # none of its types is due before that
        while True:
            woken.clear()
            seen, record = await self._next_end(seen)
            if record is None:
                await woken.wait()
                continue
            event = self._event_of(record)
            await self._deliver(webhook_id, record, event, woken)

    async def _next_end(self, after: int) -> tuple[int, Record | None]:
        """The first record that ends a job after a position, and up to where there is no other.

        What cannot be read is passed over, and said: once, for it is not looked at again.
        """
        while True:
            try:
                record = await self._log.read(partial(_first_end, after=after))
            except (SegmentAway, SegmentDamaged) as error:  # or one file would end the server
                _log.error("webhook_ends_not_here", detail=error.detail)
                after = max(after + 1, error.last)
            else:
                return (after if record is None else record.position), record

    async def _deliver(self, webhook_id: str, record: Record, event: Event, woken: asyncio.Event) -> None:
        """Try until it arrives, is too old to be news, or is not heard of any more; and have an end recorded."""
        attempts = 0
        while self._read_models.webhooks[webhook_id].is_due(event.event_type, record.position):
            woken.clear()
            answer = await self.send_once(webhook_id, event.event_id, event.body)
            attempts += 1
            too_old = time.time() - record.at / 1_000_000 > self._retries.oldest
            told = {"job_id": event.job_id, "position": record.position, "attempts": attempts}
            told |= {"webhook_id": webhook_id, "event_id": event.event_id}
            if answer.reason is None:
                _log.info("webhook_delivered", status_code=answer.status_code, **told)
                break
            if too_old and attempts >= self._retries.fewest:
                _log.error("webhook_given_up", reason=answer.reason, **told)
                break
            delay = self._retries.delay(attempts)
            _log.warning("webhook_not_delivered", reason=answer.reason, next_try_seconds=delay, **told)
            await _pause(delay, woken)
        else:
            return
        await self._report(webhook_id, record.position, event, attempts, answer)

    async def _report(self, webhook_id: str, end: int, event: Event, attempts: int, answer: Answer) -> None:
        report = webhook.ReportDelivery(
            webhook_id=webhook_id,
            end=end,
            event_id=event.event_id,
            event_type=event.event_type,
            job_id=event.job_id,
            attempts=attempts,
            status_code=answer.status_code,
            reason=answer.reason,
        )
        while True:
            try:
                await self._handler.submit(report, actor="supervisor", cause=end)
            except StorageFull:
                _log.warning("log_full", waiting=type(report).__name__)
                await asyncio.sleep(_FULL_SECONDS)
            else:
                return


def _first_end(reader: LogReader, after: int) -> Record | None:
    return next(reader.records(after=after, types=_ENDS, limit=1), None)


async def _pause(seconds: float, woken: asyncio.Event) -> None:
    """Wait, but no longer than until something new is known: another job has ended, or the endpoint was changed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await woken.wait()
