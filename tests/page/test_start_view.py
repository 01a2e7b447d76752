"""The view that starts a training: what is chosen is what is sent, and what speaks against it says what would work."""

import ast
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from playwright.sync_api import Page, Route, expect
from support.attempt_files import write_model
from support.looked_at import SMALL, LookedAt, overflow
from support.running_server import RECORDS, RunningServer

from page.conftest import Violations
from trainer_entry import wire

MARKUP = "<img src=x onerror=document.title='broken'>"
SEEN = wire.PreviewSettings(
    task="text-generation",
    strategy="sft",
    provider="huggingface",
    model_name="tiny",
    max_seq_length=6,
    context=256,
    chat_template=False,
)
TOKENS = (("question ", False), (f"{MARKUP}\n", False), (" answer", True))
PREVIEW = wire.DatasetPreview(
    filename="data.jsonl",
    revision=1,
    format="input_output",
    num_examples=20,
    records=(
        wire.PreviewedRecord(
            line=1,
            record=msgspec.Raw(b"{}"),
            examples=(
                wire.ExampleView(
                    sequences=(
                        wire.SequenceView(
                            name="text",
                            tokens=tuple(wire.TokenView(id=7, text=text, loss=loss) for text, loss in TOKENS),
                            length=6,
                        ),
                    )
                ),
            ),
        ),
    ),
    has_more=True,
    seen_with=SEEN,
)
STATISTICS = wire.DatasetStatistics(
    filename="data.jsonl",
    revision=1,
    format="input_output",
    num_examples=20,
    measured=20,
    examples=20,
    left_out=0,
    left_out_lines=(),
    tokens=90,
    loss_tokens=30,
    lengths=(
        wire.Lengths(
            sequence="text",
            count=20,
            mean=5,
            quantiles=wire.Quantiles(min=2, p5=2, p25=3, p50=4, p75=5, p95=8, p99=8, max=8),
            histogram=wire.Histogram(edges=(2, 4, 6, 8), counts=(6, 10, 4)),
            limit=6,
            truncated=4,
            truncated_share=0.2,
        ),
    ),
    seen_with=SEEN,
    cut=4,
)
MORE = b"".join(RECORDS.splitlines(keepends=True)[:8])
PREFERENCES = b'{"prompt": "Say hello.", "chosen": "Hello!", "rejected": "No."}\n' * 8


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "vocab_size": 16,
    }
    return write_model(tmp_path_factory.mktemp("models") / "tiny", {"architectures": ["LlamaForCausalLM"], **config})


@pytest.fixture(scope="module")
def stocked(module_server: RunningServer) -> RunningServer:
    module_server.upload(RECORDS).raise_for_status()
    module_server.upload(PREFERENCES, "preferences.jsonl").raise_for_status()
    return module_server


def shown(page: Page) -> dict[str, Any]:
    """The body that the text for curl has."""
    text = page.get_by_role("region", name="The same as curl").inner_text()
    found = re.search(r"/api/start_training -d '(.*)'$", text, re.DOTALL)
    assert found, text
    body: dict[str, Any] = json.loads(found[1].replace("'\\''", "'"))
    return body


def test_what_is_sent_is_what_the_texts_to_copy_say(open_page: LookedAt, stocked: RunningServer, tiny: Path) -> None:
    # given
    page = open_page(stocked, "start")
    assert page.get_by_role("button", name="Start").is_disabled()
    page.get_by_label("Dataset", exact=True).select_option("data.jsonl")
    page.get_by_label("Base").select_option(label="Another: of the hub, or a folder")
    page.get_by_label("Its name").fill(str(tiny))
    page.get_by_label("Name of what comes of it").fill("waits")
    page.get_by_label("Batch size").fill("2")
    page.get_by_label("Learning rate").press_sequentially("0.0005")
    page.get_by_label("Steps at most").fill("4000")
    page.get_by_text("Optimizer and schedule").click()
    page.get_by_label("lr_scheduler_type").select_option("cosine")
    page.get_by_text("Others").click()
    page.get_by_label("metadata").fill('{"it\'s": "\u202ea \\"note\\" <b>"}')
    page.get_by_label("metadata").press("Tab")
    expect(page.get_by_text("✓ It can be trained like this")).to_be_visible(timeout=30_000)
    body = shown(page)
    # when
    with page.expect_request("**/api/start_training") as sent:
        page.get_by_role("button", name="Start").click()
    # then
    page.wait_for_url(re.compile("#/jobs/train_"))
    job = page.url.rpartition("/")[2]
    assert sent.value.post_data_json == body
    assert body == {
        "task": "text-generation", "model_name": str(tiny), "dataset": "data.jsonl", "strategy": "sft",
        "output_name": "waits", "per_device_train_batch_size": 2, "learning_rate": 0.0005, "max_steps": 4000,
        "lr_scheduler_type": "cosine", "metadata": {"it's": '\u202ea "note" <b>'},
    }  # fmt: skip
    # and: another one is made of it, says the same, and waits for its turn
    open_page.go(page, f"start?from={job}")
    expect(page.get_by_label("Batch size")).to_have_value("2")
    assert shown(page) == {**body, "queue": True}  # one runs
    page.get_by_label("Batch size").fill("4")
    page.get_by_role("button", name="Python").click()
    python = page.get_by_role("region", name="The same as Python").inner_text()
    found = re.search(r"json=(\{.*\}),\n\)\n", python, re.DOTALL)
    assert found, python
    assert ast.literal_eval(found[1]) == {**body, "per_device_train_batch_size": 4, "queue": True}
    open_page.allow("Failed to load resource.* 409")
    page.get_by_role("button", name="Start").click()
    page.get_by_role("button", name="Queue").click()
    page.wait_for_url(re.compile("#/jobs/train_"))
    queued = stocked.get(f"/api/jobs/{page.url.rpartition('/')[2]}").json()
    assert (queued["status"], queued["config"]["per_device_train_batch_size"]) == ("queued", 4)
    for name in (queued["job_id"], job):
        stocked.post(f"/api/jobs/{name}/stop")
    stocked.wait_for(job)


def test_what_speaks_against_it_stands_at_its_field_with_a_button_that_mends_it(
    open_page: LookedAt, stocked: RunningServer, tiny: Path, violations: Violations
) -> None:
    page = open_page(stocked, f"start?dataset=data.jsonl&model={tiny}", size=SMALL)
    page.get_by_text("Evaluation and checkpoints").click()
    page.get_by_label("eval_steps").fill("5")
    parameter = page.locator(".parameter", has=page.get_by_label("eval_steps"))
    expect(parameter.get_by_role("alert")).to_contain_text(
        "eval_steps and eval_split 0 do not go together", timeout=30_000
    )
    expect(page.get_by_text("1 thing speaks against it")).to_be_visible()
    assert violations(page) == []
    assert overflow(page) == []
    parameter.get_by_role("button", name="Use eval_split: 0.1").click()
    expect(page.get_by_text("✓ It can be trained like this")).to_be_visible(timeout=30_000)
    assert (shown(page)["eval_split"], page.get_by_label("Held-out share").input_value()) == (0.1, "0.1")
    expect(page.locator(".memory .bar")).to_have_attribute(
        "aria-label", re.compile("Weights: .*Optimizer: .*Activations")
    )


def test_several_datasets_are_put_together_and_sent_as_they_are_shown(
    open_page: LookedAt, stocked: RunningServer, tiny: Path, violations: Violations
) -> None:
    page = open_page(stocked, f"start?dataset=data.jsonl&model={tiny}", size=SMALL)
    page.get_by_role("button", name="Train on another one too").click()
    assert page.get_by_role("button", name="Start").is_disabled()
    page.locator("input[type=file]").set_input_files({"name": "more.jsonl", "mimeType": "", "buffer": MORE})
    expect(page.get_by_label("Dataset 2", exact=True)).to_have_value("more.jsonl")
    page.get_by_role("button", name="Add a dataset").click()
    page.get_by_label("Dataset 3", exact=True).select_option("preferences.jsonl")
    expect(page.get_by_text("1 thing speaks against it")).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Leave out dataset 3").click()
    expect(page.get_by_role("button", name="Add a dataset")).to_be_focused()
    page.get_by_label("Weight").nth(1).fill("2")
    page.get_by_label("Records at most").nth(0).fill("5")
    page.get_by_label("Name of what comes of it").fill("completes")
    page.get_by_label("Name of what comes of it").press("Tab")
    expect(page.get_by_text("It gives 5 of its 20 records.")).to_be_visible(timeout=30_000)
    expect(page.get_by_text("✓ It can be trained like this")).to_be_visible(timeout=30_000)
    assert violations(page) == []
    assert overflow(page) == []
    asked = [{"dataset": "data.jsonl", "max_samples": 5}, {"dataset": "more.jsonl", "weight": 2}]
    assert shown(page)["dataset"] == asked
    page.get_by_role("button", name="Start").click()
    page.wait_for_url(re.compile("#/jobs/train_"))
    job = stocked.wait_for(page.url.rpartition("/")[2])
    open_page.go(page, f"start?from={job['job_id']}")
    assert shown(page)["dataset"] == [asked[0] | {"weight": 1}, asked[1]]
    # one that is elsewhere stays so when the row before it is left out, and one alone is asked for by its name
    page.get_by_role("button", name="Add a dataset").click()
    page.get_by_label("Dataset 3", exact=True).select_option("Another: of the hub, or a file on the server")
    page.get_by_role("button", name="Leave out dataset 1").click()
    expect(page.get_by_label("Its place")).to_have_count(1)
    page.get_by_role("button", name="Leave out dataset 2").click()
    expect(page.get_by_label("Its place")).to_have_count(0)
    page.get_by_label("Weight").fill("")
    page.get_by_label("Weight").press("Tab")
    page.get_by_role("button", name="Add a dataset").click()
    page.get_by_role("button", name="Leave out dataset 2").click()
    assert shown(page)["dataset"] == "more.jsonl"


def test_a_file_that_was_named_by_its_path_is_asked_for_again_as_it_was_read(
    open_page: LookedAt, stocked: RunningServer, tiny: Path
) -> None:
    path = tiny.with_name("asked.jsonl")
    path.write_bytes('{"asked": "Привет", "said": "answer"}\n'.encode("koi8_r") * 9)
    read = {"dataset": str(path), "columns": {"input": "asked", "output": "said"}, "encoding": "koi8-r"}
    body = {"task": "text-generation", "model_name": str(tiny), "strategy": "sft", "output_name": "completes", **read}
    job_id = stocked.post("/api/start_training", body).json()["job_id"]
    stocked.wait_for(job_id)
    page = open_page(stocked, f"start?from={job_id}")
    assert {name: shown(page)[name] for name in read} == read
    expect(page.get_by_text("✓ It can be trained like this")).to_be_visible(timeout=30_000)


def test_a_remedy_of_memory_is_one_button(open_page: LookedAt, stocked: RunningServer, tiny: Path) -> None:
    page = open_page(stocked, f"start?dataset=data.jsonl&model={tiny}")
    expect(page.get_by_text("✓ It can be trained like this")).to_be_visible(timeout=30_000)
    remedy = (
        'The largest that fits is "per_device_train_batch_size": 2; with "gradient_accumulation_steps": 8 it learns '
        'from as many records a step. "gradient_checkpointing": true fits at "per_device_train_batch_size": 4.'
    )

    def refuse(body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = stocked.post("/api/preflight", body).json()
        problem = {"field": "per_device_train_batch_size", "message": "The training needs too much", "remedy": remedy}
        return answer | ({} if body.get("gradient_checkpointing") else {"ok": False, "problems": [problem]})

    page.route("**/api/preflight", lambda route: route.fulfill(json=refuse(route.request.post_data_json)))
    page.get_by_label("Batch size").fill("16")
    page.get_by_role("button", name="Use gradient_checkpointing: true, per_device_train_batch_size: 4").click()
    expect(page.get_by_text("✓ It can be trained like this")).to_be_visible(timeout=30_000)
    assert shown(page)["gradient_checkpointing"] is True
    assert shown(page)["per_device_train_batch_size"] == 4


def test_what_a_dataset_cannot_serve_says_why(open_page: LookedAt, stocked: RunningServer) -> None:
    page = open_page(stocked, "start?dataset=preferences.jsonl")
    expect(page.get_by_role("radio", name="DPO")).to_be_checked()
    expect(page.get_by_role("radio", name="SFT")).to_be_disabled()
    expect(page.locator(".choice", has=page.get_by_role("radio", name="SFT"))).to_contain_text(
        "It needs records with an answer, or texts; this dataset has the format preferences."
    )
    page.get_by_label("Dataset", exact=True).select_option("data.jsonl")
    expect(page.get_by_role("radio", name="SFT")).to_be_enabled()
    expect(page.get_by_role("radio", name="DPO")).to_be_disabled()
    expect(page.get_by_role("radio", name="SFT")).to_be_checked()


def test_the_model_is_seen_to_read_the_records_and_to_learn_the_answers(
    open_page: LookedAt, stocked: RunningServer, tiny: Path
) -> None:
    page = open_page(stocked, f"start?dataset=data.jsonl&model={tiny}")
    asked: list[str] = []

    def told(route: Route, answer: msgspec.Struct) -> None:
        asked.append(route.request.url)
        route.fulfill(body=msgspec.json.encode(answer), content_type="application/json")

    page.route("**/preview?*", lambda route: told(route, PREVIEW))
    page.route("**/statistics?*", lambda route: told(route, STATISTICS))
    page.get_by_label("Longest example").fill("6")
    page.get_by_text("As the model reads it").click()
    tokens = page.locator(".tokens").first
    expect(tokens).to_have_text(f"question {MARKUP}↵\n answer")
    assert tokens.locator("mark").all_inner_texts() == [" answer"]
    expect(page.get_by_text("3 of 6 tokens are cut off")).to_be_visible()
    expect(page.locator(".histogram svg")).to_have_attribute(
        "aria-label", re.compile("4 of 20 are longer than 6 tokens")
    )
    assert page.locator(".histogram rect.beyond").count() == 1
    for url in asked:
        query = parse_qs(urlsplit(url).query)
        assert (query["model_name"], query["max_seq_length"], query["strategy"]) == ([str(tiny)], ["6"], ["sft"])
