"""How things stood: the read models at an earlier position, folded in a process of its own."""

from aiohttp import web

from modelforge.child_process import run_module
from modelforge.http.keys import LAYOUT, PROJECTOR
from modelforge.http.messages import int_query


async def get_state(request: web.Request) -> web.Response:
    """The read models as they stood at a position of the log; by default, as they stand."""
    head = request.app[PROJECTOR].read_models.position
    position = int_query(request, "at", head, maximum=head)
    data_dir = str(request.app[LAYOUT].root)
    replay = await run_module("modelforge", "replay", "--data-dir", data_dir, "--at", str(position))
    if replay.code != 0:
        raise RuntimeError(f"The replay failed: {replay.words}")
    return web.Response(body=replay.output, content_type="application/json")
