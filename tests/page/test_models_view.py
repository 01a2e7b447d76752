"""The models of the page: what they were made of, what they learned, and what is made of them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.attempt_files import model_in, training
from support.looked_at import PHONE, LookedAt, overflow, until
from support.running_server import RECORDS, RunningServer
from support.told_models import COOK, HOSTILE, HOSTILE_MODEL, MERGED, READER, WRITER, told_server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RunningServer]:
    yield from told_server(folder)


def asked_for(page: Page, work: str) -> None:
    """Send the form of some work, as it stands."""
    page.locator("form").get_by_role("button", name=work).click()


def test_the_list_says_what_each_learned_against_its_base(open_page: LookedAt, server: RunningServer) -> None:
    page = open_page(server, "models")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="cook", exact=True))
    cells = row.get_by_role("cell").all_inner_texts()
    assert cells[:8] == [
        "cook\nmodel 1",
        "base",
        "Text generation",
        "SFT",
        "adapter",
        "1 base 2",
        "2.718 base 7.389",
        "1.5 MB",
    ]
    names = page.get_by_role("row").get_by_role("link").all_inner_texts()
    assert names[1:] == ["writer", "reader", "cook-merged", "cook"], "the newest is the first"
    page.get_by_role("link", name="cook-merged").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("cook-merged")


def test_the_lineage_of_a_merge_goes_from_base_and_data_to_its_export(
    open_page: LookedAt, server: RunningServer
) -> None:
    page = open_page(server, f"models/{MERGED}")
    lineage = page.get_by_role("group", name="Lineage of model 2")
    nodes = [" ".join(text.split()) for text in lineage.locator(".node").all_inner_texts()]
    trained, merged, exported = (text.split()[-1] for text in (nodes[1], nodes[4], nodes[6]))
    assert nodes == [
        "base base",
        f"SFT {trained}",
        "three_lines.jsonl 150 records",
        "cook model 1, adapter",
        f"Merge {merged}",
        "cook-merged model 2, merged",
        f"Export {exported}",
        "cook.tar tar, 1 kB",
    ]
    leads = [link.get_attribute("href") for link in lineage.get_by_role("link").all()]
    jobs = [f"#/jobs/{job}" for job in (trained, merged, exported)]
    assert leads == [jobs[0], "#/models/1", jobs[1], "#/models/2", jobs[2], jobs[2]]
    page.get_by_text("In words").click()
    words = page.locator(".lineage li").all_inner_texts()
    assert f"cook (model 1, adapter) leads to Merge ({merged})" in words
    assert f"three_lines.jsonl (150 records) leads to SFT ({trained})" in words
    assert len(words) == len(nodes) - 1
    places = [lineage.locator(".node").nth(number).bounding_box() or {} for number in (0, 7)]
    assert places[0]["y"] == places[1]["y"]
    page.set_viewport_size(PHONE)
    until(page, "() => document.querySelector('.lineage svg').clientHeight > 400")
    assert overflow(page) == [], "where there is no room it goes from top to bottom"


def test_whole_weights_have_nothing_to_merge_and_an_adapter_shows_what_came_of_it(
    open_page: LookedAt, server: RunningServer
) -> None:
    page = open_page(server, f"models/{MERGED}")
    expect(page.get_by_role("button", name="Export")).to_be_visible()
    expect(page.get_by_role("button", name="Merge")).to_have_count(0)
    copy = page.get_by_role("row").filter(has_text="/data/exports/cook.tar")
    expect(copy).to_contain_text("5f" * 32)
    open_page.go(page, f"models/{COOK}")
    expect(page.get_by_role("button", name="Merge")).to_be_visible()
    lineage = page.get_by_role("group", name="Lineage of model 1")
    expect(lineage.get_by_role("link", name="cook-merged")).to_be_visible()
    expect(lineage.get_by_text("cook.tar")).to_be_visible()
    expect(lineage.locator("[aria-current=page]")).to_have_text(re.compile("cookmodel 1"))


def test_its_figures_stand_beside_those_of_its_base_and_of_later_jobs(
    open_page: LookedAt, server: RunningServer
) -> None:
    page = open_page(server, f"models/{COOK}")
    figures = page.get_by_role("table", name="Figures of the base")
    row = figures.get_by_role("row").filter(has_text="Held-out loss")
    assert row.get_by_role("cell").all_inner_texts() == ["Held-out loss", "2", "1", "-50%"]
    later = page.get_by_role("row").filter(has_text="this model").get_by_role("cell").all_inner_texts()
    assert later[1:5] == ["three_lines.jsonl", "12", "this model", "Held-out loss 0.75"]


def test_a_refusal_stands_at_the_field_that_it_is_about(open_page: LookedAt, server: RunningServer) -> None:
    open_page.allow("Failed to load resource.* 400")
    page = open_page(server, f"models/{COOK}")
    page.get_by_role("button", name="Push").click()
    page.get_by_label("Repository").fill("a/b/c")
    asked_for(page, "Push")
    expect(page.get_by_role("alert")).to_contain_text("repo_id")
    expect(page.get_by_label("Repository")).to_have_attribute("aria-invalid", "true")

    page.get_by_role("button", name="Export").click()
    expect(page.get_by_label("Quantization")).to_have_count(0)
    page.get_by_label("As", exact=True).select_option("gguf")
    page.get_by_label("Quantization").select_option("q8_0")
    asked_for(page, "Export")
    expect(page.get_by_role("alert")).to_contain_text("config.json")

    page.get_by_role("button", name="Evaluate").click()
    asked_for(page, "Evaluate")
    expect(page.locator(".field.wrong")).to_contain_text("Dataset")


def test_a_merge_is_a_job_that_waits_its_turn_and_is_shown(
    open_page: LookedAt, server: RunningServer, folder: Path
) -> None:
    server.upload(RECORDS)
    running = server.post("/api/start_training", training(model_in(folder), "obeys")).json()["job_id"]
    page = open_page(server, f"models/{WRITER}")
    page.get_by_role("button", name="Merge").click()
    page.get_by_label("Name of the merged model").fill("whole")
    page.get_by_label("Type of the weights").select_option("float16")
    asked_for(page, "Merge")
    page.wait_for_url("**/#/jobs/*")
    job_id = page.url.rpartition("/")[2]
    asked = server.get(f"/api/events?stream={job_id}").json()["events"][0]["data"]["spec"]
    assert (asked["work"]["dtype"], asked["output_name"]) == ("float16", "whole")
    assert server.get(f"/api/jobs/{job_id}").json()["status"] == "queued"
    for job in (job_id, running):
        server.post(f"/api/jobs/{job}/stop")
    server.wait_for(running)


def test_a_deleted_model_leaves_the_list_after_a_question(open_page: LookedAt, server: RunningServer) -> None:
    open_page.allow("Failed to load resource.* 404")
    page = open_page(server, f"models/{READER}")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Models")
    expect(page.get_by_role("link", name="cook", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="reader")).to_have_count(0)
    open_page.go(page, f"models/{READER}")
    expect(page.get_by_role("alert")).to_contain_text(f"There is no model {READER}")


def test_hostile_names_are_text(open_page: LookedAt, server: RunningServer) -> None:
    page = open_page(server, f"models/{HOSTILE_MODEL}", size=PHONE)
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    expect(page.locator(".node.this bdi")).to_have_text(HOSTILE)
    expect(page.locator("main img")).to_have_count(0)
    assert overflow(page) == []
