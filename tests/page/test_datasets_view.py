"""The view of the datasets: what is sent is checked and told by its lines, what is there is found and deleted."""

import json
import re

import pytest
from playwright.sync_api import FilePayload, Page, expect
from support.looked_at import SMALL, LookedAt, overflow
from support.running_server import RunningServer

from page.conftest import Violations

MARKUP = "<img src=x onerror=document.title='broken'>"
RECORDS = [
    {
        "input": f"Question {n} {MARKUP}",
        "output": f"Answer {n}: \u202eedisni tuo",
        "more": {"n": n, "deep": ["x" * 900]},
    }
    for n in range(60)
]


def file(name: str, records: list[object]) -> FilePayload:
    content = "".join(json.dumps(record) + "\n" for record in records).encode()
    return {"name": name, "mimeType": "application/jsonl", "buffer": content}


@pytest.fixture(scope="module")
def stocked(module_server: RunningServer) -> RunningServer:
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS)
    module_server.upload(lines.encode(), f"{MARKUP}.jsonl").raise_for_status()
    return module_server


@pytest.fixture
def one(open_page: LookedAt, stocked: RunningServer) -> Page:
    page = open_page(stocked, "datasets")
    page.get_by_role("link", name=f"{MARKUP}.jsonl").click()
    page.get_by_role("region", name="Records").wait_for()
    return page


def test_a_file_that_is_dropped_is_told_its_errors_by_line_and_then_its_records(
    open_page: LookedAt, stocked: RunningServer
) -> None:
    # given
    open_page.allow("Failed to load resource.* 400")
    page = open_page(stocked, "datasets")
    bad = file("new.jsonl", [{"input": "a", "output": "b"}, {"input": "c"}, {"input": "d", "output": " "}])
    page.evaluate("window.stays = true")
    # when
    transfer = page.evaluate_handle(
        """([name, text]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([text], name));
          return transfer;
        }""",
        [bad["name"], bad["buffer"].decode()],
    )
    page.dispatch_event(".drop", "drop", {"dataTransfer": transfer})
    # then
    errors = page.get_by_role("region", name="Errors").locator("tbody tr")
    expect(errors).to_have_count(2)
    expect(errors.nth(0)).to_contain_text(re.compile(r"2\s*output\s*The field 'output' is missing"))
    expect(errors.nth(1)).to_contain_text(re.compile(r"3\s*output\s*It is blank"))
    assert page.get_by_role("link", name="new.jsonl").count() == 0
    # and
    page.set_input_files("input[type=file]", files=[file("new.jsonl", [{"input": "a", "output": "b"}] * 3)])
    expect(page.locator(".taken")).to_contain_text("new.jsonl: 3 records of the format input_output")
    expect(page.get_by_role("link", name="new.jsonl")).to_be_visible()
    page.get_by_text("warning").click()
    expect(page.get_by_role("region", name="Warnings")).to_be_visible()
    assert page.evaluate("window.stays")


def test_columns_that_a_refusal_proposes_are_taken_by_a_button(open_page: LookedAt, stocked: RunningServer) -> None:
    open_page.allow("Failed to load resource.* 400")
    page = open_page(stocked, "datasets")
    page.set_input_files("input[type=file]", files=[file("columns.jsonl", [{"text": "a", "headline": "b"}])])
    page.get_by_role("button", name="Read its columns as").click()
    expect(page.locator(".taken")).to_contain_text("1 records")


def test_a_search_finds_and_turns_its_pages(one: Page) -> None:
    rows = one.get_by_role("region", name="Records").locator("tbody tr")
    expect(rows).to_have_count(25)
    one.get_by_role("button", name="Later").click()
    expect(one.get_by_role("status").last).to_contain_text("Records 26 to 50 of 60")
    one.get_by_role("searchbox", name="Search").fill("ANSWER 5")
    expect(rows).to_have_count(11)
    expect(rows.first.locator("mark")).to_have_text("Answer 5")
    one.get_by_role("searchbox", name="Search").fill("[.*")
    expect(one.get_by_text("No record has it here.")).to_be_visible()


def test_hostile_names_and_records_stay_text(one: Page, violations: Violations) -> None:
    expect(one.get_by_role("heading", level=1)).to_have_text(f"{MARKUP}.jsonl")
    expect(one.locator("tbody tr").first).to_contain_text(MARKUP)
    one.get_by_role("button", name="All 9").first.click()
    one.set_viewport_size(SMALL)
    assert one.locator("img[src=x]").count() == 0
    assert "broken" not in one.title().replace(MARKUP, "")
    assert overflow(one) == []
    assert violations(one) == []


def test_a_dataset_leads_to_its_training_its_jobs_and_its_end(
    open_page: LookedAt, server: RunningServer, model_folder: object
) -> None:
    server.upload(b'{"input": "a", "output": "b"}\n' * 8, "used.jsonl").raise_for_status()
    server.upload(b'{"input": "a", "output": "c"}\n' * 9, "used.jsonl").raise_for_status()
    body = {
        "task": "text-generation",
        "model_name": str(model_folder),
        "dataset": "used.jsonl",
        "output_name": "completes",
    }
    job = server.post("/api/start_training", body).json()["job_id"]
    server.wait_for(job)
    page = open_page(server, "datasets/used.jsonl?tab=uses")
    expect(page.get_by_role("link", name=job)).to_be_visible()
    expect(page.get_by_role("link", name="Train on it")).to_have_attribute("href", "#/start?dataset=used.jsonl")
    page.get_by_role("table").get_by_role("link", name="1").click()
    expect(page.get_by_text("This is revision 1, an earlier one.")).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("group", name="Delete it, with all revisions?").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("None yet.")).to_be_visible()
    assert server.get("/api/datasets").json() == {"datasets": []}
