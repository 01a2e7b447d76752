"""The log itself, for audits."""

from aiohttp import web
from msgspec import Raw, Struct

from modelforge.domain.messages import Actor, Kind
from modelforge.event_log.sqlite import LogReader
from modelforge.fields import project_struct
from modelforge.http.plumbing.body import json_response
from modelforge.http.plumbing.keys import EVENT_LOG
from modelforge.http.plumbing.query import GIVEN, int_query
from modelforge.http.plumbing.route import AFTER, Query, Route, limit_to

_PAGE = 100
_LARGEST_PAGE = 10_000


class LoggedRecord(Struct, frozen=True, kw_only=True):
    """A record as it stands in the log; `at` in unix microseconds, `data` as it was written."""

    position: int
    stream: str
    version: int
    kind: Kind
    type: str
    at: int
    cause: int | None
    actor: Actor
    data: Raw
    digest: str


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
    """At most `limit` records; `last_position` is the last that was read, so that nothing is skipped."""
    head, _ = reader.head()
    found = [
        project_struct(record, LoggedRecord)
        for record in reader.records(after=after, streams=streams, types=types, limit=limit + 1)
    ]
    has_more = len(found) > limit
    return Events(
        events=found[:limit],
        last_position=found[limit - 1].position if has_more else head,
        has_more=has_more,
    )


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
        errors=(400,),
    ),
)
