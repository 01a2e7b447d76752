"""A real browser on a page of somebody else's: whatever the page tries, the server does and tells nothing."""

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from support.running_server import RECORDS, RunningServer, modelforge, scripted_server

pytestmark = pytest.mark.slow

_PAGE = Path(__file__).with_name("foreign_page.html").read_text()


def page_against(url: str) -> str:
    """The page, whose script attacks the server at an address."""
    return _PAGE.replace("FORGE", json.dumps(url), 1)


class Elsewhere:
    """A site of somebody else's, whose page attacks a server and tells what it got."""

    def __init__(self) -> None:
        self.page = ""
        self.reports: queue.Queue[dict[str, str]] = queue.Queue()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path == "/" else 404)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(site.page.encode() if self.path == "/" else b"")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.end_headers()
                site.reports.put(json.loads(body))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    site = Elsewhere()
    yield site
    site.end()


def browse(url: str, profile: Path, site: Elsewhere, *flags: str) -> dict[str, str]:
    """What the page at `url` reports from a browser that is new."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert browser is not None, "chromium is needed (apt-get install chromium)"
    command = [
        *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
        *("--disable-background-networking", f"--user-data-dir={profile}", *flags, url),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return site.reports.get(timeout=120)
    finally:
        process.kill()
        process.wait()


def is_nothing(result: str) -> bool:
    """Whether a page learned nothing: it may not see what came, or it was told that it is refused."""
    return result in {"refused", "opaque", "unreadable", "nothing", "", "true"} or result.startswith(
        ("403", "415", "421", '{"error"')
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "rebound.example"])
def test_a_page_of_somebody_else_s_is_without_effect(
    module_server: RunningServer, tmp_path: Path, elsewhere: Elsewhere, host: str
) -> None:
    """`rebound.example` is a name that its owner made point at this machine."""
    module_server.upload(RECORDS)
    before = module_server.get("/api/events?limit=10000").json()
    port = module_server.url.rpartition(":")[2]
    elsewhere.page = page_against(f"http://{host}:{port}")
    results = browse(
        f"http://elsewhere.example:{elsewhere.port}/",
        tmp_path,
        elsewhere,
        "--host-resolver-rules=MAP *.example 127.0.0.1",
        # Newer browsers refuse some of it by themselves: what is tried here is the server.
        "--disable-features=BlockInsecurePrivateNetworkRequests,LocalNetworkAccessChecks,PrivateNetworkAccessChecks",
    )
    assert len(results) > 20
    assert {name: result for name, result in results.items() if not is_nothing(result)} == {}
    assert module_server.get("/api/events?limit=10000").json() == before


@pytest.mark.timeout(300)
def test_a_browser_that_is_signed_in_carries_its_cookie_to_nobody_else(tmp_path: Path, elsewhere: Elsewhere) -> None:
    """The same browser was signed in by a link; the page from elsewhere asks with its credentials."""
    data_dir = tmp_path / "data"
    made = modelforge("token", "create", "--name", "me", "--scope", "admin", "--data-dir", str(data_dir))
    shown = {"Authorization": f"Bearer {made.stdout.strip()}"}
    server = scripted_server(data_dir)
    try:
        link = modelforge("token", "link", "--data-dir", str(data_dir)).stdout.strip()
        profile = tmp_path / "profile"
        # A page of ours that tells elsewhere what it may see shows that the browser is signed in.
        signed_in = sign_in(link, profile)
        assert signed_in
        before = requests.get(f"{server.url}/api/events?limit=1000", headers=shown, timeout=20).json()
        elsewhere.page = page_against(server.url)
        results = browse(f"http://127.0.0.1:{elsewhere.port}/", profile, elsewhere)
        told = {name: result for name, result in results.items() if not is_nothing(result)}
        assert {name for name, result in told.items() if not result.startswith("401")} == set()
        assert requests.get(f"{server.url}/api/events?limit=1000", headers=shown, timeout=20).json() == before
    finally:
        server.end()


def sign_in(link: str, profile: Path) -> bool:
    """Open a link in a browser, and say whether the page then says that it is signed in."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert browser is not None
    command = [
        *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={profile}", "--virtual-time-budget=8000", "--dump-dom", link),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return "Signed in" in shown
