"""Who follows the log misses nothing and hears nothing twice, by WebSocket and by server-sent events alike."""

import asyncio
import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import msgspec
import pytest
import requests
from aiohttp import web
from support.attempt_files import model_in, training
from support.followers import Heard, Told, events_in, follow_events, follow_socket, page_of
from support.running_server import RECORDS, RunningServer
from torture.streams import events_of_jobs, follow_restarts, position_of, records_of

from modelforge.app import make_app
from modelforge.http.plumbing import subscribers
from modelforge.http.plumbing.protocol import JsonRunner
from modelforge.settings import load_settings

Start = Callable[..., str]
Serve = Callable[..., RunningServer]
STREAM = "/api/events/stream"
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture(scope="module")
def followed(module_server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunningServer, list[str]]:
    """A server with two jobs that have come to their end."""
    module_server.upload(RECORDS).raise_for_status()
    folder = model_in(tmp_path_factory.mktemp("model"))
    jobs = []
    for _ in range(2):
        jobs.append(module_server.post("/api/start_training", training(folder, "completes")).json()["job_id"])
        module_server.wait_for(jobs[-1])
    return module_server, jobs


def stream(server: RunningServer, query: str = "", *, last: int, shown: str | None = None) -> list[dict[str, bytes]]:
    """The events of a stream that have data, up to a position."""

    async def read() -> list[dict[str, bytes]]:
        headers = {} if shown is None else {"Last-Event-ID": shown}
        events: list[dict[str, bytes]] = []
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{server.url}{STREAM}{query}") as answer,
        ):
            assert answer.status == 200, await answer.text()
            async for event in events_in(answer.content.iter_any()):
                if "data" in event:
                    events.append(event)
                    if int(event["id"]) >= last:
                        return events
        return events

    return asyncio.run(asyncio.wait_for(read(), 60))


@pytest.mark.slow
def test_a_server_that_is_restarted_over_and_over_costs_no_follower_a_byte(serve: Serve, start: Start) -> None:
    server = serve()
    job_id = start(server, "waits", max_steps=1_000_000)
    by_events, by_socket, records = asyncio.run(follow_restarts(server, 4, job_id))
    assert by_events.records[: len(records)] == records
    assert by_socket.records == events_of_jobs(records)
    assert len(records) > 10
    assert by_events.connections >= 5
    assert by_socket.connections >= 5
    assert [json.loads(word)["reason"] for word in by_events.words] == ["The server stops; come back."] * 2
    assert by_socket.words.count(b"1001") == 2


def test_each_event_is_its_record_and_its_id_the_position(followed: tuple[RunningServer, list[str]]) -> None:
    server, _ = followed
    records = records_of(server)
    events = stream(server, last=len(records))
    assert [event["data"] for event in events] == records
    assert [int(event["id"]) for event in events] == [position_of(record) for record in records]
    assert all(set(event) == {"id", "data"} for event in events)


def test_a_header_with_the_last_id_counts_before_the_address_that_a_client_began_with(
    followed: tuple[RunningServer, list[str]],
) -> None:
    server, _ = followed
    records = records_of(server)
    for after, shown, first in ((3, None, 4), (3, "9", 10), (9, "3", 4), (None, "0", 1), (None, "5", 6)):
        query = "" if after is None else f"?after={after}"
        events = stream(server, query, last=len(records), shown=shown)
        assert [event["data"] for event in events] == records[first - 1 :]


def test_one_job_alone_is_what_its_stream_in_the_log_is(followed: tuple[RunningServer, list[str]]) -> None:
    server, jobs = followed
    for job_id in jobs:
        records = page_of(server.get(f"/api/events?limit=10000&stream={job_id}").content)
        events = stream(server, f"?job_id={job_id}", last=position_of(records[-1]))
        assert [event["data"] for event in events] == records
        middle = position_of(records[len(records) // 2])
        rest = stream(server, f"?job_id={job_id}&after={middle}", last=position_of(records[-1]))
        assert [event["data"] for event in rest] == records[len(records) // 2 + 1 :]


def test_a_websocket_of_one_job_has_its_snapshot_and_its_records(followed: tuple[RunningServer, list[str]]) -> None:
    server, jobs = followed

    async def listen(query: str, count: int) -> list[str]:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/ws/training{query}") as ws:
            return [str((await ws.receive(timeout=30)).data) for _ in range(count)]

    for job_id in jobs:
        (snapshot,) = [json.loads(text) for text in asyncio.run(listen(f"?job_id={job_id}", 1))]
        assert (snapshot["type"], snapshot["job_id"], snapshot["status"]) == ("Snapshot", job_id, "completed")
        assert "record" not in snapshot
        events = events_of_jobs(page_of(server.get(f"/api/events?limit=10000&stream={job_id}").content))
        plain = asyncio.run(listen(f"?job_id={job_id}&after=0", len(events)))
        told = asyncio.run(listen(f"?job_id={job_id}&after=0&records=true", len(events)))
        assert [json.loads(text)["position"] for text in plain] == [position_of(record) for record in events]
        assert told == [f'{text[:-1]},"record":{record.decode()}}}' for text, record in zip(plain, events, strict=True)]


@pytest.mark.slow
def test_who_comes_while_a_job_runs_hears_of_it_alone_and_of_all_of_it(server: RunningServer, start: Start) -> None:
    first = start(server, "completes")
    server.wait_for(first)
    job_id = start(server, "waits", max_steps=60)
    heard = Heard()

    async def follow() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{server.url}{STREAM}?job_id={job_id}") as answer,
        ):
            async for event in events_in(answer.content.iter_any()):
                if "data" in event:
                    heard.records.append(event["data"])
                    if json.loads(event["data"])["type"] == "TrainingCompleted":
                        return

    asyncio.run(asyncio.wait_for(follow(), 60))
    records = page_of(server.get(f"/api/events?limit=10000&stream={job_id}").content)
    assert heard.records == records[: len(heard.records)]
    assert len(heard.records) > 20


REFUSED = {
    "a position to come": (f"{STREAM}?after=9999", {}, 400, "after"),
    "no position": (f"{STREAM}?after=-1", {}, 400, "after"),
    "an id to come": (STREAM, {"Last-Event-ID": "9999"}, 400, "Last-Event-ID"),
    "an id that is none": (f"{STREAM}?after=0", {"Last-Event-ID": "x"}, 400, "Last-Event-ID"),
    "an id without a digit": (STREAM, {"Last-Event-ID": ""}, 400, "Last-Event-ID"),
    "a job that is none": (f"{STREAM}?job_id=train_999999", {}, 404, None),
    "the id of no job": (f"{STREAM}?job_id=model_1", {}, 400, "job_id"),
    "another stream": (f"{STREAM}?stream=train_000003", {}, 400, "stream"),
    "a position to come, by WebSocket": ("/ws/training?after=9999", UPGRADE, 400, "after"),
    "a job that is none, by WebSocket": ("/ws/training?job_id=train_999999", UPGRADE, 404, None),
    "the id of no job, by WebSocket": ("/ws/training?job_id=../x", UPGRADE, 400, "job_id"),
    "neither yes nor no": ("/ws/training?records=1", UPGRADE, 400, "records"),
}


@pytest.mark.parametrize(("path", "headers", "status", "field"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_followed_is_refused_by_its_name(
    module_server: RunningServer, path: str, headers: dict[str, str], status: int, field: str | None
) -> None:
    answer = module_server.get(path, headers=headers)
    assert (answer.status_code, answer.json().get("field")) == (status, field)
    assert answer.headers["Content-Type"] == "application/json"


def test_a_stream_is_kept_nowhere_and_held_back_by_no_proxy(module_server: RunningServer) -> None:
    with module_server.get(STREAM, stream=True) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Content-Encoding" not in answer.headers
        assert next(answer.iter_lines()) == b"retry: 1000"


def test_http_1_0_has_no_chunks_and_the_same_events(followed: tuple[RunningServer, list[str]]) -> None:
    server, _ = followed
    records = records_of(server)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n" % STREAM.encode())
        wanted = b"".join(b"id: %d\ndata: %s\n\n" % (number, record) for number, record in enumerate(records, 1))
        received = b""
        while len(received.partition(b"\r\n\r\n")[2]) < len(b"retry: 1000\n\n" + wanted):
            received += connection.recv(1 << 16)
    assert received.partition(b"\r\n\r\n")[2] == b"retry: 1000\n\n" + wanted


def test_websockets_and_streams_of_one_client_are_counted_together(serve: Serve) -> None:
    server = serve(MODELFORGE_MAX_SOCKETS_PER_CLIENT="2")

    async def ask() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{server.url}/ws/training"),
            session.get(server.url + STREAM) as answer,
        ):
            assert answer.status == 200
            refused = await session.get(server.url + STREAM)
            assert (refused.status, "max_sockets_per_client" in await refused.text()) == (429, True)

    asyncio.run(ask())
    deadline = time.monotonic() + 20
    while requests.get(server.url + STREAM, timeout=20, stream=True).status_code == 429:  # the place is free again
        assert time.monotonic() < deadline


def test_who_asks_without_a_token_loses_the_stream_once_there_is_one(server: RunningServer) -> None:
    with server.get(STREAM, stream=True) as answer:
        lines = answer.iter_lines()
        assert next(lines) == b"retry: 1000"
        body = {"name": "me", "scope": "admin"}
        made = requests.post(f"{server.url}/api/tokens", json=body, headers=server.as_owner(), timeout=30)
        assert made.status_code == 200, made.text
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            collect(lines)
    assert server.get(STREAM).status_code == 401
    server.shown = {"Authorization": f"Bearer {made.json()['token']}"}
    with server.get(STREAM, stream=True) as answer:
        assert answer.status_code == 200


def collect(lines: object) -> list[bytes]:
    return [*lines]  # type: ignore[misc]


@contextlib.asynccontextmanager
async def here(folder: Path) -> AsyncIterator[str]:
    """A server in this process, whose times can be changed; its address."""
    settings = load_settings({"data_dir": folder / "data", "port": 0}, environ={}, folder=folder)
    runner = JsonRunner(make_app(settings), settings)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_stream_in_which_nothing_happens_has_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscribers, "_COMMENT_SECONDS", 0.05)
    async with here(tmp_path) as url, aiohttp.ClientSession() as session, session.get(url + STREAM) as answer:
        async for line in answer.content:
            if line == b":\n":
                break
        assert [await answer.content.readline() for _ in range(4)] == [b"\n", b":\n", b"\n", b":\n"]


class Stalled:
    """A client that reads nothing until it is told to."""

    def __init__(self, server: RunningServer, path: str, headers: dict[str, str]) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(30)
        self.socket.connect((host, int(port)))
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}:{port}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self.socket.sendall("\r\n".join((*lines, "", "")).encode())

    def read_to_end(self) -> bytes:
        """All that came, without the head of the answer."""
        received = bytearray()
        with self.socket:
            while part := self.socket.recv(1 << 16):
                received += part
        return bytes(received).partition(b"\r\n\r\n")[2]


def dismissals(server: RunningServer) -> int:
    """How many followers the server's log says were too slow."""
    return os.pread(server._stderr.fileno(), 1 << 20, 0).count(b"subscriber_too_slow")  # noqa: SLF001


def bodies_of_frames(received: bytes) -> tuple[list[bytes], bytes]:
    """The texts of frames, and the body of the one that closes."""
    texts: list[bytes] = []
    while True:
        size, start = received[1], 2
        if size == 126:
            (size,), start = struct.unpack("!H", received[2:4]), 4
        body = received[start : start + size]
        if received[0] == 0x88:
            return texts, body
        if received[0] == 0x81:
            texts.append(body)
        received = received[start + size :]


def body_of_chunks(received: bytes) -> bytes:
    """The body in chunks, which has to have an end."""
    body = b""
    while True:
        line, _, received = received.partition(b"\r\n")
        size = int(line, 16)
        if not size:
            assert received == b"\r\n"
            return body
        body += received[:size]
        received = received[size + 2 :]


@pytest.mark.slow
def test_who_reads_nothing_is_told_so_and_comes_back_while_another_gets_everything(serve: Serve, start: Start) -> None:
    server = serve(MODELFORGE_STILL_SECONDS="2")
    by_events = Stalled(server, STREAM, {})
    by_socket = Stalled(server, "/ws/training?records=true&after=0", UPGRADE)
    server.wait_for(start(server, "chatty"))
    records = records_of(server)
    events_alone = events_of_jobs(records)
    last, last_alone = position_of(records[-1]), position_of(events_alone[-1])
    others = Heard(), Heard()

    async def follow_others() -> None:
        await asyncio.gather(
            follow_events(lambda: server.url, others[0], lambda heard: heard.position >= last),
            follow_socket(lambda: server.url, others[1], lambda heard: heard.position >= last_alone),
        )

    asyncio.run(asyncio.wait_for(follow_others(), 60))
    assert (others[0].records[: len(records)], others[0].connections) == (records, 1)
    assert (others[1].records, others[1].connections) == (events_alone, 1)
    deadline = time.monotonic() + 30
    while dismissals(server) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    body = body_of_chunks(by_events.read_to_end())
    *events, goodbye, rest = body.split(b"\n\n")
    assert goodbye.startswith(b'event: goodbye\ndata: {"reason":"Too slow')
    assert rest == b""
    got = [event.partition(b"data: ")[2] for event in events if event.startswith(b"id: ")]
    assert got == records[: len(got)]
    assert 0 < len(got) < len(records)
    back = stream(server, last=last, shown=str(position_of(got[-1])))
    assert got + [event["data"] for event in back] == records
    texts, closing = bodies_of_frames(by_socket.read_to_end())
    assert closing[:2] == struct.pack("!H", 1013)
    assert closing[2:].startswith(b"Too slow")
    told = [bytes(told.record) for told in map(read_told, texts)]  # type: ignore[arg-type]
    assert told == events_alone[: len(told)]
    assert 0 < len(told) < len(events_alone)


def read_told(text: bytes) -> Told:
    return msgspec.json.decode(text, type=Told)
