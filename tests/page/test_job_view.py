"""A job as it is seen: what it says of itself."""

from datetime import UTC, datetime, timedelta

from playwright.sync_api import Route, expect
from support.looked_at import LookedAt
from support.running_server import RunningServer


def test_a_job_that_was_resumed_is_said_to_run_for_as_long_as_its_attempts_did(
    open_page: LookedAt, full_server: RunningServer, full_jobs: dict[str, str]
) -> None:
    now = datetime.now(UTC)
    times = {
        "started_at": (now - timedelta(hours=9)).isoformat(),
        "attempt_started_at": (now - timedelta(seconds=30)).isoformat(),
        "ran_seconds": 3600,
    }

    def resumed(route: Route) -> None:
        answer = route.fetch().json()
        jobs = [job | times if job["job_id"] == full_jobs["training"] else job for job in answer["jobs"]]
        route.fulfill(json=answer | {"jobs": jobs})

    page = open_page(full_server)
    page.route("**/api/jobs?*", resumed)
    page.reload()
    expect(page.locator(".hero")).to_contain_text("running for 1 h 0 min")
    open_page.go(page, f"jobs/{full_jobs['training']}")
    expect(page.locator(".over")).to_contain_text("1 h 0 min")
