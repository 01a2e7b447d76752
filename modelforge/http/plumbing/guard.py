"""The one check of Host, Origin and content type before every handler.

A page from elsewhere in a person's browser must not reach this server: not by a name that it makes
point here (Host), not by a request across sites (Origin, Sec-Fetch-Site), not by a form (content type).
"""

import ipaddress
import re
from collections.abc import Iterable

from aiohttp import web

from modelforge.errors import Forbidden, UnknownHost, WrongContentType

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::\d{1,5})?")
_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """Knows the names that this server answers to."""

    def __init__(self, host: str, allowed_hosts: Iterable[str]) -> None:
        self._hosts = _LOOPBACK | {host.lower()} | {name.lower() for name in allowed_hosts}
        self._any_address = host in {"0.0.0.0", "::"}  # noqa: S104 - who binds to all said --insecure-bind

    def check(self, request: web.Request) -> None:
        """Refuse a request that a page of another origin could have made.

        Raises:
            UnknownHost, Forbidden, WrongContentType: which it was.
        """
        host = request.headers.get("Host", "").lower()
        name = _name(host)
        if name is None or not self._is_ours(name):
            remedy = f"start it with --allowed-host {name}." if name else "send a Host header that is one."
            raise UnknownHost("Unknown Host", f"This server does not answer to {host!r}; {remedy}")
        origin = request.headers.get("Origin")
        if origin is not None and origin.lower() not in {f"http://{host}", f"https://{host}"}:
            raise Forbidden("Cross-origin request refused", f"The Origin {origin!r} is not this server's.")
        if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise Forbidden("Cross-origin request refused", "The browser says that another site made this request.")
        if request.method not in _READS:
            _check_content_type(request)

    def _is_ours(self, name: str) -> bool:
        # No page can make a name of its own point at a bare address: that name would stand here.
        return name in self._hosts or (self._any_address and _is_address(name))


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


def _check_content_type(request: web.Request) -> None:
    if "Content-Type" not in request.headers and not request.body_exists:
        return
    wanted = "multipart/form-data" if request.path == "/api/upload_dataset" else "application/json"
    if request.content_type != wanted or "Content-Type" not in request.headers:
        raise WrongContentType(
            "Wrong content type",
            f"{request.path} takes {wanted}, not {request.headers.get('Content-Type', 'a body without a type')}.",
        )
