"""Uploads that come to no end: whoever broke off, nothing is listed and no file is left."""

import gzip
import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.running_server import RECORDS, RunningServer

pytestmark = pytest.mark.slow

Serve = Callable[..., RunningServer]
EVERY = 64 << 10
CONTENT = RECORDS * (2_500_000 // len(RECORDS))
BEFORE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
BODY = BEFORE + CONTENT + b"\r\n--b--\r\n"
CUTS = [*range(0, len(BODY), EVERY), len(BEFORE) - 1, len(BEFORE), len(BEFORE) + len(CONTENT), len(BODY) - 1]
_PATIENCE_SECONDS = 30.0


def send(server: RunningServer, size: int, *, chunked: bool = False) -> socket.socket:
    """A connection on which an upload was begun, and so many bytes of it sent."""
    address = urlsplit(server.url)
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(BODY)
    head = b"POST /api/upload_dataset HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % length
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    connection.sendall(head + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n")
    part = BODY[:size]
    connection.sendall(b"%x\r\n%s\r\n" % (len(part), part) if chunked and part else part)
    return connection


def reset(connection: socket.socket) -> None:
    """Break off without a word, as a client does that crashes."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hang_up(connection: socket.socket) -> None:
    """Break off as a client does that ends."""
    with connection:
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass


def left_in(data_dir: Path) -> list[str]:
    return [path.name for folder in ("tmp", "trash", "datasets") for path in (data_dir / folder).iterdir()]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("break_off", [reset, hang_up])
def test_an_upload_that_is_cut_off_anywhere_leaves_nothing(
    server: RunningServer, data_dir: Path, break_off: Callable[[socket.socket], None], *, chunked: bool
) -> None:
    for size in CUTS:
        break_off(send(server, size, chunked=chunked))
    until(lambda: left_in(data_dir) == [])
    assert server.get("/api/datasets").json() == {"datasets": []}
    assert server.get("/api/events").json()["last_position"] == 0
    server.upload(RECORDS).raise_for_status()  # and nobody is held up by what broke off
    until(lambda: len(left_in(data_dir)) == 1)
    assert "request_failed" not in server.end()  # a client that goes away is no failure of ours
    assert len(left_in(data_dir)) == 1


@pytest.mark.parametrize("size", [len(BODY) // 2, len(BODY) - 1], ids=["half", "all but its end"])
def test_a_server_that_is_killed_while_it_receives_keeps_nothing(
    server: RunningServer, serve: Serve, data_dir: Path, size: int
) -> None:
    with send(server, size):
        until(lambda: any(path.stat().st_size > 0 for path in (data_dir / "tmp").iterdir()))
        server.end(signal.SIGKILL)
    assert left_in(data_dir) != []
    server = serve()
    assert left_in(data_dir) == []
    assert server.get("/api/datasets").json() == {"datasets": []}
    answer = server.upload(CONTENT, filename="a.jsonl").json()
    assert (answer["revision"], answer["num_examples"]) == (1, CONTENT.count(b"\n"))


@pytest.mark.parametrize("leave", [reset, socket.socket.close], ids=["reset", "close"])
def test_a_check_that_nobody_waits_for_ends(
    server: RunningServer, data_dir: Path, leave: Callable[[socket.socket], None]
) -> None:
    content = gzip.compress(b'{"input": "a", "output": "b"}\n' * 3_000_000, compresslevel=1)
    body = BEFORE.replace(b"a.jsonl", b"a.jsonl.gz") + content + b"\r\n--b--\r\n"
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    head = b"POST /api/upload_dataset HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(body)
    connection.sendall(head + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + body)
    until(lambda: any(path.name.startswith("check-") for path in (data_dir / "tmp").iterdir()))
    leave(connection)
    until(lambda: left_in(data_dir) == [])
    assert server.get("/api/datasets").json() == {"datasets": []}
