"""How things stood: the read models at an earlier position, folded in a process of its own."""

from aiohttp import web

from modelforge.http.plumbing.disconnect import cancel_on_disconnect
from modelforge.http.plumbing.keys import EVENT_LOG, LAYOUT, PROJECTOR
from modelforge.http.plumbing.long_lists import list_response
from modelforge.http.plumbing.query import int_query
from modelforge.http.plumbing.route import Count, Query, Route
from modelforge.machine.child_process import run_module
from modelforge.projections.read_models import StateAt, models_of, state_of


async def get_state(request: web.Request) -> web.StreamResponse:
    """The read models as they stood at a position of the log; by default, as they stand."""
    head = request.app[PROJECTOR].read_models.position
    position = int_query(request, "at", head, maximum=head)
    if position == head:
        read_models = request.app[PROJECTOR].read_models
        return await list_response(request, state_of(read_models, ()), "models", models_of(read_models))
    await request.app[EVENT_LOG].read(lambda reader: reader.require(position))
    data_dir = str(request.app[LAYOUT].root)
    replaying = run_module("modelforge", "replay", "--data-dir", data_dir, "--at", str(position))
    replay = await cancel_on_disconnect(request, replaying)  # a slider asks for many, and waits for the last
    if replay.code != 0:
        raise RuntimeError(f"The replay failed: {replay.words}")
    return web.Response(body=replay.output, content_type="application/json")


ROUTES = (
    Route(
        method="GET",
        path="/api/state",
        handler=get_state,
        answer=StateAt,
        at_once=4,
        query=(Query("at", Count, "The position; the last one by default."),),
        errors=(400, 410),
    ),
)
