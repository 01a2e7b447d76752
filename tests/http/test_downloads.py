"""Downloads that are not read to their end, or that cannot be: nobody else is held up, and nobody gets wrong bytes."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from support.running_log import running_log
from support.running_server import RunningServer

from modelforge.domain.dataset import RegisterDataset
from modelforge.layout import Layout

Serve = Callable[..., RunningServer]
SIZE = 1 << 30
SHA256 = "a" * 64
URL = "/api/datasets/large.jsonl/download"


@pytest.fixture
def large(data_dir: Path) -> Path:
    """The file of a dataset of a gibibyte, all of it zeros: it takes no room."""

    async def record() -> None:
        async with running_log(layout.log) as running:
            await running.submit(
                RegisterDataset(
                    filename="large.jsonl", sha256=SHA256, format="text", num_examples=1, size_bytes=SIZE, key=None
                )
            )

    layout = Layout(data_dir)
    layout.make_folders()
    asyncio.run(record())
    with layout.dataset(SHA256).open("wb") as file:
        file.truncate(SIZE)
    return layout.dataset(SHA256)


def begun(server: RunningServer) -> socket.socket:
    """A connection on which the file comes, and nothing of it but the first bytes is read."""
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    connection.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % URL.encode())
    assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")
    return connection


def resident_mib(server: RunningServer) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def open_files(server: RunningServer) -> set[Path]:
    found: set[Path] = set()
    for file in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.add(file.readlink())
    return found


def test_clients_that_do_not_read_on_cost_nothing(serve: Serve, large: Path) -> None:
    server = serve()
    assert requests.get(server.url + URL, headers={"Range": "bytes=5-9"}, timeout=60).content == bytes(5)
    before = resident_mib(server)
    connections = [begun(server) for _ in range(10)]
    for _ in range(20):
        assert server.get("/api/health").status_code == 200
    assert resident_mib(server) - before < 64
    for connection in connections[:5]:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for connection in connections:
        connection.close()
    while large in open_files(server):
        time.sleep(0.01)
    assert "request_failed" not in server.end()


def test_a_deleted_dataset_is_sent_on_to_who_reads_it(serve: Serve, large: Path) -> None:
    server = serve()
    with begun(server) as connection:
        server.delete("/api/datasets/large.jsonl").raise_for_status()
        assert not large.exists()
        received = 0
        while received < SIZE // 8:
            received += len(connection.recv(1 << 20))
    assert server.get(URL).status_code == 404


def test_a_file_that_becomes_shorter_is_broken_off_and_not_filled_up(serve: Serve, large: Path) -> None:
    server = serve()
    with begun(server) as connection:
        with large.open("r+b") as file:
            file.truncate(SIZE // 8)
        end, received = b"", 0
        while chunk := connection.recv(1 << 20):
            end, received = chunk, received + len(chunk)
    assert 0 < received < SIZE
    assert end.strip(b"\0") == b""
    assert "is shorter than it was" in server.end()
