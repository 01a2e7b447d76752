"""Bytes that are no request, or two at once: an answer of the one shape, or a closed connection, and a silent log."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from support.running_server import RECORDS, RunningServer, scripted_server

from modelforge.http.plumbing.route import Route
from modelforge.http.routes import ROUTES

GET = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /api/preflight HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SECOND = b"GET /api/info HTTP/1.1\r\nHost: localhost\r\n\r\n"
UPGRADE = b"GET /ws/training HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that has logged no error, and no stack, when all is over."""
    server = scripted_server(tmp_path_factory.mktemp("malformed") / "data")
    yield server
    words = server.end()
    assert '"level":"error"' not in words, words
    assert "Traceback" not in words, words


def exchange(server: RunningServer, sent: bytes) -> tuple[list[int], bytes, bool]:
    """The statuses and the bytes that come back, and whether the connection is closed then."""
    host, port = server.url.removeprefix("http://").split(":")
    received, closed = b"", True
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(sent)
        try:
            while chunk := connection.recv(1 << 16):
                received += chunk
                connection.settimeout(0.2)  # what else comes is there already
        except TimeoutError:
            closed = False
        except ConnectionResetError:
            pass
    return [int(status) for status in re.findall(rb"HTTP/\d\.\d (\d+) ", received)], received, closed


SMUGGLED = {
    "a length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SECOND,
    "chunks and a length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SECOND,
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} " + SECOND,
    "the same length twice": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}" + SECOND,
    "a list of lengths": POST + b"Content-Length: 2, 2\r\n\r\n{}" + SECOND,
    "a length with a sign": POST + b"Content-Length: +2\r\n\r\n{}" + SECOND,
    "a negative length": POST + b"Content-Length: -2\r\n\r\n{}" + SECOND,
    "a length in base 16": POST + b"Content-Length: 0x2\r\n\r\n{}" + SECOND,
    "a length without end": POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n{}" + SECOND,
    "a space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SECOND,
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SECOND,
    "two codings": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SECOND,
    "a coding in an old fold": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + SECOND,
    "a chunk without end": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 20 + b"\r\n{}" + SECOND,
    "a negative chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{}" + SECOND,
    "a host behind the chunks": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nHost: elsewhere\r\n\r\n" + SECOND,
    "a line feed in an extension": POST + b'Transfer-Encoding: chunked\r\n\r\n2;a="\n"\r\n{}\r\n0\r\n\r\n' + SECOND,
    "a chunk that goes on": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}}}\r\n0\r\n\r\n" + SECOND,
    "bare line feeds": GET.replace(b"\r\n", b"\n") + b"\n" + SECOND,
    "a bare carriage return": GET + b"X-A: a\rb\r\n\r\n" + SECOND,
    "a fold": GET + b"X-A: a\r\n b\r\n\r\n" + SECOND,
    "two hosts": GET + b"Host: elsewhere\r\n\r\n" + SECOND,
    "no host": b"GET /api/health HTTP/1.1\r\n\r\n" + SECOND,
}


@pytest.mark.parametrize("sent", SMUGGLED.values(), ids=SMUGGLED)
def test_what_two_readers_could_read_as_different_requests_is_refused_as_one(
    server: RunningServer, sent: bytes
) -> None:
    statuses, received, closed = exchange(server, sent)
    assert (statuses, closed) == ([400], True)
    assert json.loads(received.partition(b"\r\n\r\n")[2])["status_code"] == 400


MALFORMED = {
    "HTTP/0.9": (b"GET /api/health\r\n\r\n", {400, 421}),
    "HTTP/1.0 without a host": (b"GET /api/health HTTP/1.0\r\n\r\n", {421}),
    "HTTP/2 in words": (GET.replace(b"HTTP/1.1", b"HTTP/2.0") + b"\r\n", {400}),
    "HTTP/9.9": (GET.replace(b"HTTP/1.1", b"HTTP/9.9") + b"\r\n", {400}),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", {400}),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64, {400}),
    "nothing but zeros": (b"\0" * 100, {400}),
    "another server's address": (GET.replace(b"/api", b"http://elsewhere/api") + b"\r\n", {421}),
    "no address at all": (GET.replace(b"/api/health", b"api/health") + b"\r\n", {400}),
    "CONNECT": (b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", {404, 405, 415}),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", {404, 405}),
    "TRACE": (GET.replace(b"GET", b"TRACE") + b"\r\n", {405}),
    "a method that is none": (GET.replace(b"GET", b"G(T") + b"\r\n", {400}),
    "a method without end": (GET.replace(b"GET", b"A" * 9000) + b"\r\n", {400}),
    "an address without end": (GET.replace(b"health", b"a" * 20_000) + b"\r\n", {400}),
    "a query without end": (GET.replace(b"health", b"jobs?after=" + b"a" * 20_000) + b"\r\n", {400}),
    "a header without end": (GET + b"X: " + b"a" * 20_000 + b"\r\n\r\n", {400}),
    "headers without end": (GET + b"".join(b"X-%d: a\r\n" % n for n in range(1000)) + b"\r\n", {400}),
    "a zero in a header": (GET + b"X: a\0b\r\n\r\n", {400}),
    "a header without a colon": (GET + b"nonsense\r\n\r\n", {400}),
    "a header without a name": (GET + b": x\r\n\r\n", {400}),
    "bytes in an address": (GET.replace(b"health", b"\xff\xfe") + b"\r\n", {400}),
    "dots and zeros in an address": (GET.replace(b"health", b"%zz%00%2e%2e%2f..%5c") + b"\r\n", {404}),
    "a coding beside chunks": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", {415}),
    "an Expect that nobody can meet": (POST + b"Expect: miracles\r\nContent-Length: 2\r\n\r\n{}", {417}),
    "a WebSocket of another version": (UPGRADE + b"Sec-WebSocket-Version: 99\r\nSec-WebSocket-Key: a\r\n\r\n", {400}),
    "a WebSocket without a key": (UPGRADE + b"Sec-WebSocket-Version: 13\r\n\r\n", {400}),
}


@pytest.mark.parametrize(("sent", "expected"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_request_gets_one_answer_in_the_one_shape(
    server: RunningServer, sent: bytes, expected: set[int]
) -> None:
    statuses, received, _ = exchange(server, sent)
    assert len(statuses) == 1, received
    assert statuses[0] in expected
    problem = json.loads(received.partition(b"\r\n\r\n")[2])
    assert problem["status_code"] == statuses[0]
    assert problem["detail"] not in {"", "Bad Request"}


TAKEN = {
    "a whole address of this server": (GET.replace(b"/api", b"http://localhost/api") + b"\r\n", [200]),
    "HTTP/1.0": (GET.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n", [200]),
    "two requests at once": (GET + b"\r\n" + SECOND, [200, 200]),
    "an upgrade that is not offered": (GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", [200]),
    "a body that waits": (POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", [100, 400]),
    "chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + SECOND, [400, 200]),
}


@pytest.mark.parametrize(("sent", "expected"), TAKEN.values(), ids=TAKEN)
def test_what_is_rare_and_right_is_served(server: RunningServer, sent: bytes, expected: list[int]) -> None:
    assert exchange(server, sent)[0] == expected


@pytest.mark.parametrize("sent", [POST + b"Content-Length: 20\r\n\r\n{}", POST + b"Expect: 100-continue\r\n\r\n", GET])
def test_who_leaves_in_the_middle_is_no_error(server: RunningServer, sent: bytes) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass
    assert server.get("/api/health").status_code == 200


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.method == "GET" and route.status == 200], ids=lambda route: route.path
)
def test_head_is_get_without_a_body(server: RunningServer, route: Route, tmp_path: Path) -> None:
    server.upload(RECORDS)
    url = server.url + re.sub(r"{\w+}", "data.jsonl", route.path)
    head = requests.head(url, timeout=60, headers=server.as_owner())
    whole = requests.get(url, timeout=60, headers=server.as_owner(), stream=route.is_endless)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    # Of figures that go on, each answer has a length of its own.
    same = ("Content-Type", "ETag", *(() if route.path in ("/metrics", "/api/machine") else ("Content-Length",)))
    assert [head.headers.get(name) for name in same] == [whole.headers.get(name) for name in same]
    whole.close()
