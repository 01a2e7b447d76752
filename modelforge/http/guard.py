"""Who may ask: one check of Host, Origin and content type before every handler.

A page from elsewhere that a person's browser shows must not reach this server: not by a name that it makes
point here (Host), not by a request across sites (Origin, Sec-Fetch-Site), not by a form (content type).
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from aiohttp import web

from modelforge.errors import Forbidden, UnknownHost, WrongContentType

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """Knows the names that this server answers to."""

    def __init__(self, host: str, allowed_hosts: Iterable[str]) -> None:
        self._hosts = _LOOPBACK | {host.lower()} | {name.lower() for name in allowed_hosts}
        self._any_host = host in {"0.0.0.0", "::"}  # noqa: S104 - who binds to all said --insecure-bind

    def check(self, request: web.Request) -> None:
        """Refuse a request that a foreign page could have made.

        Raises:
            UnknownHost, Forbidden, WrongContentType: which it was.
        """
        host = request.headers.get("Host", "")
        if not self._is_ours(host):
            raise UnknownHost(
                "Unknown Host",
                f"This server does not answer to {host!r}; start it with --allowed-host {_name(host) or 'NAME'}.",
            )
        origin = request.headers.get("Origin")
        if origin is not None and (urlsplit(origin).netloc.lower() != host.lower()):
            raise Forbidden("A foreign page asked", f"The Origin {origin!r} is not this server's.")
        if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
            raise Forbidden("A foreign page asked", "The browser says that another site made this request.")
        if request.method not in _READS:
            _check_content_type(request)

    def _is_ours(self, host: str) -> bool:
        name = _name(host)
        return bool(name) and (self._any_host or name in self._hosts)


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _check_content_type(request: web.Request) -> None:
    if "Content-Type" not in request.headers and not request.body_exists:
        return
    wanted = "multipart/form-data" if request.path == "/api/upload_dataset" else "application/json"
    if request.content_type != wanted or "Content-Type" not in request.headers:
        raise WrongContentType(
            "Wrong content type",
            f"{request.path} takes {wanted}, not {request.headers.get('Content-Type', 'a body without a type')}.",
        )
