"""The machine in a browser: what it has, what the doctor finds, and who may come in."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from support.full_server import MARKUP
from support.looked_at import SMALL, LookedAt, overflow
from support.running_server import RunningServer
from support.webhook_receiver import receiver

from page.conftest import Violations

pytestmark = pytest.mark.timeout(120)
Serve = Callable[..., RunningServer]
STRAY = "<img src=x onerror=alert(1)>"


def test_the_machine_and_the_doctor_s_findings_are_shown(
    server: RunningServer, browser: Browser, data_dir: Path
) -> None:
    (data_dir / "models" / STRAY).mkdir(parents=True)
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{server.url}/#/machine")
        expect(page.get_by_text("Disk of the data")).to_be_visible(timeout=20_000)
        assert page.locator("meter").count() >= 2
        expect(page.get_by_text("anybody on this machine")).to_be_visible()
        page.get_by_role("button", name="Look for what is wrong").click()
        expect(page.get_by_text(f"{STRAY} is not in the log")).to_be_visible(timeout=40_000)
        expect(page.get_by_text("remove it if nobody needs it")).to_be_visible()
        assert page.locator("main img").count() == 0


def test_webhooks_are_listed_with_what_others_named_them_and_tried_by_a_button(
    server: RunningServer, start: Callable[..., str], open_page: LookedAt, violations: Violations
) -> None:
    with receiver() as told:
        name, address = f"{MARKUP} {'n' * 100}", f"{told.url}/{'x' * 300}"
        endpoint = {"name": name, "url": address, "event_types": ["fine_tuning.job.succeeded"]}
        server.post("/v1/webhook_endpoints", endpoint, headers=server.as_owner()).raise_for_status()
        job_id = start(server, "completes")
        told.wait_for(lambda: len(told.got) == 1)
        page = open_page(server, size=SMALL)
        page.goto(f"{server.url}{server.post('/api/login_links', headers=server.as_owner()).json()['path']}")
        page.wait_for_url(f"{server.url}/")
        open_page.go(page, "machine")
        row = page.get_by_role("row").filter(has_text=MARKUP)
        expect(row).to_contain_text(address)
        expect(row).to_contain_text(job_id)
        expect(row).to_contain_text("204")
        row.get_by_role("button", name="Send a test").click()
        told.wait_for(lambda: len(told.got) == 2)
        expect(row).to_contain_text("It answered 204")
        assert violations(page) == []
        assert overflow(page) == []
        assert page.locator("main img").count() == 0


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
