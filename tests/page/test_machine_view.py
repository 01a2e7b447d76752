"""The machine in a browser: what it has, what the doctor finds, and who may come in."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from support.running_server import RunningServer

pytestmark = pytest.mark.timeout(120)
Serve = Callable[..., RunningServer]


def test_the_machine_and_the_doctor_s_findings_are_shown(
    server: RunningServer, browser: Browser, data_dir: Path
) -> None:
    (data_dir / "models" / "stray").mkdir(parents=True)
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{server.url}/#/machine")
        expect(page.get_by_text("Disk of the data")).to_be_visible(timeout=20_000)
        assert page.locator("meter").count() >= 2
        expect(page.get_by_text("anybody on this machine")).to_be_visible()
        page.get_by_role("button", name="Look for what is wrong").click()
        expect(page.get_by_text("stray is not in the log")).to_be_visible(timeout=40_000)
        expect(page.get_by_text("remove it if nobody needs it")).to_be_visible()


def test_a_token_is_shown_once_and_revoked_after_a_question(serve: Serve, browser: Browser) -> None:
    server = serve()
    link = server.post("/api/login_links", headers=server.as_owner()).json()["path"]
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{server.url}{link}")
        page.wait_for_url(f"{server.url}/")
        page.goto(f"{server.url}/#/machine")
        page.get_by_role("button", name="New token").click(timeout=20_000)
        page.get_by_label("Name").fill("no name")
        page.get_by_role("button", name="Make it").click()
        expect(page.get_by_role("alert").first).to_be_visible(timeout=20_000)
        page.get_by_label("Name").fill("laptop")
        page.get_by_label("Scope").select_option("read")
        page.get_by_role("button", name="Make it").click()
        secret = page.locator(".made code").inner_text(timeout=20_000)
        shown = {"Authorization": f"Bearer {secret}"}
        assert server.get("/api/session", headers=shown).json()["name"] == "laptop"
        page.reload()
        expect(page.get_by_role("cell", name="laptop")).to_be_visible(timeout=20_000)
        assert secret not in page.content()
        refused = browser.new_context(extra_http_headers=shown)
        reader = refused.new_page()
        reader.goto(f"{server.url}/#/machine")
        reader.get_by_role("button", name="Look for what is wrong").click(timeout=20_000)
        expect(reader.get_by_role("alert").filter(has_text="takes scope write")).to_be_visible(timeout=20_000)
        refused.close()
        page.get_by_role("button", name="Revoke").click()
        assert server.get("/api/session", headers=shown).status_code == 200
        page.get_by_role("group", name="Let nobody in by laptop").get_by_role("button", name="Revoke").click()
        expect(page.get_by_role("cell", name="laptop")).to_be_hidden(timeout=20_000)
        assert server.get("/api/session", headers=shown).status_code == 401
