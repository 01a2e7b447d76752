"""One route: what the server takes and answers, who may ask, and what `openapi.json` says of it."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from aiohttp import web
from msgspec import Meta, Struct

from modelforge.domain.access_token import Scope
from modelforge.projections.read_models import ReadModels

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

Count = Annotated[int, Meta(ge=0, le=2**53)]
Ordinal = Annotated[int, Meta(ge=1, le=2**53)]


EVENT_STREAM = "text/event-stream"


class Query(Struct, frozen=True):
    """A query parameter. `kind`: the type as which it is read. `many`: it may be given several times.

    `pairs`: it is an object of texts, each written `name[key]=value`; `name=null` is None.
    """

    name: str
    kind: Any
    description: str
    many: bool = False
    pairs: bool = False


class RequestHeader(Struct, frozen=True):
    """A header that changes the answer. What cannot be read in one is passed over, as RFC 9110 has it."""

    name: str
    description: str


class Streamed(Struct, frozen=True):
    """A server-sent event, and the Struct whose JSON is its data. `message` is what one without a name is called.

    `numbered`: it has an id, a position of the log.
    """

    event: str
    data: type[Struct]
    numbered: bool = False


class Route(Struct, frozen=True, kw_only=True):
    """One method of one path. `body` and `answer` are the Structs in which its JSON comes and goes.

    `may_be_empty`: a request without a body is one with all its defaults. `form`: the parts of a multipart body.
    `at_once`: how many are answered at a time, where each takes a process of its own. `scope`: what a token must be
    good for, where it is not `read` for GET and `write` for all else; `open` asks nobody who they are.
    `also`: the statuses of other successes, which have no JSON. `media`: the content types of an answer that has none.
    `headers`: those of the answer; `takes`: those of the request, beside what every route takes. `streams`: the
    events of an answer that may come piece by piece. `instant`: what the answer is of the read models, where it is of
    nothing else: see `instant.py`.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    handler: Handler
    answer: type[Struct] | None
    body: type[Struct] | None = None
    may_be_empty: bool = False
    form: type[Struct] | None = None
    at_once: int | None = None
    scope: Scope | Literal["open"] | None = None
    query: tuple[Query, ...] = ()
    status: int = 200
    also: tuple[int, ...] = ()
    errors: tuple[int, ...] = ()
    media: tuple[str, ...] = ("application/json",)
    headers: tuple[str, ...] = ()
    takes: tuple[RequestHeader, ...] = ()
    streams: tuple[Streamed, ...] = ()
    instant: Callable[[ReadModels], Struct] | None = None

    @property
    def needs(self) -> Scope | Literal["open"]:
        """What a token must be good for."""
        return self.scope or ("read" if self.method == "GET" else "write")

    @property
    def takes_form(self) -> bool:
        """Whether a file comes, as multipart form data."""
        return self.form is not None

    @property
    def is_socket(self) -> bool:
        """Whether it is a WebSocket."""
        return self.status == 101  # noqa: PLR2004 - Switching Protocols

    @property
    def is_endless(self) -> bool:
        """Whether its answer goes on until the client leaves: a WebSocket, or a stream of events and nothing else."""
        return self.is_socket or self.media == (EVENT_STREAM,)


PATH_KINDS: dict[str, Any] = {
    "filename": Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^/\\\x00-\x1f\x7f]+$")],
    "job_id": Annotated[str, Meta(pattern="^train_[0-9]{6,}$")],
    "model_id": Ordinal,
    "name": Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")],
    "file_id": Annotated[str, Meta(pattern="^file-[0-9a-f]{24}$")],
    "fine_tuning_job_id": Annotated[str, Meta(pattern="^ftjob-[0-9]{6,}$")],
    "response_id": Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,100}$")],
    "webhook_endpoint_id": Annotated[str, Meta(pattern="^we_[0-9a-f]{24}$")],
    "page_file": Annotated[str, Meta(pattern="^[a-z][a-z0-9_-]{0,40}[.][a-z]{2,5}$")],
    "model": Annotated[str, Meta(min_length=1, max_length=4000, pattern=r"^[^\x00-\x1f\x7f]+$")],
}
"""The names in paths, and what stands for them; what does not look so is simply not there."""

AFTER = Query("after", Count, "Only what comes after this position of the log.")
REVISION = Query("revision", Ordinal, "An earlier one; the last one by default.")


def limit_if_asked(largest: int) -> Query:
    """The size of a page of a list that comes whole where none is asked for."""
    return Query("limit", Annotated[int, Meta(ge=1, le=largest)], "At most so many; all of them by default.")


def limit_to(largest: int, default: int) -> Query:
    """The size of a page."""
    return Query(
        "limit", Annotated[int, Meta(ge=1, le=largest)], f"From at most so many records; {default} by default."
    )
