"""Who keeps the server waiting is let go, and keeps nobody else out."""

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from support.running_server import RECORDS, RunningServer

_LIMITS = {
    "MODELFORGE_HEAD_SECONDS": "1",
    "MODELFORGE_KEEPALIVE_SECONDS": "2",
    "MODELFORGE_STILL_SECONDS": "1.5",
}
_HEAD = b"POST /api/start_training HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_UPLOAD = (
    b"POST /api/upload_dataset HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    b"Content-Length: 100000\r\n\r\n"
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{"input"'
)


@pytest.fixture
def hurried(serve: Callable[..., RunningServer]) -> RunningServer:
    """A server whose patience is short."""
    return serve(**_LIMITS)


def connect(server: RunningServer) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def read_to_end(connection: socket.socket) -> bytes:
    """What the server said until it closed; a test that waits for ever fails by the socket's own limit."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            said += part
    return said


def peer_sockets(server: RunningServer, connection: socket.socket) -> list[str]:
    """The server's own end of a connection, as the kernel lists it: none, once the server has let it go."""
    port = connection.getsockname()[1]
    inodes = {
        fields[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if (fields := line.split())[2].endswith(f":{port:04X}")
    }
    held = {os.path.realpath(entry) for entry in Path(f"/proc/{server.process.pid}/fd").iterdir()}
    return [inode for inode in inodes if any(file.endswith(f"socket:[{inode}]") for file in held)]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),
        (b"GET /api/info HTT", b"408"),
        (b"GET /api/info HTTP/1.1\r\nHost: localhost\r\nX: ", b"408"),
        (_HEAD + b"Content-Length: 100\r\n\r\n", b"408"),
        (_HEAD + b'Content-Length: 100\r\n\r\n{"task": ', b"408"),
        (_HEAD + b'Transfer-Encoding: chunked\r\n\r\n9\r\n{"task": \r\n', b"408"),
        (_UPLOAD, b"408"),
        (b"GET /api/info HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n", b"408"),
    ],
    ids=["nothing", "line", "head", "body", "half-body", "chunk", "upload", "body-of-a-get"],
)
def test_half_a_request_is_not_waited_for(hurried: RunningServer, sent: bytes, status: bytes) -> None:
    with connect(hurried) as connection:
        connection.sendall(sent)
        said = read_to_end(connection)
    assert said[9:12] == status, said
    if status == b"408":
        assert b'"status_code":408' in said
    assert hurried.get("/api/datasets").json() == {"datasets": []}


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(hurried: RunningServer) -> None:
    with connect(hurried) as connection:
        with contextlib.suppress(ConnectionError):
            for byte in b"GET /api/info HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
        with contextlib.suppress(ConnectionError):
            assert b"408" in read_to_end(connection)
            return
    # The answer may be lost with the connection: what counts is that it ended.


def test_an_idle_connection_is_closed_after_a_while_and_not_before(hurried: RunningServer) -> None:
    request = b"GET /api/info HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connect(hurried) as connection:
        for _ in range(3):
            connection.sendall(request)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            time.sleep(0.3)
        assert read_to_end(connection) == b""


def test_an_answer_that_nobody_takes_is_not_waited_for(hurried: RunningServer) -> None:
    record = b'{"input": "%s", "output": "b"}\n' % (b"a" * 900_000)
    assert hurried.upload(record * 40, "large.jsonl").status_code == 200
    with connect(hurried) as connection:
        connection.sendall(b"GET /api/datasets/large.jsonl/download HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        assert peer_sockets(hurried, connection)
        deadline = time.monotonic() + 20
        while peer_sockets(hurried, connection):
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_slow_upload_that_goes_on_is_taken(hurried: RunningServer) -> None:
    def slowly() -> object:
        for start in range(0, len(RECORDS), 200):
            time.sleep(0.5)
            yield RECORDS[start : start + 200]

    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="slow.jsonl"\r\n\r\n'

    def parts() -> object:
        yield body
        yield from slowly()  # type: ignore[misc]
        yield b"\r\n--b--\r\n"

    answer = requests.post(
        f"{hurried.url}/api/upload_dataset",
        data=parts(),  # type: ignore[arg-type]
        headers={"Content-Type": "multipart/form-data; boundary=b"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("sent", [b"", b"GET /api/info HTT", _HEAD + b'Content-Length: 99\r\n\r\n{"task": '])
def test_who_has_too_many_connections_keeps_nobody_out(serve: Callable[..., RunningServer], sent: bytes) -> None:
    server = serve(MODELFORGE_MAX_CONNECTIONS_PER_CLIENT="20")
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(connect(server)) for _ in range(20)]
        for connection in crowd:
            connection.sendall(sent)
        time.sleep(0.3)
        for _ in range(30):
            assert server.get("/api/info").status_code == 200
        gone = select.select(crowd, [], [], 10)[0]
        said = read_to_end(gone[0])
        assert b'"status_code":429' in said
        assert b"Retry-After" in said


def test_there_is_an_end_to_sockets_and_uploads_of_one_client(serve: Callable[..., RunningServer]) -> None:
    server = serve(MODELFORGE_MAX_SOCKETS_PER_CLIENT="2", MODELFORGE_MAX_UPLOADS="4")
    upgrade = (
        b"GET /ws/training HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(connect(server)) for _ in range(3)]
        said = []
        for connection in sockets:
            connection.sendall(upgrade)
            said.append(connection.recv(65536)[9:12])
        assert said == [b"101", b"101", b"429"]
        uploads = [stack.enter_context(connect(server)) for _ in range(2)]
        for connection in uploads:
            connection.sendall(_UPLOAD)
        time.sleep(0.3)
        refused = server.upload(RECORDS)
        assert (refused.status_code, "max_uploads" in refused.text) == (429, True)
        assert int(refused.headers["Retry-After"]) > 0
        for connection in uploads:
            connection.close()
        deadline = time.monotonic() + 20
        while server.upload(RECORDS).status_code == 429:
            assert time.monotonic() < deadline


def test_a_request_has_an_end(serve: Callable[..., RunningServer], start: Callable[..., str]) -> None:
    server = serve(MODELFORGE_REQUEST_SECONDS="4")
    job_id = start(server, "ignores-sigterm", max_steps=100_000)
    answer: list[requests.Response] = []
    server.wait_for(job_id, "training")
    asking = threading.Thread(target=lambda: answer.append(server.post("/api/stop_training")))
    asking.start()
    asking.join(timeout=30)
    assert (answer[0].status_code, "request_seconds" in answer[0].text) == (503, True)
    server.wait_for(job_id, "stopped", "failed")
