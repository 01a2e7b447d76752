"""The one check of Host, Origin and body before every handler.

A page from elsewhere in a person's browser must not reach this server: not by a name that it makes
point here (Host), not by a request across sites (Origin, Sec-Fetch-Site), not by a form (content type).
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Literal

from aiohttp import web
from aiohttp.hdrs import ORIGIN

from modelforge.errors import Forbidden, TooLarge, UnknownHost, WrongContentType
from modelforge.http.plumbing.origins import Origins, is_origin

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::\d{1,5})?")
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_SITE = "Sec-Fetch-Site"
_MOST_KNOWN = 1000
_SAME_SITE = frozenset({"none", "same-origin"})
_CONTENT_TYPES = {"form": "multipart/form-data", "json": "application/json"}

Content = Literal["form", "json", "nothing"]


class Guard:
    """Knows the names that this server answers to, and the largest body that is not a file."""

    def __init__(self, host: str, allowed_hosts: Iterable[str], max_body_bytes: int, origins: Origins) -> None:
        self._hosts = _LOOPBACK | {host.lower()} | {name.lower() for name in allowed_hosts}
        self._any_address = host in {"0.0.0.0", "::"}  # noqa: S104 - then every address of the machine is one of ours
        self._max_body_bytes = max_body_bytes
        self._origins = origins
        self._known: set[str] = set()

    def check(self, request: web.Request, *, takes: Content) -> None:
        """Refuse a request that a page of another origin could have made, or with a body that is not taken.

        `takes`: what its body has to be; nothing, where no route answers its method: then that is the answer.

        Raises:
            UnknownHost, Forbidden, WrongContentType, TooLarge: which it was.
        """
        headers = request.headers
        hosts = headers.getall("Host", ())
        host = hosts[0].lower() if hosts else ""
        if len(hosts) > 1 or not self._is_known(host):
            name = _name(host)
            remedy = f"start it with --allowed-host {name}." if name else "send a Host header that is one."
            raise UnknownHost("Unknown Host", f"This server does not answer to {host!r}; {remedy}")
        if not self._origins.allow(request):
            _check_same_origin(request, host)
        if request.method not in _READS and takes != "nothing":
            _check_content_type(request, _CONTENT_TYPES[takes])
        if takes != "form" and (request.content_length or 0) > self._max_body_bytes:
            raise TooLarge("The body is too large", f"At most {self._max_body_bytes} bytes are accepted here.")

    def _is_known(self, host: str) -> bool:
        """Whether a Host header is one of ours; those that were found to be are remembered."""
        if host in self._known:
            return True
        name = _name(host)
        if name is None or not self._is_ours(name):
            return False
        if len(self._known) < _MOST_KNOWN:
            self._known.add(host)
        return True

    def _is_ours(self, name: str) -> bool:
        # No page can make a name of its own point at a bare address: that name would stand here.
        return name in self._hosts or (self._any_address and _is_address(name))


def _check_same_origin(request: web.Request, host: str) -> None:
    if ORIGIN not in request.headers and _SITE not in request.headers:
        return
    ours = {f"http://{host}", f"https://{host}"}
    for origin in request.headers.getall(ORIGIN, ()):
        if origin.lower() not in ours:
            remedy = (
                f"If it is a page of yours, start the server with --allowed-origin {origin}."
                if is_origin(origin)
                else ""
            )
            raise Forbidden(
                "Cross-origin request refused", f"The Origin {origin!r} is not this server's. {remedy}".strip()
            )
    if not _SAME_SITE.issuperset(request.headers.getall(_SITE, ())):
        raise Forbidden("Cross-origin request refused", "The browser says that another site made this request.")


def _name(host: str) -> str | None:
    """The name or address in a Host header, without the port; None where it is no such header."""
    match = _HOST.fullmatch(host)
    return (match["address"] or match["name"]) if match else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _check_content_type(request: web.Request, wanted: str) -> None:
    if "Content-Type" not in request.headers and not request.body_exists:
        return
    if request.content_type != wanted or "Content-Type" not in request.headers:
        raise WrongContentType(
            "Wrong content type",
            f"{request.path} takes {wanted}, not {request.headers.get('Content-Type', 'a body without a type')}.",
        )
