"""A subscriber misses nothing and hears nothing twice, wherever it begins and however slow it is."""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable
from itertools import pairwise

import aiohttp
import pytest
from support.running_server import RunningServer

Start = Callable[..., str]
Serve = Callable[..., RunningServer]


def listen(url: str, after: int | None, *, until: str = "completed") -> list[dict[str, object]]:
    """Every message from a position to the end of a job."""

    async def collect() -> list[dict[str, object]]:
        query = "" if after is None else f"?after={after}"
        messages: list[dict[str, object]] = []
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{url}/ws/training{query}", timeout=aiohttp.ClientWSTimeout(ws_close=5)) as ws,
        ):
            async with asyncio.timeout(60):
                async for message in ws:
                    messages.append(json.loads(message.data))
                    if messages[-1]["status"] == until:
                        break
        return messages

    return asyncio.run(collect())


def events_of(server: RunningServer, after: int = 0) -> list[int]:
    """The positions of a job's events, as the log has them."""
    events = server.get(f"/api/events?limit=10000&after={after}").json()["events"]
    return [event["position"] for event in events if event["kind"] == "event" and event["stream"].startswith("train_")]


def test_a_subscriber_hears_every_event_once_and_in_order(server: RunningServer, start: Start) -> None:
    job_id = start(server, "waits", max_steps=60)
    messages = listen(server.url, 0)
    assert [message["position"] for message in messages] == events_of(server)[: len(messages)]
    assert messages[0]["type"] == "TrainingRequested"
    assert {message["job_id"] for message in messages} == {job_id}
    fields = set(server.get("/api/training_status").json())
    assert all(set(message) == fields | {"position", "type", "at"} for message in messages)


def test_each_position_leads_to_the_same_rest(server: RunningServer, start: Start) -> None:
    server.wait_for(start(server, "completes"))
    whole = listen(server.url, 0)
    for index in range(len(whole) - 1):
        position = whole[index]["position"]
        assert isinstance(position, int)
        assert listen(server.url, position) == whole[index + 1 :]


def test_without_a_position_there_is_a_snapshot_and_then_what_comes(server: RunningServer, start: Start) -> None:
    heard: list[list[dict[str, object]]] = []
    listener = threading.Thread(target=lambda: heard.append(listen(server.url, None)))
    start(server, "waits", max_steps=100)
    listener.start()
    listener.join(60)
    snapshot, *rest = heard[0]
    assert snapshot["type"] == "Snapshot"
    assert isinstance(snapshot["position"], int)
    expected = events_of(server, snapshot["position"])
    assert [message["position"] for message in rest] == expected[: len(rest)]
    assert rest[-1]["status"] == "completed"


def test_an_idle_server_says_so_first(server: RunningServer) -> None:
    (snapshot,) = listen(server.url, None, until="idle")
    assert snapshot["status"] == "idle"
    assert snapshot["progress"] == 0.0


@pytest.mark.slow
def test_a_server_that_is_replaced_costs_a_subscriber_nothing(serve: Serve, start: Start) -> None:
    server = serve()
    start(server, "waits", max_steps=300)
    first = listen(server.url, 0, until="training")
    server.process.kill()
    server.end()
    server = serve()
    position = first[-1]["position"]
    assert isinstance(position, int)
    rest = listen(server.url, position)
    heard = [message["position"] for message in first + rest]
    assert heard == events_of(server)[: len(heard)]
    assert all(a["current_step"] <= b["current_step"] for a, b in pairwise(rest))  # type: ignore[operator]


@pytest.mark.slow
def test_who_does_not_read_holds_nobody_up_and_misses_nothing(server: RunningServer, start: Start) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(30)
        slow.connect((host, int(port)))
        slow.sendall(
            b"GET /ws/training?after=0 HTTP/1.1\r\nHost: %s:%s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            % (host.encode(), port.encode())
        )
        server.wait_for(start(server, "chatty"))
        assert len(listen(server.url, 0)) > 10_000  # another one is served meanwhile
        expected = events_of(server) + events_of(server, 10_000)
        received = bytearray()
        while b"\r\n\r\n" not in received:
            received += slow.recv(4096)
        del received[: received.index(b"\r\n\r\n") + 4]
        positions: list[int] = []
        while len(positions) < len(expected):
            while (frame := whole_frame(received)) is None:
                received += slow.recv(4096)
            positions.append(json.loads(frame)["position"])
    assert positions == expected


def whole_frame(buffer: bytearray) -> bytes | None:
    """Take one text frame off the front, once it is there."""
    if len(buffer) < 4:
        return None
    size, start = buffer[1], 2
    if size == 126:
        (size,), start = struct.unpack("!H", buffer[2:4]), 4
    if len(buffer) < start + size:
        return None
    payload = bytes(buffer[start : start + size])
    del buffer[: start + size]
    return payload


def test_a_position_that_is_not_there_yet_is_refused(server: RunningServer) -> None:
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    answer = server.get("/ws/training?after=99", headers=headers)
    assert (answer.status_code, answer.json()["field"]) == (400, "after")
