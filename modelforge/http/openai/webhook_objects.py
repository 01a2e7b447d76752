"""Webhook endpoints as OpenAI's clients say and see them."""

import asyncio
from typing import Annotated, Literal

from aiohttp import web
from msgspec import Meta, Struct

from modelforge.domain.webhook import EventType
from modelforge.http.plumbing.keys import DELIVERER
from modelforge.projections.webhooks import Delivery, KnownWebhook

_Name = Annotated[str, Meta(min_length=1, max_length=200)]
_Url = Annotated[str, Meta(min_length=1, max_length=2000)]
_Types = Annotated[list[EventType], Meta(min_length=1, max_length=100)]


class WebhookDeliveries(Struct, frozen=True, kw_only=True):
    """How far an endpoint was told. `served_position`: of the last end of a job that it is done with, in the log.

    `undelivered`: how many ends were given up. `has_secret`: false after a backup was put back, until it is rotated.
    `secret_problem`: why the secret that is there cannot be used, where it cannot.
    """

    served_position: int
    last_delivery: Delivery | None
    undelivered: int
    last_undelivered: Delivery | None
    has_secret: bool
    secret_problem: str | None = None


class WebhookEndpoint(Struct, frozen=True, kw_only=True):
    """An endpoint. Times in Unix seconds."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: tuple[EventType, ...]
    signing_secret_hint: str
    modelforge: WebhookDeliveries


class WebhookEndpointWithSecret(WebhookEndpoint, frozen=True, kw_only=True):
    """An endpoint, and the secret that signs what it is sent: it is shown here and never again."""

    signing_secret: str


class WebhookEndpointList(Struct, frozen=True, kw_only=True):
    """A page of endpoints, newest first."""

    object: Literal["list"] = "list"
    data: list[WebhookEndpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool


class WebhookEventTypeList(Struct, frozen=True, kw_only=True):
    """What an endpoint may hear of."""

    object: Literal["list"] = "list"
    data: tuple[EventType, ...]


class NewWebhookEndpoint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint to make."""

    name: _Name
    url: _Url
    event_types: _Types


class ChangedWebhookEndpoint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be another of an endpoint."""

    name: _Name | None = None
    url: _Url | None = None
    event_types: _Types | None = None


class SecretRotation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a secret is rotated: for a day both sign, if that is asked for."""

    keep_old_secret_active_for_24_hours: bool | None = False


class WebhookTest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A delivery to try."""

    event_type: EventType


class WebhookTestResult(Struct, frozen=True, kw_only=True):
    """What the endpoint answered to a delivery that tells of no job."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: EventType
    status_code: int
    success: Literal[True] = True


class WebhookEndpointDeleted(Struct, frozen=True, kw_only=True):
    """The endpoint hears nothing more, and its secret is gone."""

    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: bool = True


async def object_of(request: web.Request, known: KnownWebhook) -> WebhookEndpoint:
    """An endpoint, and how far it was told."""
    has_secret, problem = False, None
    try:
        has_secret = bool(await asyncio.to_thread(request.app[DELIVERER].secrets.read, known.webhook_id))
    except OSError as error:
        problem = f"its secret cannot be read: {error.strerror}; rotate it"
    deliveries = WebhookDeliveries(
        served_position=known.served,
        last_delivery=known.last_delivery,
        undelivered=known.undelivered,
        last_undelivered=known.last_undelivered,
        has_secret=has_secret,
        secret_problem=problem,
    )
    return WebhookEndpoint(
        id=known.webhook_id,
        created_at=known.created_at // 1_000_000,
        updated_at=known.updated_at // 1_000_000,
        name=known.name,
        url=known.url,
        event_types=known.event_types,
        signing_secret_hint=known.secret_hint,
        modelforge=deliveries,
    )
