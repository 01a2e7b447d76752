"""Jobs over each other: their curves, and what they differ in."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Locator, Page, expect
from support.attempt_files import model_in, training, until_step
from support.looked_at import PHONE, LookedAt, overflow
from support.running_server import RECORDS, RunningServer
from support.told_models import HOSTILE, told_server, trainings

SERIES = 8
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RunningServer]:
    yield from told_server(folder)


def chart(page: Page, name: str) -> Locator:
    return page.get_by_role("img", name=re.compile(f"^{name}: "))


def test_the_curves_of_all_stand_in_one_chart(open_page: LookedAt, server: RunningServer) -> None:
    first, *_, last = trainings(server)
    page = open_page(server, f"compare?jobs={first},{last}")
    page.get_by_label("Smoothing").select_option("None")
    expect(chart(page, "Loss")).to_have_accessible_name("Loss: 1 0.5, from 3; 2 0.3333, from 3; up to step 9")
    expect(chart(page, "Held-out loss")).to_have_accessible_name(
        "Held-out loss: 1 1, from 1; 2 1, from 1; up to step 9"
    )
    for name in ("Reward", "KL divergence", "Learning rate"):
        expect(chart(page, name)).to_be_visible()
    page.get_by_label("Over").select_option("Time of training")
    expect(chart(page, "Reward")).to_have_accessible_name("Reward: 1 0.6, from 0.1; 2 0.9, from 0.1; up to time 18 s")
    page.get_by_label("Over").select_option("Epochs")
    expect(chart(page, "Held-out loss")).to_have_accessible_name(
        "Held-out loss: 1 1, from 1; 2 1, from 1; up to epoch 1"
    )


def test_the_table_has_what_differs_and_nothing_else(open_page: LookedAt, server: RunningServer) -> None:
    first, *_, last = trainings(server)
    page = open_page(server, f"compare?jobs={first},{last}", size=PHONE)
    table = page.get_by_role("region", name="Differences")
    rows = {row.get_by_role("rowheader").inner_text(): row for row in table.locator("tr:not(.part)").all()[1:]}
    assert set(rows) == {
        *("Steps", "Last loss", "Last reward", "Last KL", "learning_rate", "lora_r"),
        *("Dataset", "SHA-256", "Model"),
    }
    assert rows["learning_rate"].get_by_role("cell").all_inner_texts() == ["0.0002", "0.00005"]
    assert rows["SHA-256"].get_by_role("cell").all_inner_texts() == ["3f" * 8, "4f" * 8]
    expect(rows["Model"].get_by_role("cell").last).to_have_text(HOSTILE)
    expect(page.locator("main img")).to_have_count(0)
    assert overflow(page) == []


def test_jobs_are_chosen_and_left_out(open_page: LookedAt, server: RunningServer) -> None:
    first, second, *_ = trainings(server)
    page = open_page(server, "compare")
    page.get_by_role("checkbox", name=first).check()
    page.get_by_role("checkbox", name=second).check()
    expect(page.get_by_role("heading", name="What they differ in")).to_be_visible()
    assert page.url.endswith(f"?jobs={first}%2C{second}")
    page.get_by_role("button", name=f"Leave out {first}").click()
    expect(page.locator(".compared li")).to_have_count(1)
    page.go_back()
    expect(page.locator(".compared li")).to_have_count(2)


def test_a_job_that_is_not_there_is_said_and_the_others_are_shown(open_page: LookedAt, server: RunningServer) -> None:
    open_page.allow("Failed to load resource.* 404")
    page = open_page(server, f"compare?jobs={trainings(server)[0]},train_999999")
    expect(page.get_by_role("alert")).to_contain_text("train_999999")
    expect(page.locator(".compared li")).to_have_count(1)


def test_eight_jobs_differ_in_colour_and_in_dashes_in_both_themes(open_page: LookedAt, server: RunningServer) -> None:
    page = open_page(server, "compare")
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        drawn = page.evaluate(
            """async (many) => {
              const { drawn } = await import("/page/compare_swatch.js");
              const style = getComputedStyle(document.documentElement);
              const all = Array.from({ length: many }, (_, index) => drawn(index));
              return all.map(({ colour, dash }) => [style.getPropertyValue(colour).trim(), dash.join()]);
            }""",
            SERIES,
        )
        assert len({colour for colour, _ in drawn}) == SERIES
        assert len({dash for _, dash in drawn}) == SERIES
        assert all(colour.startswith("#") for colour, _ in drawn)


def test_curves_of_other_steps_are_put_over_one_axis(open_page: LookedAt, server: RunningServer) -> None:
    page = open_page(server, "compare")
    merged = page.evaluate(
        """async () => (await import("/page/compare_curves.js")).together([
          [[1, 3], [10, 30], [11, null]], [[2, 3], [20, 31]], [[], []],
        ])"""
    )
    assert merged == [[1, 2, 3], [10, None, 30], [11, None, None], [None, 20, 31], [None, None, None]]


def test_a_job_that_runs_grows_beside_the_others(open_page: LookedAt, server: RunningServer, folder: Path) -> None:
    server.upload(RECORDS)
    job_id = server.post("/api/start_training", training(model_in(folder), "obeys")).json()["job_id"]
    until_step(server, job_id, 3)
    page = open_page(server, f"compare?jobs={trainings(server)[0]},{job_id}")
    page.get_by_label("Smoothing").select_option("None")
    expect(chart(page, "Loss")).to_have_accessible_name("Loss: 1 0.5, from 3; 2 0.3333, from 1; up to step 6")
    attempt = folder / "data" / "jobs" / job_id / "attempt-1"
    (attempt / "order").write_text("step")
    expect(chart(page, "Loss")).to_have_accessible_name("Loss: 1 0.5, from 3; 2 0.1667, from 1; up to step 6")
    (attempt / "order").write_text("finish")
    expect(page.locator(".compared li").last).to_contain_text("Completed")
    server.wait_for(job_id)
