"""Where the server listens, and what it asks for before it does."""

import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from support.running_server import RunningServer, environment, modelforge

OTHER = "0.0.0.0"  # noqa: S104 - what is asked of it is tried here


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for this machine, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run([*command, *subject, "-keyout", key, "-out", cert, "-days", "2"], check=True, capture_output=True)
    return cert, key


class Served:
    """Servers on one data directory, each with flags of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.running: list[RunningServer] = []

    def command(self, *flags: object) -> list[str]:
        words = ["serve", "--port", "0", "--data-dir", str(self.data_dir), *map(str, flags)]
        return [sys.executable, "-m", "modelforge", *words]

    def start(self, *flags: object) -> RunningServer:
        self.running.append(RunningServer(self.command(*flags), environment()))
        return self.running[-1]

    def refusal(self, *flags: object) -> str:
        """What a server says that does not start."""
        ended = subprocess.run(
            self.command(*flags), capture_output=True, text=True, timeout=30, check=False, env=environment()
        )
        assert ended.returncode == 1, ended.stdout
        assert ended.stderr.startswith("modelforge: ")
        assert "Traceback" not in ended.stderr
        return ended.stderr

    def create(self, name: str, scope: str = "admin") -> dict[str, str]:
        made = modelforge("token", "create", "--name", name, "--scope", scope, "--data-dir", str(self.data_dir))
        assert made.returncode == 0, made.stderr
        return {"Authorization": f"Bearer {made.stdout.strip()}"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path / "data")
    yield served
    for server in served.running:
        if server.process.poll() is None:
            server.end()


def test_an_address_that_others_reach_needs_a_token(served: Served, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    encrypted = ("--tls-cert", cert, "--tls-key", key)
    for flags in ((), ("--require-token",)):
        assert "--tls-cert" in served.refusal("--host", OTHER, *flags)
    for flags in (encrypted, ("--behind-proxy",)):
        assert "token create" in served.refusal("--host", OTHER, *flags)
    shown = served.create("ops")
    assert "--tls-cert" in served.refusal("--host", OTHER)
    server = served.start("--host", OTHER, "--behind-proxy")
    url = server.url.replace(OTHER, "127.0.0.1")
    assert requests.get(f"{url}/api/info", timeout=20).status_code == 401
    assert requests.get(f"{url}/api/info", headers=shown, timeout=20).status_code == 200


def test_a_proxy_brings_others_and_so_needs_a_token_on_this_machine_too(served: Served) -> None:
    assert "token create" in served.refusal("--behind-proxy")
    served.create("ops")
    server = served.start("--behind-proxy", "--allowed-host", "forge.example")
    asked = {"Host": "forge.example", "X-Forwarded-For": "203.0.113.9"}
    assert requests.get(f"{server.url}/api/jobs", headers=asked, timeout=20).status_code == 401
    assert modelforge("token", "revoke", "ops", "--data-dir", str(served.data_dir)).returncode == 0
    assert requests.get(f"{server.url}/api/jobs", headers=asked, timeout=20).status_code == 401


def test_a_token_that_has_expired_lets_no_server_start(served: Served) -> None:
    name = ("--name", "old", "--scope", "read", "--expires", "1m")
    assert modelforge("token", "create", *name, "--data-dir", str(served.data_dir)).returncode == 0
    late = {**environment(), "LD_PRELOAD": _faketime(), "FAKETIME": "+1d"}
    ended = subprocess.run(
        served.command("--host", OTHER, "--behind-proxy"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=late,
    )
    assert (ended.returncode, "token create" in ended.stderr) == (1, True), ended.stderr


def _faketime() -> str:
    (library,) = list(Path("/usr/lib").rglob("libfaketime.so.1"))[:1]
    return str(library)


def test_with_tls_everything_is_encrypted_and_the_owner_s_commands_work(
    served: Served, certificate: tuple[Path, Path]
) -> None:
    cert, key = certificate
    server = served.start("--tls-cert", cert, "--tls-key", key, "--require-token")
    assert server.url.startswith("https://127.0.0.1:")
    shown = served.create("ops")
    answer = requests.get(f"{server.url}/api/info", headers=shown, verify=str(cert), timeout=20)
    assert answer.status_code == 200
    assert "max-age" in answer.headers["Strict-Transport-Security"]
    link = modelforge("token", "link", "--data-dir", str(served.data_dir)).stdout.strip()
    body = {"code": link.partition("#")[2]}
    signed_in = requests.post(f"{server.url}/api/session", json=body, verify=str(cert), timeout=20)
    assert "; Secure" in signed_in.headers["Set-Cookie"]
    host, port = server.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        plain.sendall(b"GET /api/info HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not plain.recv(1000).startswith(b"HTTP")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(cert)
    assert old.minimum_version <= ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection((host, int(port)), timeout=10) as connection,
        old.wrap_socket(connection, server_hostname="localhost") as secure,
    ):
        assert secure.version() in {"TLSv1.2", "TLSv1.3"}
    environ = {**os.environ, "SSL_CERT_FILE": str(cert), "MODELFORGE_API_TOKEN": shown["Authorization"].split()[1]}
    command = [sys.executable, "-m", "modelforge", "jobs", "--url", server.url]
    listed = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, timeout=30)
    assert listed.returncode == 0, listed.stderr


@pytest.mark.parametrize("broken", ["cert", "key", "swapped"])
def test_a_certificate_that_cannot_be_used_is_named(
    served: Served, certificate: tuple[Path, Path], tmp_path: Path, broken: str
) -> None:
    cert, key = certificate
    other = tmp_path / "none.pem"
    files = {"cert": (other, key), "key": (cert, other), "swapped": (key, cert)}[broken]
    assert "pem" in served.refusal("--tls-cert", files[0], "--tls-key", files[1])


def test_a_socket_is_for_its_owner_alone(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "forge.sock"
    server = served.start("--unix-socket", path)
    assert server.url == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert modelforge("jobs", "--url", server.url).returncode == 0
    assert _status(path, b"/api/info") == b"200"
    assert str(path) in Served(tmp_path / "other").refusal("--unix-socket", path)
    token = served.create("ops")["Authorization"].encode()
    assert _status(path, b"/api/info") == b"401"
    assert _status(path, b"/api/info", b"Authorization: " + token + b"\r\n") == b"200"
    server.process.kill()
    server.end()
    assert path.is_socket()
    again = served.start("--unix-socket", path)  # what a server left behind is in nobody's way
    assert _status(path, b"/api/health") == b"200"
    again.end()


def _status(path: Path, target: bytes, headers: bytes = b"") -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n")
        return connection.recv(65536)[9:12]


def test_a_place_that_is_no_socket_is_left_alone(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("kept")
    assert str(path) in served.refusal("--unix-socket", path)
    assert path.read_text() == "kept"
