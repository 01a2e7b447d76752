"""One route: what the server answers, and what `openapi.json` says of it."""

from collections.abc import Awaitable, Callable
from typing import Literal

from aiohttp import web
from msgspec import Struct

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Query(Struct, frozen=True):
    """A query parameter."""

    name: str
    kind: Literal["integer", "string"]
    description: str


class Route(Struct, frozen=True, kw_only=True):
    """One method of one path. `body` and `answer` are the Structs in which its JSON comes and goes.

    `may_be_empty`: a request without a body is one with all its defaults.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    handler: Handler
    answer: type[Struct] | None
    body: type[Struct] | None = None
    may_be_empty: bool = False
    query: tuple[Query, ...] = ()
    status: int = 200
    errors: tuple[int, ...] = ()
    media: str = "application/json"
    headers: tuple[str, ...] = ()
    streams: bool = False


AFTER = Query("after", "integer", "Only what comes after this position of the log.")
LIMIT = Query("limit", "integer", "From at most so many records.")
REVISION = Query("revision", "integer", "An earlier one; the last one by default.")
