"""Answers that wait for nothing, of paths that are asked for again and again: made once, and written in one piece.

Only a plain request is answered here: a GET of the very path that says nothing which could change the answer, of
somebody who need not say who they are. Its headers have passed the checks of all requests, once for all that have the
same. Every other request goes the way of all.
"""

import time
from collections.abc import Iterable

import msgspec
from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from msgspec import Struct

from modelforge.errors import ForgeError
from modelforge.http.plumbing.guard import Guard
from modelforge.http.plumbing.identities import Identities
from modelforge.http.plumbing.route import Route
from modelforge.http.plumbing.security_headers import SECURITY_HEADERS
from modelforge.projections.projector import Projector

_PLAIN = frozenset(
    {
        *(b"host", b"connection", b"user-agent", b"referer", b"dnt", b"priority", b"cache-control", b"pragma"),
        *(b"accept", b"accept-encoding", b"accept-language"),
        *(b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", b"sec-fetch-user"),
    }
)
"""Headers that change nothing here but whether a request is allowed; of any other the way of all knows."""
_MOST_KNOWN = 500
_LONGEST_KNOWN = 2048


class _Made(Struct):
    """The last answer of a path: of which second and position it is."""

    second: int = 0
    position: int = -1
    data: bytes = b""


class _Whole(web.StreamResponse):
    """An answer that is there already, its head with it."""

    def __init__(self, data: bytes) -> None:  # aiohttp's makes headers that nobody would read
        self._data = data

    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write all of it."""
        await request.writer.write(self._data)
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


class InstantAnswers:
    """Knows the paths that are answered so. `varies`: pages of other origins may read answers."""

    def __init__(self, routes: Iterable[Route], guard: Guard, identities: Identities, *, varies: bool) -> None:
        self._makers = {route.path: route.instant for route in routes if route.instant is not None}
        self._guard = guard
        self._identities = identities
        self._made = {path: _Made() for path in self._makers}
        self._passed: set[tuple[tuple[bytes, bytes], ...]] = set()
        headers = {"Content-Type": "application/json", **SECURITY_HEADERS, **({"Vary": "Origin"} if varies else {})}
        lines = (f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = f"HTTP/1.1 200 OK\r\n{''.join(lines)}"

    def answer(self, request: web.Request, projector: Projector) -> web.StreamResponse | None:
        """The answer, or None where the request has to go the way of all."""
        made = self._made.get(request.raw_path)
        if made is None or request.method != "GET" or request.version != HttpVersion11:
            return None
        if self._identities.are_required:
            return None
        if request.raw_headers not in self._passed and not self._passes(request):
            return None
        second, read_models = int(time.time()), projector.read_models
        if made.second != second or made.position != read_models.position:
            body = msgspec.json.encode(self._makers[request.raw_path](read_models))
            head = f"{self._head}Content-Length: {len(body)}\r\nDate: {rfc822_formatted_time()}\r\n\r\n"
            made.second, made.position, made.data = second, read_models.position, head.encode() + body
        return _Whole(made.data)

    def _passes(self, request: web.Request) -> bool:
        """Whether a request is plain and allowed, as its headers alone say."""
        names = {name.lower() for name, _ in request.raw_headers}
        if not names <= _PLAIN or request.secure or not request.keep_alive:
            return False
        try:
            self._guard.check(request, takes="nothing")
        except ForgeError:
            return False  # it is refused, with all the words that this takes
        if len(self._passed) >= _MOST_KNOWN:
            self._passed.clear()
        if sum(len(name) + len(value) for name, value in request.raw_headers) <= _LONGEST_KNOWN:
            self._passed.add(request.raw_headers)
        return True
