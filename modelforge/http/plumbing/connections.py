"""Connections, and an end to those whose client keeps the server waiting.

A client may be slow: a head has a time, a body has to come at a pace (as Apache's mod_reqtimeout has it: a time, and a
second more for every so many bytes), an answer has to be taken. Where a client has too many connections, the one goes
that waited longest for it, rather than the one that comes: who floods the server loses what is idle, and keeps nobody
out.
"""

import asyncio
from collections import Counter, OrderedDict
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from modelforge.http.plumbing.problems import Problem, body_of, of_status, response
from modelforge.http.plumbing.security_headers import SECURITY_HEADERS, add_security_headers
from modelforge.settings import Settings

_log = structlog.get_logger()
_BODY_SECONDS = 30.0
_BODY_BYTES_A_SECOND = 500
_FORM = "multipart/form-data"
_SWEEP_SECONDS = 1.0
_LAST_WORD_SECONDS = 2.0
_TOO_SLOW = of_status(HTTPStatus.REQUEST_TIMEOUT, "The request did not come in time; send it again, in one go.")
_TOO_MANY = of_status(
    HTTPStatus.TOO_MANY_REQUESTS, "This client has too many connections open; close some, and try again."
)


class Connection(RequestHandler):
    """One connection: what comes, what is waited for, and since when."""

    __slots__ = (
        "_answering",
        "_connections",
        "_last_received",
        "_received",
        "_since",
        "_unread_since",
        "client",
        "is_followed",
        "lost",
    )

    def __init__(
        self, connections: "Connections", server: web.Server, loop: asyncio.AbstractEventLoop, **options: object
    ) -> None:
        super().__init__(server, loop=loop, **options)  # type: ignore[arg-type]  # as aiohttp's own server passes them
        self._connections = connections
        self._since = self._last_received = loop.time()
        self._received = 0
        self._answering = False
        self._unread_since: float | None = None
        self.client = ""
        self.is_followed = False  # by a subscriber, whose patience is another's
        self.lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many."""
        peer = transport.get_extra_info("peername")
        self.client = str(peer[0]) if isinstance(peer, tuple) else "local"
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._connections.remove(self)
        super().connection_lost(exc)
        if not self.lost.done():
            self.lost.set_result(None)

    async def drained(self) -> None:
        """Wait until the client has taken most of what was written.

        Raises:
            ConnectionError: it is gone.
        """
        await self._drain_helper()

    def data_received(self, data: bytes) -> None:
        """Note that something came."""
        if data:
            if not self._received and not self._answering:
                self._since = self._loop.time()  # a head begins
            self._received += len(data)
            self._last_received = self._loop.time()
        super().data_received(data)

    def pause_writing(self) -> None:
        """Note that the client does not take what it is sent."""
        super().pause_writing()
        self._unread_since = self._loop.time()

    def resume_writing(self) -> None:
        """Note that it does."""
        super().resume_writing()
        self._unread_since = None

    async def _handle_request(  # the one place that aiohttp has around a request from its head to its answer
        self, request: web.BaseRequest, *rest: object
    ) -> tuple[web.StreamResponse, bool]:
        self._since, self._answering = self._loop.time(), True
        self._connections.is_busy(self)
        try:
            return await super()._handle_request(request, *rest)  # type: ignore[arg-type]
        finally:
            self._since, self._received, self._answering = self._loop.time(), 0, False
            self._connections.is_waiting(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer in the one shape what is no valid HTTP, and so never reaches a handler."""
        if isinstance(exc, HttpProcessingError | ConnectionError):  # the client's, not ours: nothing for the log
            status = HTTPStatus.BAD_REQUEST
            if request.writer.output_size > 0:
                raise ConnectionError("An answer was begun already.")
        else:
            status = super().handle_error(request, status, exc, message).status
        remedy = " Its address or a header is too long; shorten it." if isinstance(exc, LineTooLong) else ""
        problem = response(of_status(status, f"The request is not valid HTTP.{remedy}"))
        add_security_headers(problem.headers)
        problem.force_close()
        return problem

    @property
    def received(self) -> int:
        """The bytes of the request that is coming, or is answered."""
        return self._received

    @property
    def unread_since(self) -> float | None:
        """Since when the client has taken nothing of what waits for it; None where nothing does."""
        return self._unread_since

    @property
    def waits_for_body(self) -> bool:
        """Whether a part of the request's body is still to come, and the server is ready for it."""
        request = self._current_request
        return (
            request is not None
            and not self._upgraded
            and not self._reading_paused
            and request.body_exists
            and (not request.content.is_eof())
        )

    def overdue(self, now: float, settings: Settings) -> Problem | str | None:
        """What the client has done too slowly: a problem that it can be told, or only a word for the log."""
        if self._upgraded or self.is_followed:
            return None  # a WebSocket has its pings, and subscribers are looked after where they are served
        if self._unread_since is not None and now - self._unread_since > settings.still_seconds:
            return "took no answer"
        if not self._answering:
            if not self._received:
                is_new = not self._request_count
                limit = min(settings.head_seconds, settings.keepalive_seconds) if is_new else settings.keepalive_seconds
                return "was idle" if now - self._since > limit else None
            return _TOO_SLOW if now - self._since > settings.head_seconds else None
        if self.waits_for_body:
            took = now - self._since
            is_still = now - self._last_received > settings.still_seconds
            is_file = self._current_request is not None and self._current_request.content_type == _FORM
            more = self._received / _BODY_BYTES_A_SECOND if is_file else min(self._received / _BODY_BYTES_A_SECOND, 30)
            if is_still or took > _BODY_SECONDS + more:
                return _TOO_SLOW
        return None

    def end(self, problem: Problem | None) -> None:
        """Close now, with a word where one can still be said."""
        self._connections.remove(self)
        transport = self.transport
        if transport is None:
            return
        unsaid = self._current_request is None or not self._current_request.writer.output_size
        if problem is not None and unsaid and not transport.get_write_buffer_size():
            transport.write(_raw_answer(problem))
            self.force_close()
            self._loop.call_later(_LAST_WORD_SECONDS, transport.abort)  # to whoever does not take that either
        else:
            transport.abort()


class Connections:
    """All connections of a server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._all: set[Connection] = set()
        self._counts: Counter[str] = Counter()
        self._waiting: OrderedDict[Connection, None] = OrderedDict()  # for a request, the longest first

    def add(self, connection: Connection) -> None:
        """Take one in; where there are too many, another goes, or else this one."""
        self._all.add(connection)
        self._counts[connection.client] += 1
        self._waiting[connection] = None
        is_crowd = not self._settings.behind_proxy and (
            self._counts[connection.client] > self._settings.max_connections_per_client
        )
        if is_crowd or len(self._all) > self._settings.max_connections:
            self._leaving(connection, of_client=is_crowd).end(_TOO_MANY)

    def remove(self, connection: Connection) -> None:
        """Forget one."""
        if connection in self._all:
            self._all.remove(connection)
            self._waiting.pop(connection, None)
            self._counts[connection.client] -= 1
            if not self._counts[connection.client]:
                del self._counts[connection.client]

    def is_busy(self, connection: Connection) -> None:
        """Note that one has a request to answer."""
        self._waiting.pop(connection, None)

    def is_waiting(self, connection: Connection) -> None:
        """Note that one waits for its next request."""
        if connection in self._all:
            self._waiting[connection] = None

    def _leaving(self, newcomer: Connection, *, of_client: bool) -> Connection:
        """Who goes: who waits longest for a request, or takes no answer; else that whose body is least, else it."""
        for one in self._waiting:
            if one is not newcomer and (not of_client or one.client == newcomer.client):
                return one
        others = [one for one in self._all if not of_client or one.client == newcomer.client]
        unread = [one for one in others if one.unread_since is not None]
        if unread:
            return min(unread, key=lambda one: one.unread_since or 0)
        slow = [one for one in others if one.waits_for_body]
        return min(slow, key=lambda one: one.received, default=newcomer)

    async def watch(self) -> None:
        """End those that are overdue, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now, ended = loop.time(), Counter[str]()
            for connection in [*self._all]:
                found = connection.overdue(now, self._settings)
                if found is not None:
                    ended["was too slow" if isinstance(found, Problem) else found] += 1
                    connection.end(found if isinstance(found, Problem) else None)
            for why, count in ended.items():
                _log.info("connections_ended", why=why, count=count)


def _raw_answer(problem: Problem) -> bytes:
    """A problem as bytes, for where no handler is to write it."""
    body = body_of(problem)
    retry = {"Retry-After": "1"} if problem is _TOO_MANY else {}
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **retry,
        **SECURITY_HEADERS,
    }
    lines = [f"HTTP/1.1 {problem.status_code} {HTTPStatus(problem.status_code).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode() + body
