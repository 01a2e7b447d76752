"""Readers beside one that is stalled: `python benchmarks/subscribers.py [--readers 1000] [--seconds 8]`.

A server, so many readers of `/api/events/stream` in a process of their own, and ten records a second. What counts is
how long a record takes from its moment in the log to a reader, at the 99th percentile: with a reader that asked for
everything there ever was and takes nothing of it, beside without. Both are measured in turn; the median of the ratios
counts. The memory is the server's.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import re
import statistics
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from figures import Figure, Program, Rounds
from server_process import NO_LIMITS, resident_mib, served

RECORDS_A_SECOND = 10
EARLIER_RECORDS = 3000
_AT = re.compile(rb'"position":(\d+),.*?"at":(\d+)')
DELAY = Figure(
    name="Record to 1,000 readers at p99, beside a stalled one / without it",
    unit="ms",
    yardstick="without it",
    at_most=1.2,
    note="From a record's moment in the log to each of 1,000 readers of `/api/events/stream`, ten records a second; "
    "with a reader that asked for everything there ever was and takes nothing of it, and without.",
)
MISSING = Figure(name="Records that did not reach a reader", unit="records", at_most=0, note="In those measurements.")
HELD = Figure(name="Memory held for the stalled reader", unit="MiB", note="Of the server, above what it had before.")
_LONG_URL = f"http://127.0.0.1:9/{'x' * 1500}"


class Reader(asyncio.Protocol):
    """One stream, read as it comes: how late each record was, in seconds."""

    def __init__(self, request: bytes, delays: list[float]) -> None:
        self._request = request
        self._delays = delays

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        if isinstance(transport, asyncio.WriteTransport):
            transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note each record by its own moment."""
        now = time.time()
        self._delays.extend(now - int(at) / 1e6 for _, at in _AT.findall(data))


def read(url: str, readers: int, after: int, pipe: Connection) -> None:
    """Read until told to end, in a process of its own; what is said then is each delay."""
    asyncio.run(_read(url, readers, after, pipe))


async def _read(url: str, readers: int, after: int, pipe: Connection) -> None:
    address = urlsplit(url)
    place = address.hostname or "", address.port or 80
    request = f"GET /api/events/stream?after={after} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
    delays: list[float] = []
    loop = asyncio.get_running_loop()
    for _ in range(readers):
        await loop.create_connection(lambda: Reader(request, delays), *place)
    await asyncio.sleep(1)
    pipe.send("ready")
    await asyncio.to_thread(pipe.recv)
    await asyncio.sleep(1)
    pipe.send(delays)


async def write(url: str, endpoint: str, key: str, records: int, each_seconds: float) -> None:
    """Append records, so many a second."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
        began = time.monotonic()
        for number in range(records):
            body = {
                "name": f"number {number}",
                "url": _LONG_URL if not each_seconds else f"http://127.0.0.1:9/{number}",
            }
            async with session.post(f"{url}/v1/webhook_endpoints/{endpoint}", json=body) as answer:
                answer.raise_for_status()
            if each_seconds:
                await asyncio.sleep(max(0.0, began + (number + 1) * each_seconds - time.monotonic()))


async def make_endpoint(url: str, key: str) -> str:
    """An endpoint to change, which is a record each time."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
        body = {"name": "n", "url": "http://127.0.0.1:9/", "event_types": ["fine_tuning.job.failed"]}
        async with session.post(f"{url}/v1/webhook_endpoints", json=body) as answer:
            answer.raise_for_status()
            return str((await answer.json())["id"])


async def last_position(url: str) -> int:
    """Where the log ends."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/api/state") as answer:
        return int((await answer.json())["position"])


def p99(url: str, endpoint: str, key: str, readers: int, seconds: float) -> tuple[float, int]:
    """The 99th percentile of what the readers saw, in seconds, and how many records of the log did not reach them."""
    ours, theirs = multiprocessing.Pipe()
    after = asyncio.run(last_position(url))
    process = multiprocessing.get_context("spawn").Process(target=read, args=(url, readers, after, theirs))
    process.start()
    ours.recv()
    asyncio.run(write(url, endpoint, key, int(seconds * RECORDS_A_SECOND), 1 / RECORDS_A_SECOND))
    ours.send("end")
    delays: list[float] = ours.recv()
    process.join()
    written = asyncio.run(last_position(url)) - after
    return statistics.quantiles(delays, n=100)[98], readers * written - len(delays)


@contextlib.contextmanager
def stalled(url: str) -> Iterator[None]:
    """A reader that asks for everything and takes nothing."""
    import socket

    address = urlsplit(url)
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect((address.hostname, address.port))
        one.sendall(f"GET /api/events/stream?after=0 HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
        time.sleep(1)
        yield


def options(parser: argparse.ArgumentParser) -> None:
    """What else can be asked for."""
    parser.add_argument("--readers", type=int, help="how many (1,000)")
    parser.add_argument("--seconds", type=float, help="of each measurement (8)")


def measure(rounds: Rounds) -> None:
    """With the stalled reader and without, in turn, on one server."""
    readers = rounds.options.readers or (100 if rounds.quick else 1000)
    seconds = rounds.options.seconds or (2 if rounds.quick else 8)
    with served(rounds.folder(), settings=NO_LIMITS) as server:
        url, key = server.url, server.key
        endpoint = asyncio.run(make_endpoint(url, key))
        asyncio.run(write(url, endpoint, key, EARLIER_RECORDS // (10 if rounds.quick else 1), 0))
        p99(url, endpoint, key, readers, 2)  # warm
        missing = []
        idle = resident_mib(server.pid)
        most = []

        def beside_a_stalled_one(_folder: Path) -> float:
            with stalled(url):
                delay, lost = p99(url, endpoint, key, readers, seconds)
                most.append(resident_mib(server.pid) - idle)
            missing.append(lost)
            return delay * 1000

        def alone(_folder: Path) -> float:
            delay, lost = p99(url, endpoint, key, readers, seconds)
            missing.append(lost)
            return delay * 1000

        rounds.compare(DELAY, beside_a_stalled_one, alone)
        rounds.tell(MISSING, missing)
        rounds.tell(HELD, most)


PROGRAM = Program(__doc__, measure, DELAY, MISSING, HELD, options=options)

if __name__ == "__main__":
    PROGRAM.main()
