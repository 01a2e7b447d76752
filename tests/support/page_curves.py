"""What a job's curves are in the page."""

from playwright.sync_api import Page

CURVES = """async (id) => {
  const { curvesOf } = await import("/page/jobs.js");
  const curves = curvesOf(id);
  return curves.step.map((step, n) => [curves.attempt[n], step, curves.columns.loss[n]]);
}"""
"""A script that gives a job's points as the page holds them: attempt, step and loss."""


def points(page: Page, job_id: str) -> list[tuple[int, int, float | None]]:
    """A job's points as the page holds them."""
    return [tuple(point) for point in page.evaluate(CURVES, job_id)]
