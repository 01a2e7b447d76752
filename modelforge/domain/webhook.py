"""Addresses that hear of a job's end. Its commands, events, state, evolve and decide, in this order.

The secret by which a delivery is signed is never here: only the last characters of it, by which it is known again.
"""

import re
from typing import Literal, assert_never

import msgspec
from msgspec import Struct

from modelforge.domain.idempotency import IdempotencyKey
from modelforge.errors import Conflict, NotFound

EventType = Literal[
    "fine_tuning.job.succeeded",
    "fine_tuning.job.failed",
    "fine_tuning.job.cancelled",
    "modelforge.job.succeeded",
    "modelforge.job.failed",
    "modelforge.job.cancelled",
]
"""What an endpoint may hear of: ends of trainings, by OpenAI's names, and of merges, exports and pushes, by ours."""

MOST = 32
"""Endpoints at once: each has a task of its own."""


class CreateWebhook(Struct, frozen=True, kw_only=True, tag_field="type", tag="CreateWebhook", gc=False):
    """Tell an address of ends of jobs, from now on. `secret_hint`: the end of the secret that signs what it is sent."""

    webhook_id: str
    name: str
    url: str
    event_types: tuple[EventType, ...]
    secret_hint: str
    key: IdempotencyKey | None = None


class UpdateWebhook(Struct, frozen=True, kw_only=True, tag_field="type", tag="UpdateWebhook", gc=False):
    """Change what is not None of an endpoint."""

    webhook_id: str
    name: str | None = None
    url: str | None = None
    event_types: tuple[EventType, ...] | None = None
    key: IdempotencyKey | None = None


class RotateWebhookSecret(Struct, frozen=True, kw_only=True, tag_field="type", tag="RotateWebhookSecret", gc=False):
    """Sign with another secret from now on."""

    webhook_id: str
    secret_hint: str
    key: IdempotencyKey | None = None


class DeleteWebhook(Struct, frozen=True, kw_only=True, tag_field="type", tag="DeleteWebhook", gc=False):
    """Tell an address nothing more."""

    webhook_id: str
    key: IdempotencyKey | None = None


Command = CreateWebhook | UpdateWebhook | RotateWebhookSecret | DeleteWebhook


class ReportDelivery(Struct, frozen=True, kw_only=True, gc=False):
    """An end of a job, recorded at position `end`, was delivered, or given up after so many tries for a `reason`."""

    webhook_id: str
    end: int
    event_id: str
    event_type: EventType
    job_id: str
    attempts: int
    status_code: int | None
    reason: str | None = None


Report = ReportDelivery


class WebhookCreated(Struct, frozen=True, kw_only=True, tag_field="type", tag="WebhookCreated", gc=False):
    """The endpoint hears of ends of jobs from here on."""

    webhook_id: str
    name: str
    url: str
    event_types: tuple[EventType, ...]
    secret_hint: str


class WebhookUpdated(Struct, frozen=True, kw_only=True, tag_field="type", tag="WebhookUpdated", gc=False):
    """The endpoint is this from now on."""

    webhook_id: str
    name: str
    url: str
    event_types: tuple[EventType, ...]


class WebhookSecretRotated(Struct, frozen=True, kw_only=True, tag_field="type", tag="WebhookSecretRotated", gc=False):
    """The endpoint has another secret."""

    webhook_id: str
    secret_hint: str


class WebhookDeleted(Struct, frozen=True, kw_only=True, tag_field="type", tag="WebhookDeleted", gc=False):
    """The endpoint hears nothing more."""

    webhook_id: str


class WebhookServed(Struct, frozen=True, kw_only=True, tag_field="type", tag="WebhookServed", gc=False):
    """All ends of jobs up to position `end` are done with at this endpoint.

    The one at `end` arrived, or was given up for a `reason`; `status_code`: the last answer, None where none came.
    """

    webhook_id: str
    end: int
    event_id: str
    event_type: EventType
    job_id: str
    attempts: int
    status_code: int | None
    reason: str | None = None


Event = WebhookCreated | WebhookUpdated | WebhookSecretRotated | WebhookDeleted | WebhookServed


class Webhook(Struct, frozen=True, kw_only=True, gc=False):
    """What deciding needs of an endpoint. `served`: the position of the last end of a job that it is done with."""

    webhook_id: str
    name: str
    url: str
    event_types: tuple[EventType, ...]
    served: int = 0
    deleted: bool = False


def evolve(webhook: Webhook | None, event: Event) -> Webhook:
    """The endpoint after `event`."""
    if isinstance(event, WebhookCreated):
        return Webhook(webhook_id=event.webhook_id, name=event.name, url=event.url, event_types=event.event_types)
    if webhook is None:
        raise ValueError(f"{type(event).__name__} of an endpoint that was never created: {event.webhook_id}")
    match event:
        case WebhookUpdated(name=name, url=url, event_types=event_types):
            return msgspec.structs.replace(webhook, name=name, url=url, event_types=event_types)
        case WebhookSecretRotated():
            return webhook
        case WebhookDeleted():
            return msgspec.structs.replace(webhook, deleted=True)
        case WebhookServed(end=end):
            return msgspec.structs.replace(webhook, served=end)
        case _:
            assert_never(event)


def decide(webhook: Webhook | None, command: Command, others: int) -> list[Event]:
    """What a command leads to. `others`: how many endpoints there are beside this one.

    Raises:
        NotFound: there is no such endpoint.
        Conflict: there are as many as there may be.
    """
    if isinstance(command, CreateWebhook):
        if others >= MOST:
            raise Conflict("There are too many webhook endpoints", f"At most {MOST} are told of jobs; delete one.")
        created = WebhookCreated(
            webhook_id=command.webhook_id,
            name=command.name,
            url=command.url,
            event_types=command.event_types,
            secret_hint=command.secret_hint,
        )
        return [created]
    if webhook is None or webhook.deleted:
        raise no_such_webhook(command.webhook_id)
    match command:
        case UpdateWebhook(webhook_id=webhook_id, name=name, url=url, event_types=event_types):
            updated = WebhookUpdated(
                webhook_id=webhook_id,
                name=name if name is not None else webhook.name,
                url=url if url is not None else webhook.url,
                event_types=event_types if event_types is not None else webhook.event_types,
            )
            return [] if evolve(webhook, updated) == webhook else [updated]
        case RotateWebhookSecret(webhook_id=webhook_id, secret_hint=secret_hint):
            return [WebhookSecretRotated(webhook_id=webhook_id, secret_hint=secret_hint)]
        case DeleteWebhook(webhook_id=webhook_id):
            return [WebhookDeleted(webhook_id=webhook_id)]
        case _:
            assert_never(command)


def decide_report(webhook: Webhook | None, report: Report) -> list[Event]:
    """A delivery that is done with; one of an endpoint that is gone, or told twice, is nothing."""
    if webhook is None or webhook.deleted or report.end <= webhook.served:
        return []
    served = WebhookServed(
        webhook_id=report.webhook_id,
        end=report.end,
        event_id=report.event_id,
        event_type=report.event_type,
        job_id=report.job_id,
        attempts=report.attempts,
        status_code=report.status_code,
        reason=report.reason,
    )
    return [served]


def shown_url(url: str) -> str:
    """As much of an address as everybody may see: its scheme and host. What follows may be a secret, as Slack's is."""
    scheme, mark, rest = url.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    return f"{scheme}{mark}{host}" + ("/…" if len(rest) > len(host) + 1 else rest[len(host) :])


def no_such_webhook(webhook_id: str) -> NotFound:
    """The refusal of an id that no endpoint has."""
    listed = "GET /v1/webhook_endpoints lists them."
    return NotFound("No such webhook endpoint", f"There is no endpoint {webhook_id[:100]!r}; {listed}")


def stream_of(webhook_id: str) -> str:
    """The stream of an endpoint."""
    return f"webhook:{webhook_id}"
