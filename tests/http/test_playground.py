"""The inference worker comes when it is asked, and goes when it is not."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.running_server import RunningServer, real_server
from support.tiny_model import build_tiny, build_tiny_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Path]]:
    folder = tmp_path_factory.mktemp("playground")
    model = build_tiny_model(folder / "model")
    server = real_server(folder, MODELFORGE_PLAYGROUND_IDLE_SECONDS="1")
    yield server, model
    if server.process.poll() is None:
        server.end()


def workers(server: RunningServer) -> list[int]:
    """The server's children that run inference."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"trainer_entry.infer" in words and parent == server.process.pid:
                found.append(int(entry.name))
    return found


def ask(server: RunningServer, model: Path, **fields: object) -> dict[str, object]:
    body = {"prompt": "What is 7?", "base_model": str(model), "max_new_tokens": 4, "temperature": 0, **fields}
    answer = server.post("/api/playground/generate", body)
    assert answer.status_code == 200, answer.text
    result: dict[str, object] = answer.json()
    return result


def test_the_worker_ends_when_idle_and_another_comes(served: tuple[RunningServer, Path]) -> None:
    server, model = served
    assert workers(server) == []
    first = ask(server, model)
    assert len(workers(server)) == 1
    while workers(server):
        time.sleep(0.05)
    assert ask(server, model)["generated_text"] == first["generated_text"]


def test_the_worker_leaves_the_gpu_to_a_job_and_whoever_waits_is_told(tmp_path: Path) -> None:
    # given a long answer of a model that lies where the next job trains
    model = build_tiny_model(tmp_path / "model", context=4096)
    server = real_server(tmp_path, CUDA_VISIBLE_DEVICES="4")
    server.upload(b'{"input": "Hello?", "output": "Hello."}\n' * 8)
    prompt = {"prompt": "Hello", "base_model": str(model), "max_new_tokens": 4000, "temperature": 0, "stream": True}
    answer = server.post("/api/playground/generate", prompt, stream=True)
    pieces = answer.iter_lines(decode_unicode=True)
    assert next(pieces) == "event: token"
    # when
    body = {"task": "text-generation", "model_name": str(model), "dataset": "data.jsonl"}
    started = server.post("/api/start_training", body)
    # then
    assert started.ok, started.text
    rest = list(pieces)
    assert "event: error" in rest
    assert "gave its GPU" in rest[-2]
    assert workers(server) == []
    server.post("/api/stop_training")
    server.wait_for(started.json()["job_id"])
    server.end()


def test_a_killed_worker_costs_no_later_answer(served: tuple[RunningServer, Path]) -> None:
    server, model = served
    before = ask(server, model)
    (worker,) = workers(server)
    os.kill(worker, signal.SIGKILL)
    assert ask(server, model)["generated_text"] == before["generated_text"]


def test_a_worker_that_is_killed_ends_each_of_three_conversations_with_its_cause(
    served: tuple[RunningServer, Path],
) -> None:
    # given three answers on their way at once
    server, model = served
    model = build_tiny_model(model.parent / "long", context=8192)
    prompt = {"prompt": "Hello", "base_model": str(model), "max_new_tokens": 8000, "temperature": 1.5, "stream": True}
    answers = [server.post("/api/playground/generate", prompt, stream=True) for _ in range(3)]
    pieces = [answer.iter_lines(decode_unicode=True) for answer in answers]
    assert [next(lines) for lines in pieces] == ["event: token"] * 3
    (worker,) = workers(server)
    # when
    os.kill(worker, signal.SIGKILL)
    # then
    for lines in pieces:
        rest = list(lines)
        assert "event: error" in rest
        assert "ended while it answered" in rest[-2]
    assert ask(server, model)["tokens_generated"] == 4


def test_who_leaves_takes_nothing_from_who_is_answered_beside(served: tuple[RunningServer, Path]) -> None:
    # given
    server, model = served
    model = build_tiny_model(model.parent / "left", context=8192)
    prompt = {"prompt": "Hello", "base_model": str(model), "max_new_tokens": 60, "temperature": 0}
    alone = ask(server, model, **prompt)["generated_text"]
    leaving = server.post("/api/playground/generate", {**prompt, "max_new_tokens": 8000, "stream": True}, stream=True)
    assert next(leaving.iter_lines(decode_unicode=True)) == "event: token"
    (worker,) = workers(server)
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(ask, server, model, **prompt)
        # when
        leaving.close()
        # then
        assert beside.result()["generated_text"] == alone
    assert workers(server) == [worker]


def test_a_key_gets_the_first_answer_again(served: tuple[RunningServer, Path]) -> None:
    server, model = served
    body = {"prompt": "Hello", "base_model": str(model), "max_new_tokens": 12, "temperature": 5}
    key = {"Idempotency-Key": "mine"}
    first = server.post("/api/playground/generate", body, headers=key)
    assert server.post("/api/playground/generate", body, headers=key).json() == first.json()
    other = server.post("/api/playground/generate", {**body, "prompt": "Bye"}, headers=key)
    assert other.status_code == 409


def test_a_question_is_answered_from_its_context(served: tuple[RunningServer, Path]) -> None:
    # given
    server, model = served
    reader = build_tiny(model.parent / "reader", "bert")
    context = "Rice is rinsed — until the water runs clear. " * 12
    body = {"prompt": "What is rinsed?", "context": context, "base_model": str(reader)}
    # when
    answer = server.post("/api/playground/generate", body).json()
    stream = server.post("/api/playground/generate", {**body, "stream": True})
    # then
    assert 0 <= answer["score"] <= 1
    assert answer["generated_text"] == (context[answer["start"] : answer["end"]] if answer["tokens_generated"] else "")
    events = [
        json.loads(line.removeprefix("data: "))
        for line in stream.content.decode().splitlines()
        if line.startswith("data")
    ]
    same = ("generated_text", "score", "start", "end", "tokens_generated", "finish_reason")
    assert {name: events[-1][name] for name in same} == {name: answer[name] for name in same}
    # and no other task's answer has a score
    assert set(ask(server, model)) == {"generated_text", "tokens_generated", "generation_time_ms", "finish_reason"}


def test_an_encoder_decoder_summarizes_and_does_not_chat(served: tuple[RunningServer, Path]) -> None:
    server, model = served
    summarizer = build_tiny(model.parent / "summarizer", "t5")
    answer = ask(server, summarizer, task="summarization")
    assert answer["tokens_generated"] == 4
    assert "score" not in answer
    refused = server.post("/api/playground/generate", {"prompt": "Hello", "base_model": str(summarizer)})
    assert refused.status_code == 400
    assert "summarization" in refused.json()["detail"]


def test_a_model_that_cannot_be_loaded_is_an_error_with_its_cause(served: tuple[RunningServer, Path]) -> None:
    server, model = served
    broken = model.parent / "broken"
    broken.mkdir()
    for path in model.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    (broken / "model.safetensors").write_bytes(b"no weights")
    body = {"prompt": "Hello", "base_model": str(broken)}
    for stream in (False, True):
        answer = server.post("/api/playground/generate", {**body, "stream": stream})
        assert answer.status_code == 409
        assert answer.json()["error"] == "The model could not answer"
    assert ask(server, model)["tokens_generated"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_prompt_that_the_model_has_no_room_for_is_a_400_that_names_it(
    served: tuple[RunningServer, Path], stream: object
) -> None:
    server, model = served
    body = {"prompt": "long " * 1500, "base_model": str(model), "stream": bool(stream)}
    answer = server.post("/api/playground/generate", body)
    assert (answer.status_code, answer.json()["field"]) == (400, "prompt"), answer.text
    assert "tokens" in answer.json()["detail"]
    assert "PromptTooLong" not in answer.text
    assert ask(server, model)["tokens_generated"]


def test_a_model_that_is_no_longer_what_it_was_is_a_400_that_names_it(served: tuple[RunningServer, Path]) -> None:
    server, model = served
    strict = model.parent / "strict"
    shutil.copytree(model, strict)
    template = strict / "chat_template.jinja"
    template.write_text("{{ raise_exception('no user may speak') }}")
    for stream in (False, True):
        body = {"prompt": "Hello", "base_model": str(strict), "stream": stream}
        answer = server.post("/api/playground/generate", body)
        assert (answer.status_code, answer.json()["field"]) == (400, "base_model"), answer.text
        assert "no user may speak" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("field", "value", "most"),
    [
        ("prompt", "x" * 100_001, "100000"),
        ("prompt", "", "100000"),
        ("context", "x" * 500_001, "500000"),
        ("max_new_tokens", 8193, "8192"),
        ("max_new_tokens", 0, "8192"),
    ],
)
def test_what_is_too_long_for_any_model_is_refused_before_one_is_asked(
    served: tuple[RunningServer, Path], field: str, value: object, most: str
) -> None:
    server, model = served
    answer = server.post("/api/playground/generate", {"prompt": "x", "base_model": str(model), field: value})
    assert (answer.status_code, answer.json()["field"]) == (400, field), answer.text
    assert f"to {most}" in answer.json()["detail"]


def test_a_worker_that_is_killed_before_it_answers_is_a_503(served: tuple[RunningServer, Path]) -> None:
    server, model = served
    while workers(server):
        time.sleep(0.05)
    body = {"prompt": "Hello", "base_model": str(model)}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.post, "/api/playground/generate", body)
        while not (found := workers(server)):
            time.sleep(0.01)
        os.kill(found[0], signal.SIGKILL)  # while it loads its libraries
        answer = asked.result()
    assert (answer.status_code, answer.json()["status_code"]) == (503, 503)
    assert "ended" in answer.json()["error"]


def test_the_worker_does_not_outlive_a_killed_server(served: tuple[RunningServer, Path]) -> None:
    server, model = served
    ask(server, model)
    (worker,) = workers(server)
    server.process.kill()
    server.end()
    while Path(f"/proc/{worker}").exists() and "Z" not in Path(f"/proc/{worker}/stat").read_text().split()[2]:
        time.sleep(0.05)
