"""Whether the log is what was written: checked from outside, by a process of its own, as `modelforge verify` does.

Not by the server itself: it would answer nobody else meanwhile, and whoever opens and closes a file of the log beside
SQLite lets go of the locks that its process has on it.
"""

import msgspec
from aiohttp import web
from msgspec import Struct

from modelforge.http.plumbing.body import json_response
from modelforge.http.plumbing.own_command import run_command
from modelforge.http.plumbing.route import Route

_FAULTS_SHOWN = 100


class LogFault(Struct, frozen=True, kw_only=True):
    """Something in the log that is not as it was written. `position` is null where it is in no single record."""

    position: int | None
    what: str


class SegmentElsewhere(Struct, frozen=True, kw_only=True):
    """An archived part of the log that is not here: its file, and the range of positions in it."""

    file: str
    first: int
    last: int


class Verified(Struct, frozen=True, kw_only=True):
    """The log, checked record by record.

    `digest`: of its last record, to be kept elsewhere. `snapshot`: the position of the one that was compared with the
    records, if any. `faults`: the first hundred of `fault_count`. `archived`: how many of the records lie in segments.
    `away`: the segments that are not here: their records were not looked at, and the chain goes on behind them.
    """

    records: int
    digest: str
    snapshot: int | None
    fault_count: int
    faults: list[LogFault]
    archived: int = 0
    away: list[SegmentElsewhere] = []


async def verify_log(request: web.Request) -> web.Response:
    """Check every record against the chain of digests, and the last snapshot against the records."""
    ended = await run_command(request, "verify")
    found = msgspec.json.decode(ended.output, type=Verified)
    return json_response(msgspec.structs.replace(found, faults=found.faults[:_FAULTS_SHOWN]))


ROUTES = (Route(method="GET", path="/api/verify", handler=verify_log, answer=Verified, at_once=1),)
