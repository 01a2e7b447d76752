"""What a message to a thousand WebSockets costs: `python benchmarks/fanout.py [--quick] [--subscribers 1000]`.

Beside a server that knows nothing but the protocol: frames made beforehand, written to each connection. The subscribers
are a process of their own, and count bytes; what counts is the processor time of the server, a message to one of them.
"""

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, cast
from urllib.parse import urlsplit

import uvloop
from aiohttp import web
from figures import Figure, Program, Rounds
from growth_reads import of_job
from msgspec import Raw, Struct
from server_process import processor_seconds

from modelforge.app import make_app
from modelforge.domain.messages import GENESIS, Command, Record, encode, stream_of, tag_of
from modelforge.http.plumbing.frames import status_frame
from modelforge.http.plumbing.keys import PROJECTOR
from modelforge.http.plumbing.listening import allow_open_files
from modelforge.http.plumbing.protocol import JsonRunner
from modelforge.projections.status_messages import status_message
from modelforge.settings import Settings

SUBSCRIBERS, MESSAGES, MESSAGES_QUICKLY = 1000, 200, 100
_EACH_SECONDS = 0.002
_FILES = 20_000
_HANDSHAKE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
FIGURE = Figure(
    name="Fan-out to 1,000 / the raw protocol",
    unit="messages a CPU second",
    yardstick="raw protocol",
    at_least=0.85,
    note="Statuses of a job that trains, one a record, to all WebSockets at `/ws/training`: messages in a second of "
    "the server's CPU time, folding and encoding included; beside bytes of the same length that are only written.",
)


def records() -> Iterator[Record]:
    """A job that trains for ever."""
    for position, message in enumerate(of_job("train_000001", 2, 1_000_000), 1):
        yield Record(
            position=position,
            stream=stream_of(message),
            version=position,
            kind="command" if isinstance(message, Command) else "event",
            type=tag_of(message),
            at=position,
            cause=None,
            actor="api",
            data=Raw(encode(message)),
            digest=GENESIS,
            message=message,
        )


class Told(Struct):
    """What a server is told of by its standard input: how many messages to send."""

    send: Callable[[], int]

    async def obey(self) -> None:
        """Send as many as each line says, and say how many bytes one was when they are sent."""
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            size = 0
            for _ in range(int(line)):
                size = self.send()
                await asyncio.sleep(_EACH_SECONDS)
            print(size, flush=True)


async def serve_ours() -> None:
    """The server, whose records come from here and not from a log."""
    with tempfile.TemporaryDirectory() as folder:
        limits = {"max_sockets_per_client": _FILES, "max_connections": _FILES, "max_connections_per_client": _FILES}
        settings = Settings(data_dir=Path(folder), cold=True, **limits)  # type: ignore[arg-type]
        app = make_app(settings)
        runner = JsonRunner(app, settings)
        await runner.setup()

        await web.TCPSite(runner, "127.0.0.1", 0).start()
        projector, coming = app[PROJECTOR], records()
        projector.take([next(coming) for _ in range(4)])
        projector.take([first := next(coming)])
        size = len(status_frame(first, status_message(projector.read_models, first)) or b"")

        def send() -> int:
            projector.take([next(coming)])
            return size

        print(f"ours listens on http://127.0.0.1:{runner.addresses[0][1]} ", flush=True)
        await Told(send).obey()
        await runner.cleanup()


class Raws(asyncio.Protocol):
    """A connection that is only written to."""

    everybody: ClassVar[set[asyncio.WriteTransport]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answer the handshake, whatever it says."""
        one = cast("asyncio.WriteTransport", transport)
        one.write(_HANDSHAKE)
        self.everybody.add(one)


async def serve_raw(size: int) -> None:
    """A server of the protocol alone."""
    server = await asyncio.get_running_loop().create_server(Raws, "127.0.0.1", 0)
    frame = b"\x81\x7e" + (size - 4).to_bytes(2, "big") + b"x" * (size - 4)

    def send() -> int:
        for transport in Raws.everybody:
            transport.write(frame)
        return size

    print(f"raw listens on http://127.0.0.1:{server.sockets[0].getsockname()[1]} ", flush=True)
    await Told(send).obey()


class Subscriber(asyncio.Protocol):
    """Takes everything."""

    def __init__(self, request: bytes, opened: "asyncio.Future[None]") -> None:
        self._request = request
        self._opened = opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the messages."""
        cast("asyncio.WriteTransport", transport).write(self._request)  # uvloop's are none by their class

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - what comes is only taken
        """Note that it is open."""
        if not self._opened.done():
            self._opened.set_result(None)


async def subscribe(url: str, subscribers: int) -> None:
    """Open so many WebSockets, say so, and take what comes until the standard input ends."""
    address, loop = urlsplit(url), asyncio.get_running_loop()
    key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    request = (
        f"GET /ws/training HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}"
    )
    for _ in range(subscribers):
        opened: asyncio.Future[None] = loop.create_future()
        bound = Subscriber(f"{request}\r\n\r\n".encode(), opened)
        await loop.create_connection(lambda one=bound: one, address.hostname or "", address.port or 80)  # type: ignore[misc]
        await opened
    print("open", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)


@contextlib.contextmanager
def process(*arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """This program in another of its parts, until the block ends."""
    command = [sys.executable, __file__, "--part", *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as part:
        try:
            yield part
        finally:
            part.kill()


def said(part: "subprocess.Popen[str]", told: object = None) -> str:
    """What a part says, once it was told something."""
    if part.stdin is None or part.stdout is None:
        raise RuntimeError("a part without pipes")
    if told is not None:
        part.stdin.write(f"{told}\n")
        part.stdin.flush()
    return part.stdout.readline()


def measure(rounds: Rounds) -> None:
    """Both in turn, each with its subscribers."""
    messages = MESSAGES_QUICKLY if rounds.quick else MESSAGES
    subscribers: int = rounds.options.subscribers
    allow_open_files(_FILES)

    def rate(server: "subprocess.Popen[str]") -> float:
        began = processor_seconds(server.pid)
        said(server, messages)
        return messages * subscribers / (processor_seconds(server.pid) - began)

    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(process("ours"))
        first = stack.enter_context(process("subscribe", _address(said(ours)), subscribers))
        said(first)
        size = int(said(ours, 5))
        raw = stack.enter_context(process("raw", size))
        second = stack.enter_context(process("subscribe", _address(said(raw)), subscribers))
        said(second)
        said(raw, 5)

        def modelforge(_folder: Path) -> float:
            return rate(ours)

        def raw_protocol(_folder: Path) -> float:
            return rate(raw)

        rounds.compare(FIGURE, modelforge, raw_protocol, rounds=max(9, rounds.count), warm=True)


def _address(line: str) -> str:
    return line.split(" listens on ")[1].strip()


def add_options(parser: argparse.ArgumentParser) -> None:
    """How many there are."""
    parser.add_argument("--subscribers", type=int, default=SUBSCRIBERS)


PROGRAM = Program(__doc__, measure, FIGURE, options=add_options)

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--part", "ours"]:
            allow_open_files(_FILES)
            uvloop.run(serve_ours())
        case ["--part", "raw", size]:
            allow_open_files(_FILES)
            uvloop.run(serve_raw(int(size)))
        case ["--part", "subscribe", url, subscribers]:
            allow_open_files(_FILES)
            uvloop.run(subscribe(url, int(subscribers)))
        case _:
            PROGRAM.main()
