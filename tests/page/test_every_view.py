"""What holds for every view of the page, on an empty server and on a full one."""

import re
from importlib.resources import files

import pytest
from playwright.sync_api import ViewportSize
from support.looked_at import DESK, PHONE, SMALL, LookedAt, overflow
from support.running_server import RunningServer

from page.conftest import Violations

SCRIPT = (files("modelforge") / "web" / "page" / "app.js").read_text()
LIST = re.search(r"const VIEWS = {(.*?)};", SCRIPT, re.DOTALL)
assert LIST
VIEWS = [name.strip('"') for name in re.findall(r'(\w+|""):', LIST[1])]
TABS = ("curves", "configuration", "log", "records")
LOOKS: list[tuple[ViewportSize, bool]] = [(DESK, False), (PHONE, True), (SMALL, False)]


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
