"""Runs the Autobahn cases (by kosoku) against the server's WebSockets, and against aiohttp's own.

    python -m fuzz.websockets

Ours send what they have and take nothing: they are compared with a socket of aiohttp that reads and says nothing, case
by case. aiohttp's echo is what the cases are made for, and shows how many it passes itself. The exit code is 1 if ours
ends any case in another way than aiohttp's.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import WSMsgType, web
from kosoku import FailureError, run_fuzzingclient
from support.running_server import scripted_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

PROTOCOL = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")
"""Framing, pings, reserved bits, opcodes, fragments, UTF-8 and closes; the rest is about speed and compression."""
_AT_ONCE = 8
_LARGEST_MESSAGE = 4096


class Ending(NamedTuple):
    """How a case ended: both verdicts, and the close code that the server sent."""

    behavior: str
    close: str
    code: int | None
    passed: bool


@contextlib.asynccontextmanager
async def plain_aiohttp(*, echoes: bool) -> AsyncIterator[str]:
    """The address of a WebSocket of aiohttp without anything of ours."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=echoes, max_msg_size=0 if echoes else _LARGEST_MESSAGE)
        await socket.prepare(request)
        async for message in socket:
            if echoes and message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif echoes and message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/{path:.*}", serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def endings(address: str, cases: Sequence[str] | None) -> dict[str, Ending]:
    """How each case ends at an address."""
    try:
        results = await run_fuzzingclient(f"ws://{address}", cases, concurrency=_AT_ONCE)
    except FailureError as failure:
        results = failure.results
    return {
        one.case_id: Ending(one.behavior.value, one.behavior_close.value, one.remote_close_code, one.passed)
        for one in results
    }


async def differences(address: str, cases: Sequence[str]) -> tuple[int, dict[str, tuple[Ending, Ending]]]:
    """How many cases there are, and those that end otherwise at an address than with aiohttp alone."""
    async with plain_aiohttp(echoes=False) as plain:
        theirs = await endings(plain, cases)
    ours = await endings(address, cases)
    return len(theirs), {case: (theirs[case], ours[case]) for case in theirs if theirs[case] != ours.get(case)}


async def compare() -> int:
    """Run all, and say what differs."""
    async with plain_aiohttp(echoes=True) as echo:
        found = await endings(echo, None)
    failed = sorted(case for case, ending in found.items() if not ending.passed)
    sys.stdout.write(f"aiohttp's echo: {len(found) - len(failed)} of {len(found)} cases pass; not {failed}\n")
    worse = 0
    with tempfile.TemporaryDirectory() as folder:
        server = scripted_server(Path(folder) / "data")
        try:
            for path in ("/ws/training?after=0", "/ws/datasets"):
                count, differing = await differences(server.url.removeprefix("http://") + path, PROTOCOL)
                sys.stdout.write(f"{path}: {count} cases, {len(differing)} end otherwise than with aiohttp alone\n")
                sys.stdout.write("".join(f"  {case}: {pair}\n" for case, pair in differing.items()))
                worse += len(differing)
        finally:
            server.end()
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(compare()))
