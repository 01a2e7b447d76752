"""Requests that change something, durable, beside the same without a database: `python benchmarks/durable_requests.py`.

64 connections each change an endpoint for webhooks, one request after the other, over HTTP. Ours is
`modelforge serve`: a request is answered when its command and its event are on the disk. The yardstick is the very same
server, in which the log's append returns at once and writes nothing: everything else is done, decided, digested and
folded.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import requests
import uvloop
from figures import Figure, Program, Rounds
from server_process import NO_LIMITS, Server, processor_seconds, served, started

from modelforge.cli import main as modelforge
from modelforge.event_log.sqlite import EventLog

CONNECTIONS = 64
RATE = Figure(
    name="Durable requests over HTTP, 64 at once / the same without a database",
    unit="requests/s",
    yardstick="without a database",
    at_least=0.85,
    note="`POST /v1/webhook_endpoints/ID` by 64 connections that each wait for the answer: two records a request. "
    "Without a database the log's append returns at once.",
)
PROCESSOR = Figure(
    name="The same, processor time of the server",
    unit="us a request",
    yardstick="without a database",
    note="All threads of the server. What a busy machine does to waiting is not in it.",
)


class Connection(asyncio.Protocol):
    """Asks again and again, each time when it was answered."""

    def __init__(self, request: bytes, times: int, done: asyncio.Future[None]) -> None:
        self._request = request
        self._left = times
        self._done = done
        self._transport: asyncio.WriteTransport | None = None
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast("asyncio.WriteTransport", transport)  # that of uvloop is no subclass
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Ask again once the answer is whole."""
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self._done.set_exception(RuntimeError(f"A request was answered with {head[:40]!r} {body[:300]!r}"))
            return
        self._answer = b""
        self._left -= 1
        if self._left and self._transport is not None:
            self._transport.write(self._request)
        elif not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """That is no answer."""
        if not self._done.done():
            self._done.set_exception(
                exc or RuntimeError(f"The server closed a connection after {self._answer!r}, {self._left} left")
            )


async def ask(server: Server, path: str, times: int) -> float:
    """The seconds that so many requests a connection take."""
    address = urlsplit(server.url)
    body = b'{"name": "changed"}'
    head = f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {server.key}\r\n"
    request = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    loop = asyncio.get_running_loop()
    ends: list[asyncio.Future[None]] = [loop.create_future() for _ in range(CONNECTIONS)]
    began = time.perf_counter()
    opened = [
        loop.create_connection(
            lambda end=end: Connection(request, times, end),  # type: ignore[misc]
            address.hostname or "",
            address.port or 80,
        )
        for end in ends
    ]
    transports = [transport for transport, _ in await asyncio.gather(*opened)]
    await asyncio.gather(*ends)
    seconds = time.perf_counter() - began
    for transport in transports:
        transport.close()
    return seconds


def answered(server: Server, times: int) -> tuple[float, float]:
    """Requests a second, and the server's microseconds of a processor for each."""
    body = {"name": "n", "url": "http://127.0.0.1:9/", "event_types": ["fine_tuning.job.failed"]}
    made = requests.post(f"{server.url}/v1/webhook_endpoints", json=body, headers=server.headers, timeout=60)
    made.raise_for_status()
    path = f"/v1/webhook_endpoints/{made.json()['id']}"
    uvloop.run(ask(server, path, 5))
    before = processor_seconds(server.pid)
    seconds = uvloop.run(ask(server, path, times))
    count = CONNECTIONS * times
    return count / seconds, (processor_seconds(server.pid) - before) / count * 1e6


def serve_without_database(data_dir: Path) -> int:
    """The server, whose log writes nothing."""

    async def append(_log: EventLog, _records: object) -> None:
        pass

    EventLog.append = append  # type: ignore[assignment, method-assign]
    return modelforge(["serve", "--port", "0", "--data-dir", str(data_dir)])


def options(parser: argparse.ArgumentParser) -> None:
    """What else can be asked for."""
    parser.add_argument("--times", type=int, help="requests of each connection (150)")
    parser.add_argument("--without-database", type=Path, help=argparse.SUPPRESS)


def measure(rounds: Rounds) -> None:
    """Both, each on an empty data directory, in turn."""
    if rounds.options.without_database is not None:
        sys.exit(serve_without_database(rounds.options.without_database))
    times = rounds.options.times or (20 if rounds.quick else 150)

    def durable(folder: Path) -> tuple[float, float]:
        with served(folder, settings=NO_LIMITS) as server:
            return answered(server, times)

    def without_a_database(folder: Path) -> tuple[float, float]:
        command = [sys.executable, __file__, "--without-database", str(folder)]
        with started(folder, command, NO_LIMITS) as server:
            return answered(server, times)

    ours, bare = rounds.interleave(durable, without_a_database)
    rounds.tell(RATE, [rate for rate, _ in ours], [rate for rate, _ in bare])
    rounds.tell(PROCESSOR, [used for _, used in ours], [used for _, used in bare])


PROGRAM = Program(__doc__, measure, RATE, PROCESSOR, options=options)

if __name__ == "__main__":
    PROGRAM.main()
