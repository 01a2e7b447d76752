"""The page in a real browser, and what must never happen there, whatever is looked at."""

import re
import time
from typing import Final, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Request, ViewportSize

from support.running_server import RunningServer

DESK: Final[ViewportSize] = {"width": 1440, "height": 900}
PHONE: Final[ViewportSize] = {"width": 390, "height": 844}
SMALL: Final[ViewportSize] = {"width": 360, "height": 640}
_REPORTS = """
  addEventListener("securitypolicyviolation", (it) => console.error(`CSP: ${it.violatedDirective} ${it.blockedURI}`));
"""
_DRAWN = """() => new Promise((drawn) => {
  requestAnimationFrame(() => setTimeout(drawn, 30));
  setTimeout(drawn, 1000); // a tab in the background has no frames
})"""
_QUIET_ROUNDS = 3
_SAID: Final = ("error", "warning")


class LookedAt:
    """Opens pages in contexts of their own, and holds each to what every page keeps to.

    `faults`: what the consoles said, exceptions, what the policy stopped, and requests that went elsewhere.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._faults: list[str] = []
        self._allowed: list[str] = []
        self._asked: set[Request] = set()

    def __call__(
        self,
        server: RunningServer,
        place: str = "",
        *,
        dark: bool = False,
        size: ViewportSize = DESK,
        motion: Literal["no-preference", "reduce"] = "reduce",
    ) -> Page:
        """A page at `place`, as `models` or `jobs/job-1?tab=log`, in a browser that nobody has used."""
        context = self._browser.new_context(
            viewport=size, color_scheme="dark" if dark else "light", reduced_motion=motion, locale="en-GB"
        )
        self._contexts.append(context)
        page = context.new_page()
        self.hold(page, server)
        page.goto(f"{server.url}/#/{place}")
        page.locator("h1").first.wait_for()
        self.settle(page)
        return page

    def go(self, page: Page, place: str) -> None:
        """Lead a page that is open to another view, and wait until what that asks for has come."""
        page.evaluate("place => { location.hash = `#/${place}`; }", place)
        self.settle(page)

    def settle(self, page: Page) -> None:
        """Wait until nothing that was asked for is missing, and what came is drawn."""
        quiet = 0
        while quiet < _QUIET_ROUNDS:
            page.evaluate(_DRAWN)
            quiet = 0 if self._asked else quiet + 1

    def hold(self, page: Page, server: RunningServer) -> None:
        """Hold a page to it, which a test has made by itself: another tab of a context."""
        own = urlsplit(server.url).netloc
        page.add_init_script(_REPORTS)

        def say(fault: str) -> None:
            self._faults.append(f"{fault} ({page.url.removeprefix(server.url)})")

        page.on("console", lambda said: say(f"{said.type}: {said.text}") if said.type in _SAID else None)
        page.on("pageerror", lambda error: say(f"exception: {error}"))
        page.on("request", lambda it: None if urlsplit(it.url).netloc == own else say(f"asked {it.url}"))
        # A stream of events is asked for once, and has no end.
        page.on("request", lambda it: None if it.resource_type == "eventsource" else self._asked.add(it))
        page.on("requestfinished", lambda it: self._asked.discard(it))  # noqa: PLW0108
        page.on("requestfailed", lambda it: self._asked.discard(it))  # noqa: PLW0108
        page.on("websocket", lambda it: None if urlsplit(it.url).netloc == own else say(f"asked {it.url}"))

    def allow(self, pattern: str) -> None:
        """A fault that this test brings about by itself: a server that is gone, a request that is refused."""
        self._allowed.append(pattern)

    @property
    def faults(self) -> list[str]:
        return [one for one in self._faults if not any(re.search(pattern, one) for pattern in self._allowed)]

    def end(self) -> None:
        for context in self._contexts:
            context.close()


def until(page: Page, script: str, arg: object = None, *, seconds: float = 60) -> None:
    """Wait until a function of JavaScript gives what is true; the policy forbids what Playwright waits by."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(script, arg):
        assert time.monotonic() < deadline, f"not after {seconds} s: {script}"
        page.wait_for_timeout(50)


def overflow(page: Page) -> list[str]:
    """What makes the document wider than its window, by its tag and class."""
    found: list[str] = page.evaluate(
        """() => {
          const wide = document.documentElement.clientWidth;
          if (document.documentElement.scrollWidth <= wide) return [];
          const inside = (one) => one.closest(".table:not(.listed), pre, .tabs, .log") !== null;
          const out = [...document.body.querySelectorAll("*")]
            .filter((one) => !inside(one) && one.getBoundingClientRect().right > wide + 1);
          return ["the document", ...out.map((one) => `${one.tagName}.${one.className}`)];
        }"""
    )
    return found
