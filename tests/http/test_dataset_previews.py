"""What is told of a dataset before a training: over HTTP, by a real worker process, of real tiny models."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from support import task_records
from support.attempt_files import write_model
from support.running_server import RunningServer, scripted_server
from support.tiny_model import CHATML, build_tiny, build_tiny_model

pytestmark = pytest.mark.slow

# Never comes to its end, and takes no memory.
ENDLESS = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
# Compared by C, which no signal interrupts: 2 to the power of 60 comparisons.
UNSTOPPABLE = (
    "{% set n = namespace(x=[0], y=[0]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}"
    "{% endfor %}{{ n.x == n.y }}"
)
STRICT = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system!') }}{% endif %}{% endfor %}"
TURNS = [{"role": "user", "content": "Why — 🍞?"}, {"role": "assistant", "content": "Yeast 🍞."}]
TALKS = [{"messages": TURNS}, {"messages": [{"role": "system", "content": "Be brief"}, *TURNS]}]


def lines(records: list[Any]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "llama": str(build_tiny_model(folder / "llama")),
        "plain": str(build_tiny_model(folder / "plain", chat_template=None)),
        "strict": str(build_tiny_model(folder / "strict", chat_template=STRICT + CHATML)),
        "greedy": str(build_tiny_model(folder / "greedy", chat_template="{{ 'a' * 10 ** 10 }}")),
        "unstoppable": str(build_tiny_model(folder / "unstoppable", chat_template=UNSTOPPABLE)),
        "endless": str(build_tiny_model(folder / "endless", chat_template=ENDLESS)),
        "bert": str(build_tiny(folder / "bert", "bert")),
        "t5": str(build_tiny(folder / "t5", "t5")),
        "broken": str(write_model(folder / "broken", {"architectures": ["LlamaForCausalLM"], "model_type": "llama"})),
    }


@pytest.fixture(scope="module")
def stocked(module_server: RunningServer) -> RunningServer:
    for name, records in (
        ("talks.jsonl", TALKS),
        ("first.jsonl", [{"input": "one", "output": "1"}]),
        ("questions.jsonl", task_records.questions(3)),
        ("preferences.jsonl", task_records.preferences(2)),
        ("answers.jsonl", task_records.answers(30)),
    ):
        module_server.upload(lines(records), name).raise_for_status()
    return module_server


def ask(server: RunningServer, dataset: str, what: str = "preview", **query: object) -> Any:
    answer = server.get(f"/api/datasets/{dataset}/{what}?{urlencode(query)}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_records_are_shown_as_they_are(stocked: RunningServer) -> None:
    # given
    records = [{"output": f"  {n} ", "input": "Ü", "more": [1, {"a": None}]} for n in range(20)]
    content = b"\n".join([b"", lines(records[:1]), b"  ", lines(records[1:]).replace(b"\n", b"\r\n")])
    stocked.upload(content, "a b%.jsonl").raise_for_status()
    # when
    shown = ask(stocked, "a%20b%25.jsonl")
    # then
    assert [record["record"] for record in shown["records"]] == records[:10]
    assert [record["line"] for record in shown["records"]] == [2, *range(5, 14)]
    assert all(record.keys() == {"line", "record"} for record in shown["records"])
    assert (shown["filename"], shown["num_examples"], shown["has_more"]) == ("a b%.jsonl", 20, True)
    assert (shown["revision"], shown["format"], shown["seen_with"]) == (1, "input_output", None)
    # and
    whole = ask(stocked, "a%20b%25.jsonl", limit=100)
    assert ([record["record"] for record in whole["records"]], whole["has_more"]) == (records, False)


def test_long_records_are_shown_only_so_far_as_they_can_be_read(stocked: RunningServer) -> None:
    records = [{"input": "x" * 3_000_000, "output": "y"} for _ in range(4)]
    stocked.upload(lines(records), "long.jsonl").raise_for_status()
    shown = ask(stocked, "long.jsonl")
    assert (len(shown["records"]), shown["has_more"]) == (2, True)


def test_records_are_turned_over_by_pages_and_searched(stocked: RunningServer) -> None:
    records = [{"input": f"Question {n}", "output": "yes" if n % 2 else "No"} for n in range(12)]
    stocked.upload(lines(records), "pages.jsonl").raise_for_status()
    first = ask(stocked, "pages.jsonl", limit=5)
    assert (first["next_offset"], first["has_more"]) == (5, True)
    last = ask(stocked, "pages.jsonl", limit=100, offset=first["next_offset"])
    assert [one["record"] for one in first["records"] + last["records"]] == records
    assert (last["next_offset"], last["has_more"]) == (None, False)
    found = ask(stocked, "pages.jsonl", search="NO", limit=4)
    assert ([one["line"] for one in found["records"]], found["next_offset"]) == ([1, 3, 5, 7], 7)
    assert [one["line"] for one in ask(stocked, "pages.jsonl", search="question 11")["records"]] == [12]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"offset": -1}, "offset"),
        ({"search": ""}, "search"),
        ({"search": "x" * 201}, "search"),
        ({"model_name": "m", "offset": 1}, "offset"),
        ({"model_name": "m", "search": "a"}, "search"),
    ],
)
def test_what_cannot_be_turned_over_or_searched_is_refused(
    stocked: RunningServer, query: dict[str, object], field: str
) -> None:
    answer = stocked.get(f"/api/datasets/first.jsonl/preview?{urlencode(query)}")
    assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_records_that_were_made_of_another_kind_of_file_are_shown_and_measured(
    stocked: RunningServer, models: dict[str, str]
) -> None:
    table = "instruction,input,output\n" + "".join(f"Say it,{n},It is {n}.\n" for n in range(12))
    uploaded = stocked.upload(table.encode(), "table.csv")
    assert uploaded.status_code == 200, uploaded.text
    shown = ask(stocked, "table.csv", limit=2)
    assert shown["records"][1]["record"] == {"instruction": "Say it", "input": "1", "output": "It is 1."}
    found = ask(stocked, "table.csv", "statistics", model_name=models["llama"])
    assert (found["format"], found["measured"], found["left_out"]) == ("alpaca", 12, 0)


def test_an_earlier_revision_is_still_to_be_seen(stocked: RunningServer) -> None:
    for word in ("one", "two"):
        stocked.upload(lines([{"input": word, "output": "1"}]), "twice.jsonl").raise_for_status()
    assert ask(stocked, "twice.jsonl")["records"][0]["record"]["input"] == "two"
    earlier = ask(stocked, "twice.jsonl", revision=1)
    assert (earlier["revision"], earlier["records"][0]["record"]["input"]) == (1, "one")
    missing = stocked.get("/api/datasets/twice.jsonl/preview?revision=3")
    assert missing.status_code == 404
    assert "no revision 3" in missing.json()["detail"]
    assert stocked.get("/api/datasets/twice.jsonl/preview?revision=0").json()["field"] == "revision"


def test_a_model_is_shown_to_see_tokens_and_to_learn_the_answers(
    stocked: RunningServer, models: dict[str, str]
) -> None:
    shown = ask(stocked, "talks.jsonl", model_name=models["llama"], limit=1)
    (record,) = shown["records"]
    assert record["record"] == TALKS[0]
    (example,) = record["examples"]
    (text,) = example["sequences"]
    assert "".join(token["text"] for token in text["tokens"]) == (
        "<|im_start|>user\nWhy — 🍞?<|im_end|>\n<|im_start|>assistant\nYeast 🍞.<|im_end|>\n"
    )
    assert "".join(token["text"] for token in text["tokens"] if token["loss"]) == "Yeast 🍞.<|im_end|>"
    assert (text["name"], text["length"], example["left_out"]) == ("text", len(text["tokens"]), None)
    assert shown["has_more"]
    assert shown["seen_with"] == {
        "task": "text-generation",
        "strategy": "sft",
        "provider": "huggingface",
        "model_name": models["llama"],
        "max_seq_length": 256,
        "context": 256,
        "chat_template": True,
        "doc_stride": None,
        "max_completion_length": None,
    }


@pytest.mark.parametrize(
    ("dataset", "model", "query", "names", "seen"),
    [
        ("questions.jsonl", "bert", {"max_seq_length": 40}, {"window"}, ("extractive-question-answering", "sft", 40)),
        ("preferences.jsonl", "llama", {}, {"chosen", "rejected"}, ("text-generation", "dpo", 256)),
        (
            "preferences.jsonl",
            "plain",
            {"strategy": "rlhf", "max_completion_length": 9, "max_seq_length": -1},
            {"chosen", "rejected", "prompt"},
            ("text-generation", "rlhf", 256),
        ),
        ("answers.jsonl", "t5", {"task": "summarization"}, {"source", "target"}, ("summarization", "sft", 1024)),
    ],
)
def test_what_the_format_serves_is_chosen_and_the_rest_as_a_training_chooses_it(
    stocked: RunningServer,
    models: dict[str, str],
    dataset: str,
    model: str,
    query: dict[str, object],
    names: set[str],
    seen: tuple[object, ...],
) -> None:
    shown = ask(stocked, dataset, model_name=models[model], **query)
    examples = [example for record in shown["records"] for example in record["examples"]]
    assert {sequence["name"] for example in examples for sequence in example["sequences"]} == names
    told = shown["seen_with"]
    assert (told["task"], told["strategy"], told["max_seq_length"]) == seen


def test_lengths_are_told_in_the_models_tokens(stocked: RunningServer, models: dict[str, str]) -> None:
    found = ask(stocked, "answers.jsonl", "statistics", model_name=models["llama"], max_seq_length=30, sample=20)
    (lengths,) = found["lengths"]
    assert (found["measured"], found["num_examples"], lengths["count"]) == (20, 30, 20)
    assert sum(lengths["histogram"]["counts"]) == 20
    assert len(lengths["histogram"]["edges"]) == 21
    assert lengths["quantiles"]["min"] <= lengths["mean"] <= lengths["quantiles"]["max"]
    assert (lengths["limit"], lengths["truncated"], lengths["truncated_share"]) == (30, 20, 1.0)
    assert (found["left_out"], found["tokens"]) == (0, 20 * 30)
    assert 0 < found["loss_tokens"] < found["tokens"]
    assert found["seen_with"]["max_seq_length"] == 30


@pytest.mark.parametrize(
    ("path", "query", "status", "field", "says"),
    [
        ("talks.jsonl/preview", {"limit": 0}, 400, "limit", "1"),
        ("talks.jsonl/preview", {"limit": 101}, 400, "limit", "100"),
        ("talks.jsonl/preview", {"limit": "ten"}, 400, "limit", "whole number"),
        ("talks.jsonl/preview", {"max_seq_len": 8}, 400, "max_seq_len", "max_seq_length"),
        ("talks.jsonl/preview", {"model_name": "/nowhere"}, 400, "model_name", "model roots"),
        ("talks.jsonl/preview", {"model_name": "no/such"}, 404, None, "no/such"),
        ("talks.jsonl/preview", {"model_name": "llama", "task": "translation"}, 400, "task", "summarization"),
        ("talks.jsonl/preview", {"model_name": "llama", "task": "summarization"}, 400, "task", "text-generation"),
        ("talks.jsonl/preview", {"model_name": "llama", "strategy": "dpo"}, 400, "strategy", "preferences"),
        ("talks.jsonl/preview", {"model_name": "bert"}, 400, "model_name", "reads texts"),
        ("talks.jsonl/preview", {"model_name": "llama", "max_seq_length": 0}, 400, "max_seq_length", "Leave it out"),
        ("talks.jsonl/preview", {"model_name": "llama", "doc_stride": 9}, 400, "doc_stride", "doc_stride"),
        (
            "talks.jsonl/preview",
            {"model_name": "llama", "provider": "unsloth", "max_seq_length": -1},
            400,
            "max_seq_length",
            "2048",
        ),
        ("talks.jsonl/preview", {"model_name": "plain"}, 400, "model_name", "no chat template"),
        ("talks.jsonl/preview", {"model_name": "strict"}, 400, "model_name", "Line 2 of the dataset: .*No system!"),
        ("talks.jsonl/preview", {"model_name": "broken"}, 400, "model_name", "cannot|no loss"),
        (
            "preferences.jsonl/preview",
            {"model_name": "llama", "strategy": "rlhf"},
            400,
            "max_completion_length",
            "no room for a prompt",
        ),
        (
            "questions.jsonl/preview",
            {"model_name": "bert", "max_seq_length": 3},
            400,
            "max_seq_length",
            "no room for a question",
        ),
        ("talks.jsonl/statistics", {}, 400, "model_name", "tokens of a model"),
        ("talks.jsonl/statistics", {"model_name": "llama", "sample": 0}, 400, "sample", "1"),
        ("talks.jsonl/statistics", {"model_name": "strict"}, 400, "model_name", "Line 2 of the dataset: .*No system!"),
        ("none.jsonl/preview", {}, 404, None, "none.jsonl"),
        ("none.jsonl/statistics", {"model_name": "llama"}, 404, None, "none.jsonl"),
    ],
)
def test_what_cannot_be_seen_is_told_by_the_name_of_the_field(
    stocked: RunningServer,
    models: dict[str, str],
    path: str,
    query: dict[str, Any],
    status: int,
    field: str | None,
    says: str,
) -> None:
    named = {name: models.get(value, value) for name, value in query.items()}
    refused = stocked.get(f"/api/datasets/{path}?{urlencode(named)}")
    assert (refused.status_code, refused.json().get("field")) == (status, field), refused.text[:500]
    assert any(re.search(says, refused.json()[name]) for name in ("error", "detail")), refused.text[:500]


def lookers(server: RunningServer) -> set[int]:
    """The server's child processes that look at datasets."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    found = set()
    for child in map(int, children):
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"trainer_entry.dataset_view" in command:
            found.add(child)
    return found


def until(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.02)


@pytest.fixture
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server") / "data"
    server = scripted_server(folder, "--view-seconds", "1")
    yield server
    server.end()


def test_a_template_that_never_ends_is_ended(impatient: RunningServer, models: dict[str, str]) -> None:
    impatient.upload(lines(TALKS), "talks.jsonl").raise_for_status()
    answer = impatient.get(f"/api/datasets/talks.jsonl/preview?model_name={models['endless']}")
    assert answer.status_code == 503
    assert "chat template may never end" in answer.json()["detail"]
    assert lookers(impatient) == set()


def test_a_template_that_takes_too_much_is_refused_and_holds_up_no_other_model(
    stocked: RunningServer, models: dict[str, str]
) -> None:
    def look(model: str) -> requests.Response:
        return stocked.get(f"/api/datasets/talks.jsonl/preview?model_name={models[model]}")

    with ThreadPoolExecutor() as clients:
        hostile = {name: clients.submit(look, name) for name in ("endless", "unstoppable", "greedy")}
        shown = look("llama")
    assert shown.status_code == 200, shown.text
    for name, says in (
        ("endless", "Line 1 of the dataset: .* it takes more than 4 s, and may never end"),
        ("greedy", "Line 1 of the dataset: .* it takes more than 1024 MiB of memory"),
        ("unstoppable", "its chat template never ends, and could not be interrupted"),
    ):
        refused = hostile[name].result()
        assert refused.status_code == 400
        assert re.search(f"^{models[name]}: ChatTemplateFails: {says}", refused.json()["detail"]), refused.text


def test_nobody_looks_for_a_client_that_is_gone_and_only_two_look_at_once(
    serve: Callable[..., RunningServer], models: dict[str, str]
) -> None:
    # given two that look without an end, and one that waits
    stocked = serve(TESTS_COLD="1")  # its workers are its children
    stocked.upload(lines(TALKS), "talks.jsonl").raise_for_status()
    host, port = stocked.url.removeprefix("http://").split(":")
    path = f"/api/datasets/talks.jsonl/preview?model_name={models['endless']}"
    with contextlib.ExitStack() as clients:

        def ask_endlessly() -> socket.socket:
            client = clients.enter_context(socket.create_connection((host, int(port))))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            return client

        looking = [ask_endlessly() for _ in range(2)]
        until(lambda: len(lookers(stocked)) == 2)
        first = lookers(stocked)
        ask_endlessly()
        # when one goes
        looking[0].close()
        # then the third has its turn
        until(lambda: bool(lookers(stocked) - first))
        assert len(lookers(stocked)) <= 2
    # and when all have gone
    until(lambda: not lookers(stocked))
