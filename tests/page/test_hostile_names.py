"""Names and words of others are text on the page, whatever they are made of, and keep to their place."""

import pytest
from playwright.sync_api import Page, expect
from support.full_server import BACKWARDS_DATASET, HOSTILE_DATASET, HOSTILE_MODEL, LONG_DATASET, MARKUP
from support.looked_at import PHONE, SMALL, LookedAt, overflow
from support.running_server import RunningServer


def made_nothing(page: Page) -> None:
    """No text has become an element or run."""
    assert page.locator("img[src='x'], [onerror], main b[onclick]").count() == 0
    assert "broken into" not in page.title()
    assert overflow(page) == []


@pytest.mark.parametrize("place", ["", "jobs"])
def test_hostile_datasets_models_and_errors_are_shown_as_text(
    open_page: LookedAt, full_server: RunningServer, place: str
) -> None:
    page = open_page(full_server, place, size=PHONE)
    main = page.locator("main")
    for word in (HOSTILE_DATASET, LONG_DATASET, BACKWARDS_DATASET, MARKUP, HOSTILE_MODEL):
        expect(main).to_contain_text(word)
    made_nothing(page)
    page.set_viewport_size(SMALL)
    made_nothing(page)
    # a list on a phone is one of cards, and none of them is for a long name or error alone
    for row in page.locator(".listed tbody tr").all():
        box = row.bounding_box()
        assert box
        assert box["height"] < SMALL["height"] / 2


def test_the_log_and_how_things_stood_show_hostile_words_as_text(
    open_page: LookedAt, full_server: RunningServer, full_jobs: dict[str, str]
) -> None:
    page = open_page(full_server, f"audit?stream={full_jobs['failed']}", size=SMALL)
    for record in page.locator(".records summary").all():
        record.click()
    expect(page.locator(".records")).to_contain_text(MARKUP.replace('"', '\\"'))
    page.get_by_text("Models and datasets then").click()
    for name in (HOSTILE_DATASET, LONG_DATASET, BACKWARDS_DATASET):
        expect(page.locator("main")).to_contain_text(f"{name}, revision 1")
    made_nothing(page)


def test_a_name_that_is_written_from_right_to_left_turns_nothing_around_it(
    open_page: LookedAt, full_server: RunningServer, full_jobs: dict[str, str]
) -> None:
    page = open_page(full_server)
    line = page.locator(".job-line", has_text=BACKWARDS_DATASET)
    assert line.locator("bdi", has_text=BACKWARDS_DATASET).count() == 1
    badge, number = line.locator(".badge").bounding_box(), line.get_by_text(full_jobs["queued 2"]).bounding_box()
    assert badge
    assert number
    assert badge["x"] < number["x"]


@pytest.mark.parametrize("end", ["failed", "training"])
@pytest.mark.parametrize("tab", ["curves", "configuration", "log", "records"])
def test_a_job_shows_hostile_words_as_text_in_every_tab(
    open_page: LookedAt, full_server: RunningServer, full_jobs: dict[str, str], end: str, tab: str
) -> None:
    page = open_page(full_server, f"jobs/{full_jobs[end]}?tab={tab}", size=SMALL)
    expect(page.locator("main")).to_contain_text(HOSTILE_DATASET)
    if end == "failed":
        expect(page.get_by_role("alert")).to_contain_text(MARKUP)
    if tab == "log":
        log = page.get_by_role("region", name="What the trainer wrote")
        expect(log).to_contain_text(MARKUP)
        shown = log.inner_text()
        assert not any(ord(letter) < ord(" ") and letter != "\n" for letter in shown)
    if tab == "records":
        for record in page.locator(".records summary").all():
            record.click()
    made_nothing(page)
