"""What holds for every view of the page, on an empty server and on a full one."""

import re
from importlib.resources import files
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, ViewportSize, expect
from support.full_server import HOSTILE_DATASET
from support.looked_at import DESK, PHONE, SMALL, LookedAt, overflow
from support.running_server import RunningServer

from page.conftest import Violations

SCRIPT = (files("modelforge") / "web" / "page" / "app.js").read_text()
LIST = re.search(r"const VIEWS = {(.*?)};", SCRIPT, re.DOTALL)
assert LIST
VIEWS = [name.strip('"') for name in re.findall(r'(\w+|""):', LIST[1])]
TABS = ("curves", "configuration", "log", "records")


def test_the_views_are_found() -> None:
    assert {"", "jobs", "models", "datasets"} <= set(VIEWS)


def test_every_view_of_an_empty_server_is_right(
    open_page: LookedAt, empty_server: RunningServer, violations: Violations
) -> None:
    page = open_page(empty_server, dark=True, size=SMALL)
    found = {view: broken for view in VIEWS if (broken := broken_in(open_page, page, view, violations))}
    assert found == {}


@pytest.mark.parametrize(("scheme", "sizes"), [("light", (DESK, SMALL)), ("dark", (PHONE, SMALL))])
def test_every_view_of_a_full_server_is_right(
    open_page: LookedAt,
    full_server: RunningServer,
    full_jobs: dict[str, str],
    violations: Violations,
    scheme: str,
    sizes: tuple[ViewportSize, ViewportSize],
) -> None:
    done = full_jobs["completed"]
    places = [
        *VIEWS,
        *(f"jobs/{done}?tab={tab}" for tab in TABS),
        f"jobs/{full_jobs['failed']}",
        f"jobs/{full_jobs['queued 1']}",
        f"compare?jobs={done},{full_jobs['failed']}",
        f"start?from={done}",
        f"datasets/{quote(HOSTILE_DATASET)}",
        "models/1",
        "playground?model=1",
    ]
    page = open_page(full_server, dark=scheme == "dark")
    found: dict[str, list[str]] = {}
    for place in places:
        page.set_viewport_size(sizes[0])
        broken = broken_in(open_page, page, place, violations)
        page.set_viewport_size(sizes[1])
        if broken := broken + overflow(page):
            found[place] = broken
    assert found == {}


def broken_in(looked_at: LookedAt, page: Page, place: str, violations: Violations) -> list[str]:
    looked_at.go(page, place)
    return violations(page) + overflow(page)


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
    page.wait_for_timeout(100)
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
