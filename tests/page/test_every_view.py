"""What holds for every view of the page, on an empty server and on a full one."""

import re
from importlib.resources import files

import pytest
from playwright.sync_api import expect
from support.looked_at import PHONE, SMALL, LookedAt, overflow
from support.running_server import RunningServer

from page.conftest import Violations

SCRIPT = (files("modelforge") / "web" / "page" / "app.js").read_text()
LIST = re.search(r"const VIEWS = {(.*?)};", SCRIPT, re.DOTALL)
assert LIST
VIEWS = [name.strip('"') for name in re.findall(r'(\w+|""):', LIST[1])]
TABS = ("curves", "configuration", "log", "records")


def test_the_views_are_found() -> None:
    assert {"", "jobs", "models", "datasets"} <= set(VIEWS)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_of_an_empty_server_is_right(
    open_page: LookedAt, empty_server: RunningServer, violations: Violations, view: str
) -> None:
    page = open_page(empty_server, view, dark=True)
    page.wait_for_load_state("networkidle")
    assert violations(page) == []
    page.set_viewport_size(SMALL)
    assert overflow(page) == []


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_of_a_full_server_is_right(
    open_page: LookedAt, full_server: RunningServer, violations: Violations, view: str
) -> None:
    page = open_page(full_server, view)
    page.wait_for_load_state("networkidle")
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(PHONE)
    assert violations(page) == []
    assert overflow(page) == []
    page.set_viewport_size(SMALL)
    assert overflow(page) == []


@pytest.mark.parametrize("tab", TABS)
def test_a_tab_of_a_job_is_right(
    open_page: LookedAt, full_server: RunningServer, full_jobs: dict[str, str], violations: Violations, tab: str
) -> None:
    page = open_page(full_server, f"jobs/{full_jobs['completed']}?tab={tab}", dark=True)
    page.wait_for_load_state("networkidle")
    assert violations(page) == []
    page.set_viewport_size(PHONE)
    assert overflow(page) == []


def test_a_job_that_nobody_knows_is_said_to_be_none(
    open_page: LookedAt, full_server: RunningServer, violations: Violations
) -> None:
    open_page.allow("status of 404")
    page = open_page(full_server, "jobs/train_0")
    expect(page.get_by_role("alert")).to_contain_text("train_0")
    assert violations(page) == []


def test_the_menu_of_a_phone_opens_leads_on_and_closes(open_page: LookedAt, full_server: RunningServer) -> None:
    page = open_page(full_server, size=PHONE)
    menu = page.get_by_role("button", name="Menu")
    expect(page.get_by_role("link", name="Models")).to_be_hidden()
    menu.click()
    page.get_by_role("link", name="Models").click()
    expect(menu).to_have_attribute("aria-expanded", "false")
    expect(page.locator("h1")).to_be_focused()


def test_the_chosen_theme_holds_over_a_reload(open_page: LookedAt, empty_server: RunningServer) -> None:
    page = open_page(empty_server, dark=True)
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    of_the_system = page.evaluate(paper)
    page.get_by_label("Theme").select_option("light")
    chosen = page.evaluate(paper)
    assert chosen != of_the_system
    page.reload()
    assert page.evaluate(paper) == chosen


def test_what_a_page_must_not_do_is_seen_by_these_tests(open_page: LookedAt, empty_server: RunningServer) -> None:
    page = open_page(empty_server)
    page.evaluate("fetch('http://127.0.0.1:9/').catch(() => {})")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=1><p style=color:red>')")
    page.wait_for_function("document.querySelector('img[src=x]').complete")
    page.evaluate("setTimeout(() => { throw new Error('of a test'); })")
    page.wait_for_timeout(100)
    seen = open_page.faults
    for word in ("CSP: connect-src", "CSP: script-src", "CSP: style-src", "exception: of a test"):
        assert any(word in fault for fault in seen), (word, seen)
    open_page.allow("")


def test_axe_and_the_width_are_no_blind_eyes(
    open_page: LookedAt, empty_server: RunningServer, violations: Violations
) -> None:
    page = open_page(empty_server, size=SMALL)
    page.evaluate("""() => {
      const made = document.createElement("button");
      made.append(document.createElement("i"));
      made.className = "wide";
      made.style.width = "500px";
      document.querySelector("main").append(made);
    }""")
    assert any(one.startswith("button-name") for one in violations(page))
    assert "BUTTON.wide" in overflow(page)
