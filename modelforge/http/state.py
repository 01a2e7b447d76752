"""How things stood: the read models at an earlier position, folded in a process of its own."""

import asyncio
import sys

from aiohttp import web

from modelforge.child_environment import child_environment
from modelforge.http.keys import LAYOUT, PROJECTOR
from modelforge.http.messages import int_query


async def get_state(request: web.Request) -> web.Response:
    """The read models as they stood at a position of the log; by default, as they stand."""
    head = request.app[PROJECTOR].read_models.position
    position = int_query(request, "at", head, maximum=head)
    data_dir = str(request.app[LAYOUT].root)
    replay = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "modelforge", "replay", "--data-dir", data_dir, "--at", str(position)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=child_environment(),
    )
    try:
        state, words = await replay.communicate()
    finally:
        if replay.returncode is None:
            replay.kill()
    if replay.returncode != 0:
        raise RuntimeError(f"The replay failed: {words.decode(errors='replace')}")
    return web.Response(body=state, content_type="application/json")
