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


def frame(first: int, payload: bytes, *, size: int | None = None) -> bytes:
    """A frame of a client; `first` has its bits and its opcode, `size` what it says of its length."""
    length = len(payload) if size is None else size
    head = struct.pack("!BB", first, 0x80 | length) if length < 126 else struct.pack("!BBQ", first, 0xFF, length)
    return head + b"\0\0\0\0" + payload  # masked with zeros


def close_code(server: RunningServer, path: str, sent: bytes) -> int | None:
    """The code with which the server closes after some bytes; None if it closes without one."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            b"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % path.encode()
        )
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(1 << 16)
        connection.sendall(sent)
        received = received.partition(b"\r\n\r\n")[2]
        while chunk := connection.recv(1 << 16):
            received += chunk
    if not received:
        return None
    assert received[0] == 0x88, received
    (code,) = struct.unpack("!H", received[2:4])
    return int(code)


BROKEN_FRAMES = {
    "a reserved bit": (frame(0xC1, b"a"), 1002),
    "another reserved bit": (frame(0x91, b"a"), 1002),
    "an opcode that is none": (frame(0x83, b"a"), 1002),
    "a control opcode that is none": (frame(0x8B, b"a"), 1002),
    "a ping in fragments": (frame(0x09, b"a"), 1002),
    "a ping of 126 bytes": (frame(0x89, b"a" * 126), 1002),
    "a continuation of nothing": (frame(0x80, b"a"), 1002),
    "a text within a text": (frame(0x01, b"a") + frame(0x81, b"b"), 1002),
    "no UTF-8": (frame(0x81, b"\xff"), 1007),
    "no UTF-8 over two fragments": (frame(0x01, b"\xce") + frame(0x80, b"\xff"), 1007),
    "a close with half a code": (frame(0x88, b"\x03"), 1002),
    "a close with a code that is none": (frame(0x88, struct.pack("!H", 1005)), 1002),
    "a close with no UTF-8": (frame(0x88, struct.pack("!H", 1000) + b"\xff"), 1007),
    "a message that is too long": (frame(0x82, b"a" * 5000), 1009),
    "a length without end": (frame(0x82, b"", size=2**62), 1009),
    "fragments without end": (frame(0x02, b"a" * 4000) + frame(0x00, b"a" * 4000) * 3, 1009),
    "a close as it should be": (frame(0x88, struct.pack("!H", 1000)), 1000),
    "a close without a code": (frame(0x88, b""), None),
}


@pytest.mark.parametrize("path", ["/ws/training?after=0", "/ws/datasets"])
@pytest.mark.parametrize(("sent", "code"), BROKEN_FRAMES.values(), ids=BROKEN_FRAMES)
def test_a_broken_frame_ends_the_connection_with_the_code_that_says_why(
    module_server: RunningServer, path: str, sent: bytes, code: int | None
) -> None:
    assert close_code(module_server, path, sent) in ({code} if code else {None, 1000})


@pytest.mark.parametrize("path", ["/ws/training?after=0", "/ws/datasets"])
def test_what_a_client_says_changes_nothing_and_pings_are_answered(module_server: RunningServer, path: str) -> None:
    async def talk() -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(module_server.url + path) as ws:
            await ws.send_str("x" * 4000)
            await ws.send_bytes(b"\xff" * 4000)
            await ws.ping(b"are you there")
            await ws.close()
            assert ws.close_code == 1000

    asyncio.run(talk())
    assert module_server.get("/api/events").json()["last_position"] == 0
