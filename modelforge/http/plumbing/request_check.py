"""What is checked of every request, by the line of its route: nothing that a client sends is passed over in silence."""

from aiohttp import hdrs, web
from msgspec import Struct

from modelforge.errors import BadInput, WrongContentType
from modelforge.http.plumbing.body import key_of, read_body
from modelforge.http.plumbing.query import GIVEN, read_query
from modelforge.http.plumbing.route import Handler, Route


class NoBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Of a path that takes no body: nothing, or an object without a field."""


def checked(route: Route) -> Handler:
    """The route's handler, which sees only requests that say nothing beyond what it takes."""

    async def handle(request: web.Request) -> web.StreamResponse:
        _check_encoding(request)
        request[GIVEN] = read_query(request, route.query)
        if request.method != hdrs.METH_GET:
            key_of(request)
        if route.body is None and route.form is None:
            await _refuse_body(request)
        return await route.handler(request)

    return handle


def _check_encoding(request: web.Request) -> None:
    """Refuse a body that would have to be unpacked first: nobody knows to how much.

    Raises:
        WrongContentType: it says that it is packed.
    """
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity")
    if encoding.strip().lower() != "identity":
        raise WrongContentType(
            "The body is packed", f"Content-Encoding: {encoding[:40]}: send it as it is, without this header."
        )


async def _refuse_body(request: web.Request) -> None:
    """Refuse a body where none is taken.

    Raises:
        BadInput: there is one, and it is no empty object.
    """
    if not request.body_exists or not (await request.read()).strip():
        return
    try:
        await read_body(request, NoBody)
    except BadInput as error:
        raise BadInput("This path takes no body", f"Send none to {request.method} {request.path}.") from error
