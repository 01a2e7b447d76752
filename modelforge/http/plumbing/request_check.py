"""What is checked of every request, by the line of its route: nothing that a client sends is passed over in silence."""

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from msgspec import Struct
from yarl import URL

from modelforge.errors import BadInput, UnknownHost, WrongContentType
from modelforge.http.plumbing.body import key_of, read_body
from modelforge.http.plumbing.query import GIVEN, read_query
from modelforge.http.plumbing.route import Handler, Route

_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii"})


class NoBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Of a path that takes no body: nothing, or an object without a field."""


def checked(route: Route) -> Handler:
    """The route's handler, which sees only requests that say nothing beyond what it takes."""

    async def handle(request: web.Request) -> web.StreamResponse:
        _check_target(request)
        _check_encoding(request)
        if route.form is None:
            _check_charset(request)
        request[GIVEN] = read_query(request, route.query)
        if request.method != hdrs.METH_GET:
            key_of(request)
        if route.body is None and route.form is None:
            await _refuse_body(request)
        return await route.handler(request)

    return handle


def _check_target(request: web.Request) -> None:
    """Refuse what is no request for this server in HTTP/1.

    Raises:
        UnknownHost: its target is the whole address of another one, which counts more than its Host (RFC 9112, 3.2.2).
        BadInput: it is of another version.
    """
    if request.version not in {HttpVersion10, HttpVersion11}:
        raise BadInput("The request is not valid HTTP", "This server speaks HTTP/1.1.")
    target = request.raw_path
    if not target.startswith("/") and URL(target).raw_authority.lower() != request.headers.get(hdrs.HOST, "").lower():
        raise UnknownHost("Unknown Host", f"This server does not answer to {target[:80]!r}; ask for the path alone.")


def _check_encoding(request: web.Request) -> None:
    """Refuse a body that would have to be unpacked first: nobody knows to how much.

    Raises:
        WrongContentType: it says that it is packed.
    """
    if (packed := packing_of(request)) is not None:
        raise WrongContentType("The body is packed", f"{packed}: send it as it is.")


def packing_of(request: web.Request) -> str | None:
    """The header that says that a body is packed, if one does."""
    for name, plain in ((hdrs.CONTENT_ENCODING, "identity"), (hdrs.TRANSFER_ENCODING, "chunked")):
        encoding = request.headers.get(name, plain)
        if encoding.strip().lower() != plain:
            return f"{name}: {encoding[:40]}"
    return None


def _check_charset(request: web.Request) -> None:
    """Refuse JSON in another encoding than its own.

    Raises:
        WrongContentType: it says that it is in one.
    """
    charset = request.charset
    if charset is not None and charset.lower() not in _CHARSETS:
        raise WrongContentType("Wrong charset", f"JSON is UTF-8, not {charset[:40]}: leave the charset out.")


async def _refuse_body(request: web.Request) -> None:
    """Refuse a body where none is taken.

    Raises:
        BadInput: there is one, and it is no empty object.
    """
    if not request.body_exists or not await request.read():
        return
    try:
        await read_body(request, NoBody)
    except BadInput as error:
        raise BadInput("This path takes no body", f"Send none to {request.method} {request.path}.") from error
