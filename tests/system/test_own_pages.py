"""Pages of one's own and the server's, in a real browser: they use the API as it stands."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import Site, browse, browser
from support.running_server import RunningServer, scripted_server

pytestmark = pytest.mark.slow

_PAGE = Path(__file__).with_name("own_page.html").read_text()


@pytest.fixture
def site() -> Iterator[Site]:
    one = Site()
    yield one
    one.end()


@pytest.mark.timeout(300)
def test_a_page_of_an_allowed_origin_uploads_starts_and_watches(tmp_path: Path, site: Site, model_folder: Path) -> None:
    origin = f"http://127.0.0.1:{site.port}"
    server = scripted_server(tmp_path / "data", MODELFORGE_ALLOWED_ORIGINS=origin)
    try:
        start = {"task": "text-generation", "model_name": str(model_folder), "max_steps": 5, "output_name": "completes"}
        page = _PAGE.replace("FORGE", json.dumps(server.url), 1)
        site.page = page.replace("START", json.dumps(start), 1)
        assert browse(origin, tmp_path / "profile", site) == {
            "upload": "200",
            "start": "200",
            "socket": "completed",
            "stream": "position true",
            "refusal": "404",
            "delete": "404",
        }
    finally:
        server.end()


@pytest.mark.timeout(300)
def test_the_api_is_shown_to_read_under_the_policy_of_our_pages(module_server: RunningServer, tmp_path: Path) -> None:
    page = f"{module_server.url}/api/docs"
    command = [*browser(), f"--user-data-dir={tmp_path}", "--virtual-time-budget=8000", "--enable-logging=stderr"]
    shown = subprocess.run([*command, "--dump-dom", page], capture_output=True, text=True, timeout=120, check=True)
    assert "/api/start_training" in shown.stdout.replace("\u200b", "").replace("<wbr>", "")
    assert "Content Security Policy" not in shown.stderr
