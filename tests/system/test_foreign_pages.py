"""A real browser on a page of somebody else's: whatever the page tries, the server does and tells nothing."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from support.browser import Site, browse, browser
from support.running_server import RECORDS, RunningServer, modelforge, scripted_server

pytestmark = pytest.mark.slow

_PAGE = Path(__file__).with_name("foreign_page.html").read_text()


def page_against(url: str) -> str:
    """The page, whose script attacks the server at an address."""
    return _PAGE.replace("FORGE", json.dumps(url), 1)


@pytest.fixture
def elsewhere() -> Iterator[Site]:
    site = Site()
    yield site
    site.end()


def is_nothing(result: str) -> bool:
    """Whether a page learned nothing: it may not see what came, or it was told that it is refused."""
    return result in {"refused", "opaque", "unreadable", "nothing", "", "true"} or result.startswith(
        ("403", "415", "421", '{"error"')
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "rebound.example"])
def test_a_page_of_somebody_else_s_is_without_effect(
    module_server: RunningServer, tmp_path: Path, elsewhere: Site, host: str
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
def test_a_browser_that_is_signed_in_carries_its_cookie_to_nobody_else(tmp_path: Path, elsewhere: Site) -> None:
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
    """Open a link in a browser, and say whether that leads to the page of who is signed in."""
    command = [
        *(*browser(), f"--user-data-dir={profile}", "--virtual-time-budget=8000", "--dump-dom", link),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return "Welcome to ModelForge" in shown
