"""Webhook endpoints of OpenAI's clients: the addresses that hear of ends of jobs."""

import asyncio
import contextlib
import secrets
import time
from typing import get_args

from aiohttp import web

from modelforge.domain import webhook
from modelforge.domain.webhook import EventType, no_such_webhook
from modelforge.errors import Conflict
from modelforge.fields import check_label, project_struct
from modelforge.http.openai.pages import AFTER_ID, page_of
from modelforge.http.openai.webhook_events import sample
from modelforge.http.openai.webhook_objects import (
    ChangedWebhookEndpoint,
    NewWebhookEndpoint,
    SecretRotation,
    WebhookEndpoint,
    WebhookEndpointDeleted,
    WebhookEndpointList,
    WebhookEndpointWithSecret,
    WebhookEventTypeList,
    WebhookTest,
    WebhookTestResult,
    object_of,
)
from modelforge.http.plumbing.body import idempotency_key, json_response, read_body, refuse_key
from modelforge.http.plumbing.identities import actor_of
from modelforge.http.plumbing.keys import DELIVERER, HANDLER, PROJECTOR
from modelforge.http.plumbing.route import Route, limit_to
from modelforge.projections.webhooks import KnownWebhook
from modelforge.webhooks.addresses import check_url
from modelforge.webhooks.secrets import Secret, hint_of, new_secret

_PAGE = 20
_LARGEST_PAGE = 100
_KEPT_SECONDS = 86_400.0


def _find(request: web.Request) -> KnownWebhook:
    """The endpoint whose id stands in the path.

    Raises:
        NotFound: there is none.
    """
    webhook_id = request.match_info["webhook_endpoint_id"]
    known = request.app[PROJECTOR].read_models.webhooks.get(webhook_id)
    if known is None:
        raise no_such_webhook(webhook_id)
    return known


async def _with_secret(request: web.Request, webhook_id: str, secret: str) -> web.Response:
    known = request.app[PROJECTOR].read_models.webhooks.get(webhook_id)
    if known is None:  # it was deleted at this moment
        raise no_such_webhook(webhook_id)
    shown = await object_of(request, known)
    return json_response(project_struct(shown, WebhookEndpointWithSecret, signing_secret=secret))


async def create_webhook_endpoint(request: web.Request) -> web.Response:
    """Tell an address of ends of jobs from now on; the secret that signs is shown this once."""
    refuse_key(request, "A secret")
    body = await read_body(request, NewWebhookEndpoint)
    check_label(body.name, "name")
    check_url(body.url)
    webhook_id, secret = f"we_{secrets.token_hex(12)}", new_secret()
    files = request.app[DELIVERER].secrets
    command = webhook.CreateWebhook(
        webhook_id=webhook_id,
        name=body.name,
        url=body.url,
        event_types=tuple(dict.fromkeys(body.event_types)),
        secret_hint=hint_of(secret),
    )
    await asyncio.to_thread(files.write, webhook_id, (Secret(value=secret),))
    try:
        await request.app[HANDLER].submit(command, actor=actor_of(request))
    except Exception:
        await asyncio.to_thread(files.remove, webhook_id)
        raise
    return await _with_secret(request, webhook_id, secret)


async def list_webhook_endpoints(request: web.Request) -> web.Response:
    """List the endpoints, newest first, each with how far it was told."""
    newest = sorted(request.app[PROJECTOR].read_models.webhooks.values(), key=lambda one: -one.created_at)
    page, has_more = page_of(request, newest, lambda one: one.webhook_id, _PAGE)
    data = [await object_of(request, known) for known in page]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return json_response(WebhookEndpointList(data=data, first_id=first, last_id=last, has_more=has_more))


async def retrieve_webhook_endpoint(request: web.Request) -> web.Response:
    """One endpoint, and how far it was told."""
    return json_response(await object_of(request, _find(request)))


async def update_webhook_endpoint(request: web.Request) -> web.Response:
    """Change an endpoint; what is not named stays, and what waits for it is sent to the new address."""
    webhook_id = _find(request).webhook_id
    body = await read_body(request, ChangedWebhookEndpoint)
    if body.name is not None:
        check_label(body.name, "name")
    if body.url is not None:
        check_url(body.url)
    command = webhook.UpdateWebhook(
        webhook_id=webhook_id,
        name=body.name,
        url=body.url,
        event_types=None if body.event_types is None else tuple(dict.fromkeys(body.event_types)),
        key=await idempotency_key(request),
    )
    await request.app[HANDLER].submit(command, actor=actor_of(request))
    return json_response(await object_of(request, _find(request)))


async def delete_webhook_endpoint(request: web.Request) -> web.Response:
    """Delete an endpoint and its secret; what waited for it is not sent."""
    webhook_id = request.match_info["webhook_endpoint_id"]
    command = webhook.DeleteWebhook(webhook_id=webhook_id, key=await idempotency_key(request))
    async with request.app[DELIVERER].rotating:
        await request.app[HANDLER].submit(command, actor=actor_of(request))
        await asyncio.to_thread(request.app[DELIVERER].secrets.remove, webhook_id)
    return json_response(WebhookEndpointDeleted(id=webhook_id))


async def rotate_webhook_secret(request: web.Request) -> web.Response:
    """Sign with another secret from now on; it is shown this once."""
    refuse_key(request, "A secret")
    body = await read_body(request, SecretRotation) if await request.read() else SecretRotation()
    async with request.app[DELIVERER].rotating:
        webhook_id, made = _find(request).webhook_id, Secret(value=new_secret())
        await _rotate(request, webhook_id, made, keep_old=body.keep_old_secret_active_for_24_hours or False)
    return await _with_secret(request, webhook_id, made.value)


async def _rotate(request: web.Request, webhook_id: str, made: Secret, *, keep_old: bool) -> None:
    files = request.app[DELIVERER].secrets
    before: tuple[Secret, ...] = ()
    with contextlib.suppress(OSError):  # what cannot be read signs nothing: another takes its place
        before = await asyncio.to_thread(files.read, webhook_id)
    # Both until the log has it: after a crash in between a receiver that knows either of them is served.
    await asyncio.to_thread(files.write, webhook_id, (made, *before[:1]))
    command = webhook.RotateWebhookSecret(webhook_id=webhook_id, secret_hint=hint_of(made.value))
    try:
        await request.app[HANDLER].submit(command, actor=actor_of(request))
    except Exception:
        await asyncio.to_thread(files.write, webhook_id, before)
        raise
    old = before[:1] if keep_old else ()
    kept = (made, *(Secret(value=one.value, until=time.time() + _KEPT_SECONDS) for one in old))
    await asyncio.to_thread(files.write, webhook_id, kept)


async def test_webhook_endpoint(request: web.Request) -> web.Response:
    """Send an endpoint a signed event of no job, once; answers what it answered."""
    refuse_key(request, "The answer of an endpoint")
    known = _find(request)
    body = await read_body(request, WebhookTest)
    event_id = f"evt_{secrets.token_hex(16)}"
    content = sample(body.event_type, event_id, time.time())
    answer = await request.app[DELIVERER].send_once(known.webhook_id, event_id, content)
    if answer.status_code is None:
        raise Conflict("The endpoint gave no answer", f"{known.name}: {answer.reason}.")
    result = WebhookTestResult(
        webhook_endpoint_id=known.webhook_id, event_type=body.event_type, status_code=answer.status_code
    )
    return json_response(result)


async def list_webhook_event_types(_request: web.Request) -> web.Response:
    """What an endpoint may hear of."""
    return json_response(WebhookEventTypeList(data=get_args(EventType)))


_ONE = "/v1/webhook_endpoints/{webhook_endpoint_id}"
ROUTES = (
    Route(
        method="POST",
        path="/v1/webhook_endpoints",
        handler=create_webhook_endpoint,
        body=NewWebhookEndpoint,
        answer=WebhookEndpointWithSecret,
        errors=(400, 409, 507),
        scope="admin",
    ),
    Route(
        method="GET",
        path="/v1/webhook_endpoints",
        handler=list_webhook_endpoints,
        answer=WebhookEndpointList,
        query=(AFTER_ID, limit_to(_LARGEST_PAGE, _PAGE)),
        errors=(400,),
        scope="admin",
    ),
    Route(
        method="GET", path=_ONE, handler=retrieve_webhook_endpoint, answer=WebhookEndpoint, errors=(404,), scope="admin"
    ),
    Route(
        method="POST",
        path=_ONE,
        handler=update_webhook_endpoint,
        body=ChangedWebhookEndpoint,
        answer=WebhookEndpoint,
        errors=(400, 404, 409, 507),
        scope="admin",
    ),
    Route(
        method="DELETE",
        path=_ONE,
        handler=delete_webhook_endpoint,
        answer=WebhookEndpointDeleted,
        errors=(404, 409, 507),
        scope="admin",
    ),
    Route(
        method="POST",
        path=f"{_ONE}/rotate_secret",
        handler=rotate_webhook_secret,
        body=SecretRotation,
        may_be_empty=True,
        answer=WebhookEndpointWithSecret,
        errors=(400, 404, 507),
        scope="admin",
    ),
    Route(
        method="POST",
        path=f"{_ONE}/test",
        handler=test_webhook_endpoint,
        body=WebhookTest,
        answer=WebhookTestResult,
        errors=(400, 404, 409),
        scope="admin",
    ),
    Route(
        method="GET",
        path="/v1/webhook_event_types",
        handler=list_webhook_event_types,
        answer=WebhookEventTypeList,
        scope="admin",
    ),
)
