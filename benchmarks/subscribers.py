"""Readers beside one that is stalled: `python benchmarks/subscribers.py [--readers 1000] [--seconds 10]`.

A server, so many readers of `/api/events/stream` in a process of their own, and ten records a second. What counts is
how long a record takes from its moment in the log to a reader, at the 99th percentile: with a reader that asked for
everything there ever was and takes nothing of it, beside without. Both are measured in turn; the median of the ratios
counts. The memory is the server's.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

ROUNDS = 3
RECORDS_A_SECOND = 10
EARLIER_RECORDS = 3000
MOST_RATIO = 1.2
_AT = re.compile(rb'"position":(\d+),.*?"at":(\d+)')
_LONG_URL = f"http://127.0.0.1:9/{'x' * 1500}"


@contextlib.contextmanager
def server(data_dir: Path) -> Iterator[tuple[int, str]]:
    """A server that lets one client have as many streams as it likes: its process and its address."""
    limits = {"MAX_SOCKETS_PER_CLIENT": "20000", "MAX_CONNECTIONS": "20000", "MAX_CONNECTIONS_PER_CLIENT": "20000"}
    limits |= {"MAX_REQUESTS_PER_MINUTE": "1000000", "STILL_SECONDS": "600"}
    process = subprocess.Popen(
        [sys.executable, "-m", "modelforge", "serve", "--port", "0", "--data-dir", str(data_dir)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **{f"MODELFORGE_{name}": value for name, value in limits.items()}},
    )
    try:
        line = "" if process.stdout is None else process.stdout.readline()
        yield process.pid, line.split(" listens on ")[1].split()[0]
    finally:
        process.terminate()
        process.wait()


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
    request = f"GET /api/events/stream?after={after} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
    delays: list[float] = []
    loop = asyncio.get_running_loop()
    for _ in range(readers):
        await loop.create_connection(lambda: Reader(request, delays), address.hostname, address.port)
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


def resident_mib(pid: int) -> float:
    """The memory of a process."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return 0.0 if found is None else int(found[1]) / 1024


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


def main() -> int:
    """Measure, and say whether it holds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--readers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10)
    asked = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "data") as (pid, url):
        key = (Path(folder) / "data" / "owner.key").read_text().strip()
        endpoint = asyncio.run(make_endpoint(url, key))
        asyncio.run(write(url, endpoint, key, EARLIER_RECORDS, 0))
        p99(url, endpoint, key, asked.readers, 2)  # warm
        for number in range(ROUNDS):
            before = resident_mib(pid)
            alone, missing = p99(url, endpoint, key, asked.readers, asked.seconds)
            with stalled(url):
                beside, missing_beside = p99(url, endpoint, key, asked.readers, asked.seconds)
                held = resident_mib(pid)
            ratios.append(beside / alone)
            print(
                json.dumps(
                    {
                        "round": number + 1,
                        "p99_ms": round(alone * 1000, 2),
                        "p99_beside_ms": round(beside * 1000, 2),
                        "ratio": round(beside / alone, 2),
                        "missing": missing + missing_beside,
                        "server_mib": [round(before), round(held)],
                    }
                )
            )
    ratio = statistics.median(ratios)
    print(f"median ratio {ratio:.2f}, at most {MOST_RATIO} is aimed at")
    return 0 if ratio <= MOST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
