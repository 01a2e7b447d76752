"""The addresses that hear of ends of jobs, and how far each was told."""

from typing import assert_never

import msgspec
from msgspec import Struct

from modelforge.domain import webhook
from modelforge.domain.webhook import EventType
from modelforge.projections.jobs import iso


class Delivery(Struct, frozen=True, kw_only=True, gc=False):
    """An end of a job that was delivered, or given up for a `reason`. `status_code`: null where no answer came."""

    event_id: str
    event_type: EventType
    job_id: str
    at: str
    attempts: int
    status_code: int | None
    reason: str | None


class KnownWebhook(Struct, frozen=True, kw_only=True):
    """An endpoint. Times are unix microseconds.

    `since`: the position from which on it hears of each type. `served`: that of the last end that is done with.
    """

    webhook_id: str
    name: str
    url: str
    event_types: tuple[EventType, ...]
    secret_hint: str
    created_at: int
    updated_at: int
    since: dict[EventType, int]
    served: int
    last_delivery: Delivery | None = None
    last_undelivered: Delivery | None = None
    undelivered: int = 0

    def is_due(self, event_type: EventType, end: int) -> bool:
        """Whether it has to hear of an end of a job that is recorded at a position."""
        begin = self.since.get(event_type)
        return begin is not None and end > begin and end > self.served


def evolve(known: KnownWebhook | None, event: webhook.Event, position: int, at: int) -> KnownWebhook | None:
    """The endpoint after one of its events; None once it is deleted."""
    if isinstance(event, webhook.WebhookCreated):
        return KnownWebhook(
            webhook_id=event.webhook_id,
            name=event.name,
            url=event.url,
            event_types=event.event_types,
            secret_hint=event.secret_hint,
            created_at=at,
            updated_at=at,
            since=dict.fromkeys(event.event_types, position),
            served=position,
        )
    if known is None:
        raise ValueError(f"{type(event).__name__} of an endpoint that was never created: {event.webhook_id}")
    match event:
        case webhook.WebhookUpdated(name=name, url=url, event_types=event_types):
            since = {kind: known.since.get(kind, position) for kind in event_types}
            return msgspec.structs.replace(
                known, name=name, url=url, event_types=event_types, since=since, updated_at=at
            )
        case webhook.WebhookSecretRotated(secret_hint=secret_hint):
            return msgspec.structs.replace(known, secret_hint=secret_hint, updated_at=at)
        case webhook.WebhookDeleted():
            return None
        case webhook.WebhookServed():
            return _served(known, event, at)
        case _:
            assert_never(event)


def _served(known: KnownWebhook, event: webhook.WebhookServed, at: int) -> KnownWebhook:
    delivery = Delivery(
        event_id=event.event_id,
        event_type=event.event_type,
        job_id=event.job_id,
        at=iso(at),
        attempts=event.attempts,
        status_code=event.status_code,
        reason=event.reason,
    )
    if event.reason is None:
        return msgspec.structs.replace(known, served=event.end, last_delivery=delivery)
    return msgspec.structs.replace(
        known, served=event.end, last_undelivered=delivery, undelivered=known.undelivered + 1
    )
