"""One route: what the server answers, who may ask, and what `openapi.json` says of it."""

from collections.abc import Awaitable, Callable
from typing import Literal

from aiohttp import web
from msgspec import Struct

from modelforge.domain.access_token import Scope

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Query(Struct, frozen=True):
    """A query parameter."""

    name: str
    kind: Literal["integer", "string"]
    description: str


class Route(Struct, frozen=True, kw_only=True):
    """One method of one path. `body` and `answer` are the Structs in which its JSON comes and goes.

    `may_be_empty`: a request without a body is one with all its defaults. `takes_form`: a file comes, as multipart form
    data. `at_once`: how many are answered at a time, where each takes a process of its own. `scope`: what a token must
    be good for, where it is not `read` for GET and `write` for all else; `open` asks nobody who they are.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    handler: Handler
    answer: type[Struct] | None
    body: type[Struct] | None = None
    may_be_empty: bool = False
    takes_form: bool = False
    at_once: int | None = None
    scope: Scope | Literal["open"] | None = None
    query: tuple[Query, ...] = ()
    status: int = 200
    errors: tuple[int, ...] = ()
    media: str = "application/json"
    headers: tuple[str, ...] = ()
    streams: bool = False

    @property
    def needs(self) -> Scope | Literal["open"]:
        """What a token must be good for."""
        return self.scope or ("read" if self.method == "GET" else "write")

    @property
    def is_socket(self) -> bool:
        """Whether it is a WebSocket."""
        return self.status == 101  # noqa: PLR2004 - Switching Protocols


AFTER = Query("after", "integer", "Only what comes after this position of the log.")
LIMIT = Query("limit", "integer", "From at most so many records.")
REVISION = Query("revision", "integer", "An earlier one; the last one by default.")
