"""Commands of `modelforge` that the server runs in processes of their own, as its owner would on a terminal."""

from aiohttp import web

from modelforge.errors import LogUnusable
from modelforge.http.plumbing.disconnect import cancel_on_disconnect
from modelforge.http.plumbing.keys import LAYOUT
from modelforge.machine.child_process import Ended, run_module


async def run_command(request: web.Request, command: str) -> Ended:
    """Run a command of ours on the data directory, for as long as the client waits; it prints JSON.

    Raises:
        LogUnusable: it printed none, as where the log is gone.
    """
    data_dir = str(request.app[LAYOUT].root)
    ended = await cancel_on_disconnect(request, run_module("modelforge", command, "--data-dir", data_dir, "--json"))
    if not ended.output:
        raise LogUnusable(f"`modelforge {command}` failed", ended.words)
    return ended
