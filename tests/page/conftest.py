"""One browser for the tests of the page, and the servers that it looks at.

    def test_the_models_are_listed(open_page: LookedAt, full_server: RunningServer) -> None:
        page = open_page(full_server, "models", dark=True, size=PHONE)
        expect(page.get_by_role("heading", name="Models")).to_be_visible()

`open_page(server, place)` waits until what the view asks for has come; `open_page.go(page, place)` leads an open page
on, as a link does, which is cheaper. After the test it fails if a console had an error or a warning, if anything was
thrown, if the policy stopped something, or if another origin was asked; `open_page.allow(r"…")` lets
through what the test itself brings about, as `Failed to load resource.* 404`, or `WebSocket|ERR_CONNECTION` where it
kills its server. Sizes are in `support.looked_at`. Servers: `full_server` (jobs of every end, one that runs, a queue;
`full_jobs` has their ids by end) and `empty_server` are shared and must not be changed; a test that changes something
takes `server` or `module_server`. What a trainer says is told by `support.recital`. `violations(page)` is what axe
finds.

All here is done in the thread of the tests: Playwright's loop runs while its objects live, so the browser ends with
the last test of this package, before tests with a loop of their own.
"""

from collections.abc import Callable, Iterator
from importlib.resources import files

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from support.browser import browser as command
from support.full_server import fill
from support.looked_at import LookedAt
from support.running_server import RunningServer, scripted_server

Violations = Callable[[Page], list[str]]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    program, *flags = command()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags[1:])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[LookedAt]:
    opened = LookedAt(browser)
    yield opened
    opened.end()
    assert opened.faults == []


@pytest.fixture(scope="package")
def empty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = scripted_server(tmp_path_factory.mktemp("empty") / "data")
    yield server
    server.end()


@pytest.fixture(scope="package")
def _filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("full")
    server = scripted_server(folder / "data", "--stalled-seconds", "3600")
    jobs = fill(server, folder / "models")
    yield server, jobs
    for job in jobs.values():
        server.post(f"/api/jobs/{job}/stop")
    server.end()


@pytest.fixture(scope="package")
def full_server(_filled: tuple[RunningServer, dict[str, str]]) -> RunningServer:
    return _filled[0]


@pytest.fixture(scope="package")
def full_jobs(_filled: tuple[RunningServer, dict[str, str]]) -> dict[str, str]:
    """The ids of the jobs of `full_server`: completed, failed, stopped, training, queued 1, queued 2."""
    return _filled[1]


@pytest.fixture(scope="package")
def violations() -> Violations:
    """What axe-core finds in a page: each rule that is broken, and where."""
    axe = (files("axe_playwright_python") / "axe.min.js").read_text()

    def found(page: Page) -> list[str]:
        if not page.evaluate("'axe' in window"):
            page.evaluate(axe)
        rules: list[str] = page.evaluate(
            """async () => (await axe.run(document, { resultTypes: ["violations"] })).violations
              .map((it) => `${it.id}: ${it.nodes.map((node) => node.html.slice(0, 200)).join(" | ")}`)"""
        )
        return rules

    return found
