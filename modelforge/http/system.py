"""What the server is, and whether it is well."""

from typing import get_args

import msgspec
from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from modelforge.http.plumbing.body import json_response
from modelforge.http.plumbing.keys import ADMISSION, OPENAPI, PROJECTOR
from modelforge.http.plumbing.route import Route
from modelforge.machine.cluster import Partition
from modelforge.projections.folding import Stage
from modelforge.version import API_VERSION, VERSION
from trainer_entry import wire


class Info(Struct, frozen=True, kw_only=True):
    """What can be asked for. `position`: that of the log's last record.

    `cluster`: the partitions of the cluster that trainings run on; null where there is none. It is empty while the
    cluster does not answer.
    """

    providers: list[str]
    strategies: list[str]
    tasks: list[str]
    version: str
    release: str
    position: int
    cluster: tuple[Partition, ...] | None = None


class Reading(Struct, frozen=True, kw_only=True):
    """How far a server that starts is with its log: so many `records`, `of` so many.

    `doing`: what it does with them. While it is "upgrading" how far it is cannot be said: `records` is 0. While it is
    "loading" its snapshot, it is so many of that one's parts.
    """

    records: int
    of: int
    doing: Stage = "rebuilding"


class Health(Struct, frozen=True, kw_only=True):
    """The server answers. `reading`: only while it reads its log, and answers everything else with 503."""

    status: str
    version: str
    reading: Reading | UnsetType = UNSET


_INFO = Info(
    providers=[*get_args(wire.Provider)],
    strategies=[*get_args(wire.Strategy)],
    tasks=[*get_args(wire.Task)],
    version=API_VERSION,
    release=VERSION,
    position=0,
)


async def get_info(request: web.Request) -> web.Response:
    """System information."""
    partitions = request.app[ADMISSION].partitions
    cluster = None if partitions is None else await partitions() or ()
    position = request.app[PROJECTOR].read_models.position
    return json_response(msgspec.structs.replace(_INFO, position=position, cluster=cluster))


async def get_health(_request: web.Request) -> web.Response:
    """Health check."""
    return json_response(Health(status="healthy", version=API_VERSION))


async def get_openapi(request: web.Request) -> web.Response:
    """This API as an OpenAPI 3.1 document."""
    return web.Response(body=bytes(request.app[OPENAPI]), content_type="application/json")


ROUTES = (
    Route(method="GET", path="/api/info", handler=get_info, answer=Info),
    Route(method="GET", path="/api/health", handler=get_health, answer=Health, scope="open"),
    Route(method="GET", path="/api/openapi.json", handler=get_openapi, answer=None),
)
