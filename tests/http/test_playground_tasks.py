"""Trained models of every task in the playground, and the bases that they are compared with."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.running_log import running_log
from support.running_server import RunningServer, forked_real_server
from support.scenario import SAVED, finished, gone, lines, spawned, spec, start, started
from support.tiny_model import build_tiny

from modelforge.layout import Layout
from trainer_entry import wire

# peft reads a name that this release of transformers has deprecated.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")]
CONTEXT = "Yeast fills the dough with tiny bubbles of gas — 🍞. " * 20
QUESTION = {"prompt": "What fills the dough?", "context": CONTEXT, "max_new_tokens": 4}
SUMMARY = {"prompt": CONTEXT, "max_new_tokens": 4, "temperature": 0}
ANSWERS, SUMMARIZES = 1, 2
"""The models' ids: an adapter for question answering, and then a whole model for summarization."""


async def have_trained(data_dir: Path, task: wire.Task, base: Path, model: wire.SavedModel) -> None:
    """The records of a training that came to its end."""
    async with running_log(Layout(data_dir).log) as running:
        asked = replace(spec(""), task=task, model_path=str(base))
        job_id = (await running.submit(replace(start(""), spec=asked))).stream
        await running.submit(spawned(job_id))
        word = replace(finished(2), model=model)
        await running.submit(lines(100, started(1), word, job_id=job_id))
        await running.submit(gone(job_id))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForQuestionAnswering

    folder = tmp_path_factory.mktemp("tasks")
    reader, writer = build_tiny(folder / "reader", "bert"), build_tiny(folder / "writer", "t5")
    adapter = LoraConfig(task_type="QUESTION_ANS", target_modules=["query", "value"], init_lora_weights=False)
    get_peft_model(AutoModelForQuestionAnswering.from_pretrained(reader), adapter).save_pretrained(folder / "adapter")
    build_tiny(folder / "trained", "t5", seed=1)
    (folder / "data").mkdir()
    answering, summarizing = (replace(SAVED, path=str(folder / name)) for name in ("adapter", "trained"))
    asyncio.run(have_trained(folder / "data", "extractive-question-answering", reader, answering))
    asyncio.run(have_trained(folder / "data", "summarization", writer, replace(summarizing, kind="full")))
    running = forked_real_server(folder)
    yield running
    running.end()


def ask(server: RunningServer, model_id: int, body: dict[str, object], **changes: object) -> dict[str, object]:
    answer = server.post("/api/playground/generate", {**body, "model_id": model_id, **changes})
    assert answer.status_code == 200, answer.text
    result: dict[str, object] = answer.json()
    del result["generation_time_ms"]
    return result


def test_a_trained_model_answers_for_its_task_and_so_does_its_base(server: RunningServer) -> None:
    for model_id, body in ((ANSWERS, QUESTION), (SUMMARIZES, SUMMARY)):
        tuned, base = ask(server, model_id, body), ask(server, model_id, body, base_model=True)
        assert tuned != base
        assert tuned.keys() == base.keys()
        assert ("score" in tuned) == (model_id == ANSWERS)


def test_an_answer_stands_where_it_says(server: RunningServer) -> None:
    answer = ask(server, ANSWERS, QUESTION)
    start, end = answer["start"], answer["end"]
    assert 0 <= answer["score"] <= 1
    assert answer["generated_text"] == ("" if start is None else CONTEXT[start:end])


def test_without_a_model_the_newest_base_for_the_task_answers(server: RunningServer) -> None:
    assert ask(server, 0, SUMMARY) == ask(server, SUMMARIZES, SUMMARY, base_model=True)
    assert ask(server, 0, QUESTION) == ask(server, ANSWERS, QUESTION, base_model=True)
    assert ask(server, 0, QUESTION, task="extractive-question-answering") == ask(server, 0, QUESTION)


@pytest.mark.parametrize(
    ("model_id", "changed", "field"),
    [
        (ANSWERS, {}, "context"),
        (ANSWERS, {"context": " "}, "context"),
        (ANSWERS, {"base_model": True}, "context"),
        (ANSWERS, {"context": "Rice.", "task": "summarization"}, "task"),
        (SUMMARIZES, {"context": "Rice."}, "context"),
        (SUMMARIZES, {"context": "Rice.", "base_model": True}, "context"),
    ],
)
def test_what_does_not_go_with_the_models_task_is_refused(
    server: RunningServer, model_id: int, changed: dict[str, object], field: str
) -> None:
    answer = server.post("/api/playground/generate", {"prompt": "Why?", "model_id": model_id, **changed})
    assert (answer.status_code, answer.json().get("field")) == (400, field), answer.text
