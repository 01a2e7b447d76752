"""A browser that is signed in by a link finds the view that it wished for, and what was begun before it was let out."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page, expect
from support.looked_at import until
from support.running_server import RunningServer

pytestmark = pytest.mark.timeout(120)
SIGN_OUT = "fetch('/api/session', { method: 'DELETE' }).then((answer) => answer.status)"


@pytest.fixture
def closed(serve: Callable[..., RunningServer]) -> RunningServer:
    server = serve(MODELFORGE_REQUIRE_TOKEN="true")  # noqa: S106 - a switch
    server.shown = server.as_owner()
    return server


def link(server: RunningServer) -> str:
    return f"{server.url}{server.post('/api/login_links').json()['path']}"


def test_a_link_leads_to_the_view_that_was_wished_for_and_the_page_that_waits_goes_on(
    closed: RunningServer, browser: Browser
) -> None:
    with browser.new_context() as context:
        waiting, opened = context.new_page(), context.new_page()
        waiting.goto(f"{closed.url}/#/audit")
        expect(waiting.get_by_role("heading", name="Sign in")).to_be_visible(timeout=20_000)
        assert waiting.get_by_role("heading", name="Audit").count() == 0
        opened.goto(link(closed))
        opened.wait_for_url(f"{closed.url}/#/audit")
        for page in (opened, waiting):
            expect(page.get_by_role("heading", name="Audit")).to_be_visible(timeout=20_000)


def test_who_is_signed_out_amid_a_form_finds_it_as_it_was_and_is_told_of_all_that_came(
    closed: RunningServer, browser: Browser
) -> None:
    with browser.new_context() as context:
        page, other = context.new_page(), context.new_page()
        page.goto(link(closed))
        page.wait_for_url(f"{closed.url}/")
        expect(page.get_by_role("heading", name="Welcome")).to_be_visible(timeout=20_000)
        page.goto(f"{closed.url}/#/machine")
        page.get_by_role("button", name="New token").click(timeout=20_000)
        page.get_by_label("Name").fill("half-written")
        other.goto(closed.url)
        assert other.evaluate(SIGN_OUT) == 200
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible(timeout=20_000)
        expect(page.get_by_label("Name")).to_be_hidden()
        other.goto(link(closed))
        expect(page.get_by_label("Name")).to_have_value("half-written", timeout=20_000)
        assert page.title() == "Machine · ModelForge"
        until_live(page)


def test_records_are_followed_by_the_cookie_that_a_browser_is_signed_in_by(
    closed: RunningServer, browser: Browser
) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(link(closed))
        page.wait_for_url(f"{closed.url}/")
        page.goto(f"{closed.url}/#/audit")
        until_live(page)
        expect(page.get_by_label("Records, newest first").get_by_role("listitem")).to_have_count(0)
        closed.post("/api/tokens", {"name": "second", "scope": "read"}).raise_for_status()
        expect(page.get_by_text("TokenCreated").last).to_be_visible(timeout=20_000)
        page.goto(f"{closed.url}/#/machine")
        page.get_by_role("button", name="Sign out").click(timeout=20_000)
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible(timeout=20_000)


def until_live(page: Page) -> None:
    until(page, """async () => (await import("/page/live.js")).connection.get().state === "live" """)
