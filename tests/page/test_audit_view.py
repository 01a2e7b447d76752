"""The log in a browser: what happened, how things stood, and whether it is what was written."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from support.attempt_files import model_in, training
from support.running_server import RECORDS, RunningServer

pytestmark = pytest.mark.timeout(120)
HOSTILE = "<img src=x onerror=alert(1)>.jsonl"


@pytest.fixture(scope="module")
def past(module_server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunningServer, str]:
    """A server that trained once, and the job."""
    module_server.upload(RECORDS).raise_for_status()
    module_server.upload(RECORDS, HOSTILE).raise_for_status()
    model = model_in(tmp_path_factory.mktemp("model"))
    job_id = module_server.post("/api/start_training", training(model, "completes")).json()["job_id"]
    module_server.wait_for(job_id)
    return module_server, job_id


@pytest.fixture
def page(browser: Browser, past: tuple[RunningServer, str]) -> Iterator[Page]:
    with browser.new_context() as context:
        found = context.new_page()
        faults: list[str] = []
        found.on("pageerror", lambda fault: faults.append(str(fault)))
        found.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        yield found
        assert not faults


def test_records_stand_newest_first_and_lead_to_their_cause(past: tuple[RunningServer, str], page: Page) -> None:
    server, job_id = past
    records = server.get("/api/events?limit=10000").json()["events"]
    page.goto(f"{server.url}/#/audit")
    lines = page.get_by_label("Records, newest first").locator("> li")
    expect(lines).to_have_count(len(records), timeout=20_000)
    shown = [int(text) for text in lines.locator("summary code").all_inner_texts()]
    assert shown == [record["position"] for record in reversed(records)]
    caused = next(record for record in records if record["type"] == "TrainingRequested")
    lines.filter(has_text="TrainingRequested").locator("summary").click()
    expect(page.get_by_text(caused["digest"])).to_be_visible()
    page.get_by_role("link", name=f"record {caused['cause']}").click()
    expect(page.get_by_role("heading", name=f"Record {caused['cause']}: StartTraining")).to_be_visible()
    page.goto(f"{server.url}/#/audit?type=TrainingCompleted&stream={job_id}")
    expect(lines).to_have_count(1)


def test_what_comes_is_shown_and_waits_while_a_record_is_read(past: tuple[RunningServer, str], page: Page) -> None:
    server, _ = past
    page.goto(f"{server.url}/#/audit?type=DatasetUploaded")
    lines = page.get_by_label("Records, newest first").locator("> li")
    expect(lines.first).to_be_visible(timeout=20_000)
    before = lines.count()
    server.upload(RECORDS, "later.jsonl").raise_for_status()
    expect(lines).to_have_count(before + 1, timeout=20_000)
    lines.first.locator("summary").click()
    server.upload(RECORDS, "latest.jsonl").raise_for_status()
    page.get_by_role("button", name="Show 1 new").click(timeout=20_000)
    expect(lines).to_have_count(before + 2)


def test_any_position_shows_the_state_that_the_api_has_there(past: tuple[RunningServer, str], page: Page) -> None:
    server, job_id = past
    head = server.get("/api/state").json()["position"]
    page.goto(f"{server.url}/#/audit")
    slider = page.get_by_label("Position")
    expect(slider).to_have_value(str(head), timeout=20_000)
    page.get_by_role("button", name="One record back").click()
    expect(slider).to_have_value(str(head - 1))
    slider.focus()
    page.keyboard.press("Home")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    stood = server.get("/api/state?at=4").json()
    assert [dataset["filename"] for dataset in stood["datasets"]] == ["data.jsonl", HOSTILE]
    expect(page.get_by_text("came Model 1: completes")).to_be_visible(timeout=30_000)
    expect(page.get_by_text(f"idle, now {job_id} completed")).to_be_visible()
    page.get_by_text("Models and datasets then").click()
    expect(page.get_by_text(f"{HOSTILE}, revision 1")).to_be_visible()
    page.get_by_role("button", name="Now", exact=True).click()
    expect(page.get_by_role("heading", name="What has changed since")).to_be_hidden()


def test_verify_says_the_digest_and_then_the_record_that_was_changed(
    past: tuple[RunningServer, str], page: Page, module_data_dir: Path
) -> None:
    server, _ = past
    page.goto(f"{server.url}/#/audit")
    page.get_by_role("button", name="Verify").click(timeout=20_000)
    last = server.get("/api/events?limit=10000").json()["events"][-1]
    expect(page.get_by_text(f"All {last['position']} records are what was written")).to_be_visible(timeout=30_000)
    expect(page.get_by_text(last["digest"]).first).to_be_visible()
    with closing(sqlite3.connect(module_data_dir / "events.sqlite")) as connection:
        (actor,) = connection.execute("SELECT actor FROM records WHERE position = 3").fetchone()
        connection.execute("UPDATE records SET actor = 'somebody' WHERE position = 3")
        connection.commit()
        page.get_by_role("button", name="Verify").click()
        expect(page.get_by_text("The first that does not fit is 3.")).to_be_visible(timeout=30_000)
        connection.execute("UPDATE records SET actor = ? WHERE position = 3", (actor,))
        connection.commit()
