"""The one middleware: who may ask what, and errors as answers. What is not allowed here is refused.

It stands before every route there is, before the upgrade of a WebSocket, and before the answer that a path is none; but
not before `instant.py`, which answers plain requests only, and only whom this would let in.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial

from aiohttp import web
from aiohttp.typedefs import Middleware

from modelforge.domain.access_token import Scope, TokenCreated, TokenRevoked
from modelforge.domain.messages import Record
from modelforge.errors import Forbidden, TooLarge, TooManyRequests, TooMuchWork, Unauthorized
from modelforge.http.plumbing import openai_errors, problems
from modelforge.http.plumbing.guard import Content, Guard
from modelforge.http.plumbing.identities import IDENTITY, Identities, Identity
from modelforge.http.plumbing.instant import InstantAnswers
from modelforge.http.plumbing.origins import Origins
from modelforge.http.plumbing.request_check import packing_of
from modelforge.http.plumbing.request_ids import id_of
from modelforge.http.plumbing.route import Handler, Route
from modelforge.http.plumbing.visits import CLIENT, Visits, client_of
from modelforge.settings import Settings
from trainer_entry.wire.redaction import Redaction

_RANK: Mapping[Scope, int] = {"read": 0, "write": 1, "admin": 2}
_EXPIRY_SECONDS = 1.0
_LARGEST_UNASKED = 4096
"""The largest body of somebody who is not asked for a token."""
_NOBODY = Identity(name=None, scope="read")


class Gate:
    """Lets requests in, one by one."""

    def __init__(self, settings: Settings, routes: Sequence[Route], identities: Identities, redact: Redaction) -> None:
        self._settings = settings
        self.origins = Origins(settings.allowed_origins)
        self._guard = Guard(settings.host, settings.allowed_hosts, settings.max_body_bytes, self.origins)
        self._routes: dict[tuple[str, str], Route] = {(route.method, route.path): route for route in routes}
        self._identities = identities
        self._visits = Visits(settings)
        self._redact = redact
        self.instant = InstantAnswers(routes, self._guard, identities, varies=bool(settings.allowed_origins))

    def middleware(self) -> Middleware:
        """The middleware, for the application."""

        @web.middleware
        async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await self._answer(request, handler)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - everything becomes an answer, and what nobody foresaw is logged
                refusal = self._refusal(request, error)
                if request.writer.output_size > 0 and request.transport is not None:
                    request.transport.abort()  # or the refusal would be taken for the rest of an answer that was begun
                return refusal

        return gate

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        route = self._route_of(request)
        self._guard.check(request, takes=_content_of(request, route))
        if (preflight := self.origins.answer_preflight(request)) is not None:
            return preflight  # a browser shows no token with it
        if route is not None and route.needs == "open":
            _check_small(request)
        identity = self._admitted(request, route)
        request[IDENTITY] = identity
        request[CLIENT] = client_of(request, identity, behind_proxy=self._settings.behind_proxy)
        self._visits.begin(request, route)
        try:
            if route is not None and route.is_endless:
                return await handler(request)
            return await self._in_time(request, handler)
        finally:
            self._visits.leave(request, route)

    async def _in_time(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The handler's answer.

        Raises:
            TooMuchWork: it took too long.
        """
        deadline = asyncio.timeout(self._settings.request_seconds)
        try:
            async with deadline:
                return await handler(request)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            limit = f"{self._settings.request_seconds:g} s"
            raise TooMuchWork("The request took too long", f"It may take {limit} (request_seconds).") from error

    def _route_of(self, request: web.Request) -> Route | None:
        """The route that a request is for; HEAD is GET without the body."""
        resource = request.match_info.route.resource
        method = "GET" if request.method == "HEAD" else request.method
        return None if resource is None else self._routes.get((method, resource.canonical))

    def _admitted(self, request: web.Request, route: Route | None) -> Identity:
        """Who asks, if they may ask this.

        Raises:
            Unauthorized, Forbidden: they may not.
        """
        needs = "read" if route is None else route.needs
        if needs == "open":
            return _NOBODY
        identity = self._identities.identify(request)
        if identity is None:
            raise Unauthorized(
                "A token is needed", "Send it as 'Authorization: Bearer TOKEN'; `modelforge token create` makes one."
            )
        if _RANK[identity.scope] < _RANK[needs]:
            shown = "no token was shown" if identity.name is None else f"{identity.name} is of scope {identity.scope}"
            raise Forbidden(
                "The token is not good for this", f"{request.method} {request.path} takes scope {needs}; {shown}."
            )
        return identity

    def _refusal(self, request: web.Request, error: Exception) -> web.Response:
        """An error as an answer, without a secret."""
        gone = isinstance(error, ConnectionError) and request.transport is None  # the client; nobody reads this
        problem = problems.CUT_OFF if gone else problems.problem_of(error, id_of(request))
        response = openai_errors.response(request.path, problem, error)
        if isinstance(response.body, bytes):
            response.body = self._redact(response.body.decode()).encode()
        match error:
            case web.HTTPMethodNotAllowed():
                response.headers["Allow"] = error.headers["Allow"]
            case TooManyRequests():
                response.headers["Retry-After"] = str(error.retry_after)
            case Unauthorized():
                response.headers["WWW-Authenticate"] = 'Bearer realm="ModelForge"'
            case _:
                pass
        return response

    def take(self, records: Sequence[Record]) -> None:
        """End what a revoked token asked; and what was asked without one, once there is one."""
        for record in records:
            match record.message:
                case TokenCreated():
                    self._visits.end("A token is needed from now on.", lambda identity: identity.name is None)
                case TokenRevoked(name=name):
                    self._identities.forget(name)
                    self._visits.end("The token was revoked.", partial(_is_called, name))
                case _:
                    pass

    def end_session(self, session: str) -> None:
        """End what a browser asked that was signed out."""
        self._visits.end("Signed out.", partial(_is_of_session, session))

    async def watch(self) -> None:
        """End what tokens asked that expire, until cancelled."""
        while True:
            await asyncio.sleep(_EXPIRY_SECONDS)
            self._visits.end_expired(time.time())


def _content_of(request: web.Request, route: Route | None) -> Content:
    """What the body of a request has to be; of a path that is none it is no matter, but a page could not send it."""
    if isinstance(request.match_info.http_exception, web.HTTPMethodNotAllowed):
        return "nothing"
    return "form" if route is not None and route.takes_form else "json"


def _check_small(request: web.Request) -> None:
    """Refuse a body of somebody who is not asked for a token that is large, or does not say how large it is.

    Raises:
        TooLarge: it is.
    """
    size = request.content_length
    if packing_of(request) is not None:
        return  # it is refused for that, and no byte of it is read
    if request.body_exists and (size is None or size > _LARGEST_UNASKED):
        raise TooLarge(
            "The body is too large", f"At most {_LARGEST_UNASKED} bytes, as Content-Length says, are accepted here."
        )


def _is_called(name: str, identity: Identity) -> bool:
    return identity.name == name


def _is_of_session(session: str, identity: Identity) -> bool:
    return identity.session == session


GATE = web.AppKey("gate", Gate)
