"""Work that is done only for as long as a client waits for it: aiohttp lets a handler go on."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiohttp import web

_GONE_SECONDS = 0.25
"""Between two checks whether the client is still there."""
_T = TypeVar("_T")


async def cancel_on_disconnect(request: web.Request, work: Coroutine[Any, Any, _T]) -> _T:
    """What comes of the work, which is cancelled as soon as nobody waits for it.

    Raises:
        ConnectionResetError: the client is gone.
    """
    working = asyncio.get_running_loop().create_task(work)
    try:
        while not working.done():
            await asyncio.wait({working}, timeout=_GONE_SECONDS)
            if not working.done() and (request.transport is None or request.transport.is_closing()):
                raise ConnectionResetError("The client is gone.")
    finally:
        if not working.done():
            working.cancel()
            await asyncio.wait({working})
    return working.result()
