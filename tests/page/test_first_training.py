"""The first training as a person does it: from a file that is dropped on an empty server to the tuned model's word."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect
from support.looked_at import LookedAt, until
from support.page_curves import points
from support.running_server import RECORDS, RunningServer, real_server
from support.tiny_model import build_tiny_model

from trainer_entry import wire

pytestmark = [pytest.mark.training, pytest.mark.timeout(300)]
STEPS = 12
SOON = 60_000
"""Milliseconds in which a process with the training libraries has begun, on a busy machine."""
DROPS = """(records) => {
  const dropped = new DataTransfer();
  dropped.items.add(new File([records], "answers.jsonl"));
  return dropped;
}"""
GROWS = """async (id) => {
  const { curvesOf } = await import("/page/jobs.js");
  window.lengths = [];
  curvesOf(id).subscribe(() => lengths.push(curvesOf(id).step.length));
}"""


class Person:
    """Clicks, types and drops, and counts what that was."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.clicks = 0
        self.typed: list[str] = []
        self.drops = 0

    def click(self, what: Locator) -> None:
        what.click()
        self.clicks += 1

    def type(self, text: str, where: Locator) -> None:
        """Into a field, and Enter."""
        self.click(where)
        where.press_sequentially(text)
        where.press("Enter")
        self.typed.append(text)

    def drop(self, records: bytes, where: str) -> None:
        """A file, as a browser tells a page of one that was dragged into it."""
        dropped = self._page.evaluate_handle(DROPS, records.decode())
        for event in ("dragover", "drop"):
            self._page.dispatch_event(where, event, {"dataTransfer": dropped})
        self.drops += 1


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[RunningServer]:
    """A real server with a tiny model in the place of the built-in one."""
    build_tiny_model(tmp_path / "cache" / "modelforge" / wire.BUILT_IN_MODEL)
    server = real_server(tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"), HF_HOME=str(tmp_path / "hub"))
    yield server
    if server.get("/api/training_status").json()["status"] in {"starting", "training"}:
        server.post("/api/stop_training")
    server.end()


def test_from_a_dropped_file_to_an_answer_of_the_tuned_model(empty: RunningServer, open_page: LookedAt) -> None:
    page = open_page(empty)
    person = Person(page)
    person.drop(RECORDS, "main")  # anywhere will do
    page.wait_for_url("**/#/start?*")
    expect(page.get_by_text("input_output, 20 records")).to_be_visible()
    # what is learned of it is seen before it begins
    person.click(page.get_by_text("As the model reads it"))
    first = page.locator(".tokens").first
    expect(first).to_contain_text("question 0", timeout=SOON)
    assert "".join(first.locator("mark").all_inner_texts()).strip().startswith("answer 0")
    person.click(page.get_by_role("radio", name="SFT"))
    person.click(page.get_by_label("Steps at most"))
    page.get_by_label("Steps at most").fill(str(STEPS))
    person.typed.append(str(STEPS))
    expect(page.get_by_text("✓ It can be trained like this")).to_be_visible(timeout=SOON)
    person.click(page.get_by_role("button", name="Start", exact=True))
    # it is watched to its end
    page.wait_for_url("**/#/jobs/train_*")
    job_id = page.url.rpartition("/")[2]
    page.evaluate(GROWS, job_id)
    until(page, "() => document.querySelector('.badge.completed')", seconds=120)
    lengths: list[int] = page.evaluate("lengths")
    assert len(set(lengths)) > 3, f"it did not grow live: {lengths}"
    told = empty.get(f"/api/jobs/{job_id}/metrics").json()["metrics"]
    assert [metric["step"] for metric in told] == [*range(1, STEPS + 1)]
    assert points(page, job_id) == [(metric["attempt"], metric["step"], metric["loss"]) for metric in told]
    last = f"{told[-1]['loss']:.4g}"
    expect(page.get_by_role("img", name=f"Loss: loss {last}")).to_be_visible()
    # and asked
    person.click(page.get_by_role("link", name="Try the model"))
    person.type("question 7", page.get_by_label("Say something"))
    expect(page.locator(".answer footer")).to_be_visible(timeout=SOON)
    expect(page.locator(".answer header")).to_contain_text(empty.get("/api/models").json()["models"][0]["name"])
    assert page.locator(".answer .said").inner_text() != ""
    assert (person.drops, person.clicks, person.typed) == (1, 6, [str(STEPS), "question 7"])
