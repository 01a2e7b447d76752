"""What a GET costs the server: `python benchmarks/status_requests.py [--quick]`.

`/api/training_status` beside the same bytes from aiohttp alone, on uvloop, and from FastAPI on uvicorn, each with as
many routes as there are here. 64 clients ask from a process of their own; what counts is the server's CPU time.
FastAPI gets an environment of its own in `build/`, by pip; where that is not to be had, it is left out, by name.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import requests
from figures import Figure, Program, Rounds
from server_process import NO_LIMITS, Server, processor_seconds, served, started

from modelforge.http.routes import ROUTES

CLIENTS, REQUESTS, REQUESTS_QUICKLY, WARM = 64, 20_000, 4_000, 1_000
STATUS, ANOTHER = "/api/training_status", "/api/info"
FASTAPI = Path(__file__).parent.parent / "build" / "fastapi"
PINNED = ("fastapi==0.165.0", "starlette==1.10.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0")
_NOTE = (
    f"Requests in a second of the server's processor time, of {CLIENTS} clients at once that keep their connections, "
)
_UNIT = "requests a CPU second"
BARE = Figure(
    name="GET of a status / bare aiohttp on uvloop",
    unit=_UNIT,
    yardstick="bare aiohttp",
    at_least=0.8,
    note=f"{_NOTE}beside aiohttp that answers with the same bytes, without an access log or any check.",
)
FAST = Figure(
    name="GET of a status / FastAPI on uvicorn",
    unit=_UNIT,
    yardstick="FastAPI",
    at_least=2.5,
    note=f"{_NOTE}beside a FastAPI route that returns the same dictionary, on uvloop and httptools, without a log; "
    f"{', '.join(PINNED)}.",
)
OTHER = Figure(
    name="Another GET / bare aiohttp on uvloop",
    unit=_UNIT,
    yardstick="bare aiohttp",
    note=f"{_NOTE}of `{ANOTHER}`, which goes through every check.",
)
_BARE = """
import asyncio, sys, uvloop
from aiohttp import web
body = sys.argv[1].encode()
async def answer(request): return web.Response(body=body, content_type="application/json")
async def main():
    app = web.Application()
    app.router.add_get("/api/training_status", answer)
    for number in range(int(sys.argv[2])): app.router.add_get("/other/%d/{name}" % number, answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print("bare listens on http://127.0.0.1:%d " % runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()
uvloop.run(main())
"""
_FASTAPI = """
import json, socket, sys
import uvicorn
from fastapi import FastAPI
status = json.loads(sys.argv[1])
app = FastAPI()
@app.get("/api/training_status")
async def answer(): return status
for number in range(int(sys.argv[2])):
    app.get("/other/%d/{name}" % number)(answer)
listener = socket.create_server(("127.0.0.1", 0))
print("FastAPI listens on http://127.0.0.1:%d " % listener.getsockname()[1], flush=True)
server = uvicorn.Server(uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_level="error"))
server.run(sockets=[listener])
"""


class Client(asyncio.Protocol):
    """Asks, and asks again when it was answered."""

    def __init__(self, request: bytes, left: Iterator[int], ended: "asyncio.Future[None]") -> None:
        self._request = request
        self._left = left
        self._ended = ended
        self._got = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        if isinstance(transport, asyncio.WriteTransport):
            self._transport = transport
            self._ask()

    def data_received(self, data: bytes) -> None:
        """Ask again, once an answer is whole."""
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self._ended.set_exception(ValueError(head.decode()))
        elif len(body) >= int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            self._got = b""
            self._ask()

    def _ask(self) -> None:
        if next(self._left, None) is not None and self._transport is not None:
            self._transport.write(self._request)
        elif not self._ended.done():
            self._ended.set_result(None)


async def ask(url: str, count: int) -> None:
    """Ask so often, from many connections."""
    address, loop = urlsplit(url), asyncio.get_running_loop()
    request = f"GET {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nUser-Agent: benchmark\r\nAccept: */*\r\n\r\n"
    left, ended = iter(range(count)), loop.create_future()
    host, port = address.hostname or "", address.port or 80
    for _ in range(CLIENTS):
        await loop.create_connection(lambda: Client(request.encode(), left, ended), host, port)
    await ended


def rate(server: Server, path: str, count: int) -> float:
    """Requests in a second of the server's processor time."""
    own = [sys.executable, __file__, "--ask", server.url + path]
    subprocess.run([*own, str(WARM)], check=True)
    began = processor_seconds(server.pid)
    subprocess.run([*own, str(count)], check=True)
    return count / (processor_seconds(server.pid) - began)


def fastapi() -> Path | None:
    """A Python that has FastAPI, in an environment of its own."""
    python = FASTAPI / "bin" / "python"
    complete = FASTAPI / ".complete"
    if not complete.exists() or complete.read_text().split() != [*PINNED]:
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(FASTAPI)], check=True, timeout=120)
            subprocess.run([*install, *PINNED], check=True, timeout=180)
        except (subprocess.SubprocessError, OSError) as error:
            print(f"FastAPI is left out: it could not be installed ({error}).")
            return None
        complete.write_text(" ".join(PINNED))
    return python


def measure(rounds: Rounds) -> None:
    """All of them in turn."""
    count = REQUESTS_QUICKLY if rounds.quick else REQUESTS
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(served(rounds.folder(), settings=NO_LIMITS))
        body, routes = requests.get(ours.url + STATUS, timeout=20).text, str(len(ROUTES))
        other = stack.enter_context(started(rounds.folder(), [sys.executable, "-c", _BARE, body, routes]))

        def modelforge(_folder: Path) -> float:
            return rate(ours, STATUS, count)

        def another_get(_folder: Path) -> float:
            return rate(ours, ANOTHER, count)

        def bare_aiohttp(_folder: Path) -> float:
            return rate(other, STATUS, count)

        sides = [modelforge, bare_aiohttp, another_get]
        if (python := fastapi()) is not None:
            third = stack.enter_context(started(rounds.folder(), [str(python), "-c", _FASTAPI, body, routes]))

            def of_fastapi(_folder: Path) -> float:
                return rate(third, STATUS, count)

            sides.append(of_fastapi)
        found = rounds.interleave(*sides, rounds=max(3, rounds.count))
    rounds.tell(BARE, found[0], found[1])
    rounds.tell(OTHER, found[2], found[1])
    if len(found) == len(sides) == 4:  # noqa: PLR2004 - FastAPI is the fourth
        rounds.tell(FAST, found[0], found[3])


PROGRAM = Program(__doc__, measure, BARE, FAST, OTHER)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--ask"]:
        asyncio.run(ask(sys.argv[2], int(sys.argv[3])))
    else:
        PROGRAM.main()
