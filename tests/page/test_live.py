"""The page goes on where it was: after a reload, a killed server, another log, a lost socket; and tells of ends."""

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from support.attempt_files import training
from support.looked_at import until
from support.page_curves import points
from support.running_server import RECORDS, RunningServer

pytestmark = pytest.mark.timeout(180)
Start = Callable[..., str]
Serve = Callable[..., RunningServer]
LOST = "Not connected"
HEARS = """
  window.told = [];
  const Real = window.Notification;
  window.Notification = class extends Real {
    constructor(title, options) {
      super(title, options);
      window.told.push([title, options.body]);
    }
  };
  Object.defineProperty(document, "hidden", { get: () => true });
"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context() as context:
        found = context.new_page()
        faults: list[str] = []
        found.on("pageerror", lambda fault: faults.append(str(fault)))
        yield found
        assert not faults


def told(server: RunningServer, job_id: str) -> list[tuple[int, int, float | None]]:
    """A job's points as the API has them."""
    metrics = server.get(f"/api/jobs/{job_id}/metrics?limit=100000").json()["metrics"]
    return [(metric["attempt"], metric["step"], metric["loss"]) for metric in metrics]


def come_back(server: RunningServer) -> None:
    server.start("--port", server.url.rpartition(":")[2])


def until_points(page: Page, job_id: str, most: int) -> None:
    until(
        page,
        f"""async (id) => (await import("/page/jobs.js")).curvesOf(id).step.length >= {most}""",
        arg=job_id,
        seconds=60,
    )


def until_status(page: Page, job_id: str, status: str) -> None:
    until(
        page,
        """async ([id, status]) =>
          (await import("/page/jobs.js")).jobs.get()?.some((job) => job.job_id === id && job.status === status)""",
        arg=[job_id, status],
        seconds=60,
    )


def test_a_reload_and_a_killed_server_leave_no_gap_and_no_double_in_two_tabs(
    server: RunningServer, start: Start, page: Page
) -> None:
    job_id = start(server, "waits", max_steps=250)
    other = page.context.new_page()
    page.goto(f"{server.url}/#/jobs/{job_id}")
    other.goto(server.url)
    until_points(other, job_id, 20)
    page.reload()
    until_points(page, job_id, 40)
    server.end(signal.SIGKILL)
    expect(page.get_by_text(LOST)).to_be_visible(timeout=20_000)
    come_back(server)
    server.wait_for(job_id, "completed")
    expect(page.get_by_text(LOST)).to_be_hidden(timeout=20_000)
    expected = told(server, job_id)
    assert [step for _, step, _ in expected] == [*range(1, 251)]
    for tab in (page, other):
        until_status(tab, job_id, "completed")
        assert points(tab, job_id) == expected


def made_again(page: Page, job_id: str) -> list[tuple[int, float]]:
    """The steps that are drawn beside the curve, and their losses."""
    steps, losses = page.evaluate(
        """async (id) =>
          (await import("/page/jobs.js")).curvesOf(id).madeAgain.beside([[]], ({ loss }) => loss)""",
        job_id,
    )
    return list(zip(steps, losses, strict=True))


def test_what_an_attempt_makes_again_from_a_checkpoint_is_there_once_and_drawn_beside_it(
    server: RunningServer, start: Start, page: Page
) -> None:
    first = start(server, "obeys")
    job_id = start(server, "dies-once", queue=True, max_restarts=1)
    page.goto(server.url)
    until_status(page, job_id, "queued")
    assert points(page, job_id) == []  # and from now on it is told by the socket alone
    server.wait_for(first, "training")
    server.post(f"/api/jobs/{first}/stop")
    server.wait_for(job_id, "completed")
    until_status(page, job_id, "completed")
    live = points(page, job_id)
    assert live == told(server, job_id)
    assert [(attempt, step) for attempt, step, _ in live] == [(1, 1), (1, 2), (1, 3), *((2, n) for n in range(4, 11))]
    records = server.get(f"/api/events?stream={job_id}&type=MetricsLogged").json()["events"]
    first_try = [step for record in records if record["data"]["attempt"] == 1 for step in record["data"]["steps"]]
    beside = [(step["step"], step["loss"]) for step in first_try if step["step"] > 3]
    assert beside != []
    assert made_again(page, job_id) == beside
    page.goto(f"{server.url}/#/jobs/{job_id}")
    page.reload()
    until_points(page, job_id, 10)
    assert points(page, job_id) == live
    expect(page.get_by_role("img", name="attempt 1, made again")).to_be_visible()
    assert made_again(page, job_id) == beside


def test_a_server_with_another_log_is_read_anew_though_it_has_more_records(
    serve: Serve, data_dir: Path, model_folder: Path, page: Page
) -> None:
    def train(steps: int) -> str:
        server.upload(RECORDS).raise_for_status()
        answer = server.post("/api/start_training", training(model_folder, "waits", max_steps=steps))
        job_id = str(answer.json()["job_id"])
        server.wait_for(job_id, "completed")
        return job_id

    server = serve()
    job_id = train(5)
    page.goto(server.url)
    until_points(page, job_id, 5)
    server.end()
    shutil.rmtree(data_dir)
    come_back(server)
    assert train(30) == job_id
    expect(page.get_by_text(LOST)).to_be_hidden(timeout=20_000)
    until_points(page, job_id, 30)
    assert points(page, job_id) == told(server, job_id)
    until(
        page,
        """async (id) =>
          (await import("/page/jobs.js")).jobs.get().find((job) => job.job_id === id)?.total_steps === 30""",
        arg=job_id,
    )


def test_an_end_that_came_while_the_page_was_cut_off_is_told_by_the_browser(
    server: RunningServer, start: Start, browser: Browser
) -> None:
    with browser.new_context() as context:
        context.grant_permissions(["notifications"], origin=server.url)
        page = context.new_page()
        page.add_init_script(HEARS)
        job_id = start(server, "waits", max_steps=40)
        page.goto(server.url)
        until_points(page, job_id, 1)
        server.end(signal.SIGKILL)
        expect(page.get_by_text(LOST)).to_be_visible(timeout=20_000)
        context.set_offline(True)
        come_back(server)
        server.wait_for(job_id, "completed")
        assert page.evaluate("told") == []
        context.set_offline(False)
        until(page, "() => told.length > 0", seconds=30)
        first = [f"{job_id} completed", "Last loss: 0.025"]
        assert page.evaluate("told") == [first]
        # while another tab is looked at, nobody has to be told
        seen = context.new_page()
        seen.goto(server.url)
        job_id = start(server, "completes")
        until_status(seen, job_id, "completed")
        until_status(page, job_id, "completed")
        page.wait_for_timeout(600)
        seen.close()
        job_id = start(server, "completes")
        until(page, "() => told.length > 1", seconds=30)
        assert page.evaluate("told.map(([title]) => title)") == [first[0], f"{job_id} completed"]


def test_the_places_in_the_queue_move_up_when_a_job_before_them_goes(
    server: RunningServer, start: Start, page: Page
) -> None:
    first = start(server, "obeys")
    second, third = (start(server, "completes", queue=True) for _ in range(2))
    page.goto(server.url)
    expect(page.get_by_text("number 2 in the queue")).to_be_visible(timeout=20_000)
    server.post(f"/api/jobs/{second}/cancel")
    expect(page.get_by_text("number 2 in the queue")).to_be_hidden(timeout=20_000)
    expect(page.get_by_text("number 1 in the queue")).to_be_visible(timeout=20_000)
    server.post(f"/api/jobs/{first}/stop")
    server.wait_for(third, "completed")
