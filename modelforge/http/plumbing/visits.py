"""The requests that are being answered: how many each client has, how often it asks, and their end when it must go.

A client is a token, or where nobody is asked for one, an address.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable

from aiohttp import WSCloseCode, web
from msgspec import Struct

from modelforge.errors import TooManyRequests
from modelforge.http.plumbing.identities import IDENTITY, OWNER_IDENTITY, Identity
from modelforge.http.plumbing.route import Handler, Route
from modelforge.settings import Settings

SOCKET = web.RequestKey("socket", web.WebSocketResponse)
"""Where a handler of a WebSocket puts it, so that it can be closed in peace."""
CLIENT = web.RequestKey("client", str)
"""Who is counted as one: see `client_of`."""
_MINUTE = 60.0
_BURST = 0.1  # of a minute's requests, at once
_MOST_CLIENTS = 10_000
_GOODBYE_SECONDS = 2.0
_FULL_AGAIN_SECONDS = 5


class _Bucket(Struct):
    """What is left of a client's requests, and when that was so."""

    left: float
    at: float


class Visits:
    """Counts and ends the requests of each client."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._sockets: Counter[str] = Counter()
        self._answered: Counter[Handler] = Counter()
        self._shares: Counter[tuple[str, Handler]] = Counter()
        self._present: dict[int, web.Request] = {}
        self._goodbyes: set[asyncio.Task[None]] = set()

    def begin(self, request: web.Request, route: Route | None) -> None:
        """Count a request, until its end.

        Raises:
            TooManyRequests: the client has or asks too many.
        """
        identity, client = request[IDENTITY], request[CLIENT]
        if identity.name is not None and identity is not OWNER_IDENTITY:  # who could always revoke the others
            self._take(client)
        is_endless = route is not None and route.is_endless
        if is_endless and self._sockets[client] >= self._settings.max_sockets_per_client:
            raise TooManyRequests(
                "Too many WebSockets and event streams are open",
                f"One client may have {self._settings.max_sockets_per_client}; close one, or set "
                "max_sockets_per_client.",
                retry_after=_FULL_AGAIN_SECONDS,
            )
        self._check_places(route, client)
        self._sockets[client] += is_endless
        if route is not None:
            self._answered[route.handler] += 1
            self._shares[client, route.handler] += 1
        self._present[id(request)] = request

    def leave(self, request: web.Request, route: Route | None) -> None:
        """Count a request no longer, that was begun."""
        client = request[CLIENT]
        del self._present[id(request)]
        if route is not None:
            self._answered[route.handler] -= 1
            self._shares[client, route.handler] -= 1
            if not self._shares[client, route.handler]:
                del self._shares[client, route.handler]
        self._sockets[client] -= route is not None and route.is_endless
        if not self._sockets[client]:
            del self._sockets[client]

    def _check_places(self, route: Route | None, client: str) -> None:
        """Refuse what has as many of its kind before it as are answered at once; half the uploads are for others."""
        if route is None:
            return
        most = self._settings.max_uploads if route.takes_form else route.at_once
        if most is None:
            return
        share = max(1, most // 2) if route.takes_form else most
        if self._answered[route.handler] >= most or self._shares[client, route.handler] >= share:
            what = "uploads are under way" if route.takes_form else f"requests for {route.path} are answered"
            remedy = "set max_uploads, or wait" if route.takes_form else "wait"
            raise TooManyRequests(
                f"Too many {what}",
                f"The server takes {most} at once, and half of that of one client; {remedy} for the end of one.",
                retry_after=_FULL_AGAIN_SECONDS,
            )

    def _take(self, client: str) -> None:
        """Take one request out of a client's bucket, which fills again over a minute."""
        now, rate = self._clock(), self._settings.max_requests_per_minute / _MINUTE
        most = max(1.0, self._settings.max_requests_per_minute * _BURST)
        bucket = self._buckets.get(client)
        if bucket is None:
            if len(self._buckets) >= _MOST_CLIENTS:
                self._buckets.clear()
            bucket = self._buckets[client] = _Bucket(most, now)
        bucket.left = min(most, bucket.left + (now - bucket.at) * rate)
        bucket.at = now
        if bucket.left < 1:
            raise TooManyRequests(
                "Too many requests",
                f"One token may ask {self._settings.max_requests_per_minute} times a minute; wait a little, or set "
                "max_requests_per_minute.",
                retry_after=max(1, round((1 - bucket.left) / rate)),
            )
        bucket.left -= 1

    def end(self, why: str, holds: Callable[[Identity], bool]) -> None:
        """End every request of an identity of which something holds: a WebSocket says why, all else is cut off."""
        for request in [*self._present.values()]:
            if holds(request[IDENTITY]):
                goodbye = asyncio.get_running_loop().create_task(_say_goodbye(request, why))
                self._goodbyes.add(goodbye)
                goodbye.add_done_callback(self._goodbyes.discard)

    def end_expired(self, now: float) -> None:
        """End the requests of tokens and sessions that have expired by a time, in unix seconds."""
        self.end("It has expired.", lambda identity: identity.expires_at is not None and identity.expires_at <= now)


async def _say_goodbye(request: web.Request, why: str) -> None:
    socket = request.get(SOCKET)
    if socket is not None:
        with contextlib.suppress(TimeoutError, ConnectionError):
            await asyncio.wait_for(
                socket.close(code=WSCloseCode.POLICY_VIOLATION, message=why.encode()), _GOODBYE_SECONDS
            )
    elif not _revokes(request):
        request.task.cancel()  # or the handler would go on, with what nobody may ask any more
    if request.transport is not None and not _revokes(request):
        request.transport.abort()


def _revokes(request: web.Request) -> bool:
    """Whether it is the request that ends itself, which is to be answered."""
    return request.method == "DELETE" and request.path.startswith(("/api/tokens/", "/api/session"))


def client_of(request: web.Request, identity: Identity, *, behind_proxy: bool) -> str:
    """Who is counted as one client: a token, a browser, else the address, which a proxy on the way has to say."""
    if identity.session is not None:
        return f"session {identity.session[:16]}"
    if identity.name is not None:
        return f"token {identity.name}"
    if behind_proxy:
        forwarded = request.headers.getall("X-Forwarded-For", ())
        last = forwarded[-1].rpartition(",")[2].strip() if forwarded else ""
        if last:
            return last[:100]
    return request.remote or "local"
