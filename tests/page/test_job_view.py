"""A job as it is seen: what it says of itself."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.sync_api import Route, expect
from support.looked_at import LookedAt
from support.recital import wait, write_recital
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


def test_before_its_first_step_a_job_says_when_its_curves_begin(
    open_page: LookedAt, server: RunningServer, start: Callable[..., str], model_folder: Path
) -> None:
    write_recital(model_folder, [wait(3600)])
    job_id = start(server, "recites")
    server.wait_for(job_id, "training")
    page = open_page(server, f"jobs/{job_id}")
    expect(page.get_by_text("The curves begin with the first step")).to_be_visible()
    server.post(f"/api/jobs/{job_id}/stop")
    expect(page.get_by_text("It ended before its first step")).to_be_visible(timeout=20_000)
