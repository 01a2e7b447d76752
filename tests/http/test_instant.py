"""What is answered at once is answered like everything else: the same bytes, and to nobody whom another way refuses."""

import re
import socket
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from support.running_server import RunningServer, scripted_server

from modelforge.http.routes import ROUTES

Start = Callable[..., str]
INSTANT = [route.path for route in ROUTES if route.instant is not None]
OURS = "http://localhost:3000"
ANOTHER_WAY = "X-Said: by nobody who is answered at once"
REQUESTS = {
    "plain": ("GET {path} HTTP/1.1", "Host: {host}"),
    "of a browser": ("GET {path} HTTP/1.1", "host: {host}", "User-Agent: it", "Accept: */*", "Sec-Fetch-Site: none"),
    "of our page": ("GET {path} HTTP/1.1", "Host: {host}", "Origin: http://{host}", "Sec-Fetch-Site: same-origin"),
    "of an allowed page": ("GET {path} HTTP/1.1", "Host: {host}", f"Origin: {OURS}", "Sec-Fetch-Site: cross-site"),
    "of another page": ("GET {path} HTTP/1.1", "Host: {host}", "Origin: http://evil.example"),
    "of another site": ("GET {path} HTTP/1.1", "Host: {host}", "Sec-Fetch-Site: cross-site"),
    "to another host": ("GET {path} HTTP/1.1", "Host: evil.example"),
    "to two hosts": ("GET {path} HTTP/1.1", "Host: {host}", "Host: {host}"),
    "without a host": ("GET {path} HTTP/1.1", "Accept: */*"),
    "with a wrong token": ("GET {path} HTTP/1.1", "Host: {host}", "Authorization: Bearer mf_none"),
    "with a body": ("GET {path} HTTP/1.1", "Host: {host}", "Content-Length: 2", "Content-Type: application/json"),
    "with a packed body": ("GET {path} HTTP/1.1", "Host: {host}", "Content-Encoding: gzip"),
    "with a query": ("GET {path}?a=b HTTP/1.1", "Host: {host}"),
    "of the head": ("HEAD {path} HTTP/1.1", "Host: {host}"),
    "of a deletion": ("DELETE {path} HTTP/1.1", "Host: {host}"),
    "of an older version": ("GET {path} HTTP/1.0", "Host: {host}"),
    "of the older that goes on": ("GET {path} HTTP/1.0", "Host: {host}", "Connection: keep-alive"),
    "that is the last": ("GET {path} HTTP/1.1", "Host: {host}", "Connection: close"),
    "by the whole address": ("GET http://{host}{path} HTTP/1.1", "Host: {host}"),
}


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One that asks everybody for a token, and lets a page of another origin ask."""
    settings = {"MODELFORGE_REQUIRE_TOKEN": "true", "MODELFORGE_ALLOWED_ORIGINS": OURS}
    server = scripted_server(tmp_path_factory.mktemp("instant") / "data", **settings)
    yield server
    server.end()


def _said(server: RunningServer, path: str, lines: tuple[str, ...], *more: str) -> tuple[str, list[str], bytes]:
    """What is answered: the first line, the other lines of the head, and the body."""
    address = urlsplit(server.url)
    head = "\r\n".join((*lines, *more)).format(path=path, host=address.netloc)
    body = "{}" if "Content-Length: 2" in head else ""
    said = b""
    with socket.create_connection((address.hostname, address.port or 80), timeout=20) as connection:
        connection.sendall(f"{head}\r\n\r\n{body}".encode())
        connection.settimeout(20)
        while b"\r\n\r\n" not in said:
            said += connection.recv(65536)
        begin, _, rest = said.partition(b"\r\n\r\n")
        status, *headers = begin.decode().split("\r\n")
        length = re.search(r"Content-Length: (\d+)", begin.decode())
        while not head.startswith("HEAD") and length is not None and len(rest) < int(length[1]):
            rest += connection.recv(65536)
    return status, sorted(line for line in headers if not line.startswith("Date:")), rest


@pytest.mark.parametrize("request_of", REQUESTS)
@pytest.mark.parametrize("path", INSTANT)
def test_an_answer_at_once_is_the_one_that_every_other_way_leads_to(
    module_server: RunningServer, strict_server: RunningServer, path: str, request_of: str
) -> None:
    for server in (module_server, strict_server):
        first = _said(server, path, REQUESTS[request_of])
        assert first == _said(server, path, REQUESTS[request_of], ANOTHER_WAY)
        assert first == _said(server, path, REQUESTS[request_of])  # its headers are known by now


def test_what_is_answered_at_once_is_of_now(server: RunningServer, start: Start) -> None:
    assert server.get("/api/training_status").json()["status"] == "idle"
    job_id = start(server, "completes")
    assert server.get("/api/training_status").json()["job_id"] == job_id
    server.wait_for(job_id)
    assert server.get("/api/training_status").json()["status"] == "completed"
    owner = server.as_owner()
    server.post("/api/tokens", json={"name": "desk", "scope": "read"}, headers=owner).raise_for_status()
    assert server.get("/api/training_status").status_code == 401
    server.shown = owner
    assert server.get("/api/training_status").status_code == 200
    server.delete("/api/tokens/desk").raise_for_status()
