"""A real browser at the page, and what a job's curves are in it."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

BROWSER = "/usr/bin/chromium"
CURVES = """async (id) => {
  const { curvesOf } = await import("/page/jobs.js");
  const curves = curvesOf(id);
  return curves.step.map((step, n) => [curves.attempt[n], step, curves.columns.loss[n]]);
}"""
"""A script that gives a job's points as the page holds them: attempt, step and loss."""


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


def points(page: Page, job_id: str) -> list[tuple[int, int, float | None]]:
    """A job's points as the page holds them."""
    return [tuple(point) for point in page.evaluate(CURVES, job_id)]
