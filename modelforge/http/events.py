"""The log itself, for audits."""

from aiohttp import web
from msgspec import Struct

from modelforge.errors import BadInput
from modelforge.event_log.sqlite import LogReader
from modelforge.http.jobs import ONE_JOB, followed_stream
from modelforge.http.plumbing.body import json_response, whole_number
from modelforge.http.plumbing.frames import Goodbye
from modelforge.http.plumbing.keys import EVENT_LOG, PROJECTOR, SUBSCRIBERS
from modelforge.http.plumbing.query import GIVEN, int_query
from modelforge.http.plumbing.route import AFTER, EVENT_STREAM, Query, RequestHeader, Route, Streamed, limit_to
from modelforge.http.plumbing.subscribers import Following
from modelforge.projections.status_messages import LoggedRecord, logged_record

_PAGE = 100
_LARGEST_PAGE = 10_000
_PAGE_BYTES = 8 << 20
"""After so many bytes of data a page ends: what is asked for by count must not take all memory."""
_LAST_EVENT = "Last-Event-ID"


class Events(Struct, frozen=True, kw_only=True):
    """Records after a position; go on with `?after=last_position`, whatever the filter."""

    events: list[LoggedRecord]
    last_position: int
    has_more: bool


async def list_events(request: web.Request) -> web.Response:
    """The records of the log, in order; of one stream or type only, if named."""
    after = int_query(request, "after", 0)
    limit = int_query(request, "limit", _PAGE)
    streams, types = (request[GIVEN].values.get(name, ()) for name in ("stream", "type"))
    return json_response(
        await request.app[EVENT_LOG].read(lambda reader: read_events(reader, after, limit, streams, types))
    )


def read_events(reader: LogReader, after: int, limit: int, streams: tuple[str, ...], types: tuple[str, ...]) -> Events:
    """At most `limit` records, or fewer large ones; `last_position` is the last that was read: nothing is skipped."""
    head, _ = reader.head()
    found, size = list[LoggedRecord](), 0
    for record in reader.records(after=after, streams=streams, types=types, limit=limit + 1):
        if len(found) == limit or size >= _PAGE_BYTES:
            return Events(events=found, last_position=found[-1].position, has_more=True)
        found.append(logged_record(record))
        size += len(bytes(record.data))
    return Events(events=found, last_position=head, has_more=False)


async def stream_events(request: web.Request) -> web.StreamResponse:
    """The records of the log as server-sent events: those after a position, and then what comes."""
    following = Following(after=_last_seen(request), stream=followed_stream(request))
    return await request.app[SUBSCRIBERS].serve_events(request, following)


def _last_seen(request: web.Request) -> int:
    """The position to go on from: that of the header, for who comes back asks for the address that it began with.

    Raises:
        BadInput: it is no position, or one that the log does not have.
    """
    head = request.app[PROJECTOR].read_models.position
    after = int_query(request, "after", 0, maximum=head)
    shown = request.headers.getall(_LAST_EVENT, ())
    if not shown:
        return after
    position = whole_number(shown[0])
    if len(shown) > 1 or position is None or position > head:
        raise BadInput(
            f"The header {_LAST_EVENT} is no position of the log",
            f"{shown[0][:40]!r}: it takes one whole number from 0 to {head}, the id of an event; or leave it out.",
            field=_LAST_EVENT,
        )
    return position


ROUTES = (
    Route(
        method="GET",
        path="/api/events",
        handler=list_events,
        answer=Events,
        query=(
            AFTER,
            limit_to(_LARGEST_PAGE, _PAGE),
            Query("stream", str, "Only records of this stream, or of these.", many=True),
            Query("type", str, "Only records of this type, or of these.", many=True),
        ),
        errors=(400, 410),
    ),
    Route(
        method="GET",
        path="/api/events/stream",
        handler=stream_events,
        answer=None,
        query=(AFTER, ONE_JOB),
        media=(EVENT_STREAM,),
        headers=("X-Accel-Buffering",),
        takes=(RequestHeader(_LAST_EVENT, "The id of the last event that came; it counts before `after`."),),
        streams=(Streamed("message", LoggedRecord, numbered=True), Streamed("goodbye", Goodbye)),
        errors=(400, 404),
    ),
)
