"""Pages of one's own that may ask this server from another origin, and what their browsers are told (CORS)."""

import re
from collections.abc import Iterable

import msgspec
from aiohttp import web
from aiohttp.hdrs import ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY

from modelforge.settings import Origin

_METHODS = "GET, HEAD, POST, PATCH, PUT, DELETE"
_TAKEN = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Range, If-None-Match, If-Range"
_SHOWN = "Location, Retry-After, Content-Disposition, Content-Range, ETag, Accept-Ranges, X-Request-Id"
_ORIGIN = re.compile(r"(?P<place>(?P<scheme>https?)://.*?)(?::(?P<port>[0-9]+))?")
_USUAL_PORTS = {"http": 80, "https": 443}
_KNOWN_SECONDS = "600"


def is_origin(text: str) -> bool:
    """Whether a text is an origin as a browser sends it: a scheme, a host, and a port where it is not the usual one."""
    try:
        msgspec.convert(text, Origin)
    except msgspec.ValidationError:
        return False
    return True


class Origins:
    """The origins whose pages may ask, beside the server's own; none by itself."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(map(_as_sent, allowed))

    def allow(self, request: web.Request) -> bool:
        """Whether the page that asks is one of them: it says one origin, and one that is allowed."""
        said = request.headers.getall(ORIGIN, ())
        return len(said) == 1 and said[0].lower() in self._allowed

    def answer_preflight(self, request: web.Request) -> web.Response | None:
        """The answer to a browser that asks whether such a page may; None where it does not ask that."""
        if request.method != "OPTIONS" or ACCESS_CONTROL_REQUEST_METHOD not in request.headers:
            return None
        if not self.allow(request):
            return None
        return web.Response(
            status=204,
            headers={
                "Access-Control-Allow-Methods": _METHODS,
                "Access-Control-Allow-Headers": _asked_headers(request),
                "Access-Control-Max-Age": _KNOWN_SECONDS,
            },
        )

    async def mark_answer(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let the page read its answer; a signal of the application, so that no answer is left out.

        Cookies are not taken along: such a page shows a token.
        """
        if not self._allowed:
            return
        response.headers.add(VARY, ORIGIN)
        if self.allow(request):
            response.headers["Access-Control-Allow-Origin"] = request.headers[ORIGIN]
            response.headers["Access-Control-Expose-Headers"] = _SHOWN
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"


def _as_sent(origin: str) -> str:
    """An origin as a browser sends it: without a port that is the scheme's own."""
    found = _ORIGIN.fullmatch(origin)
    if found is None or found["port"] is None:
        return origin
    usual = int(found["port"]) == _USUAL_PORTS[found["scheme"]]
    return found["place"] if usual else f"{found['place']}:{int(found['port'])}"


def _asked_headers(request: web.Request) -> str:
    """The headers that are taken: ours, and those in which a client says what it is."""
    asked = [name.strip() for name in request.headers.get("Access-Control-Request-Headers", "").split(",")]
    of_clients = [name for name in asked if name.lower().startswith(("x-stainless-", "openai-"))]
    return ", ".join((_TAKEN, *of_clients))
