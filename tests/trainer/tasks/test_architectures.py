"""A model of any architecture is trained for the tasks that it can do, by code that names none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support import task_records
from support.tiny_model import Architecture, build_tiny, build_tiny_model
from support.trainer_attempts import Attempt, write_dataset

from trainer_entry import wire

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.training

RECORDS = {
    "text-generation": task_records.answers(48),
    "summarization": task_records.summaries(48),
    "extractive-question-answering": task_records.questions(48),
}


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("llama", "text-generation"),
        ("qwen2", "text-generation"),
        ("gpt2", "summarization"),
        ("t5", "summarization"),
        ("bart", "summarization"),
        ("bert", "extractive-question-answering"),
        ("roberta", "extractive-question-answering"),
        ("distilbert", "extractive-question-answering"),
    ],
)
def test_it_learns(architecture: Architecture | str, task: wire.Task, tmp_path: Path) -> None:
    # given
    model = tmp_path / "model"
    if architecture == "llama":
        build_tiny_model(model)
    else:
        build_tiny(model, architecture, context=256)  # type: ignore[arg-type]
    dataset = write_dataset(tmp_path / "records.jsonl", RECORDS[task])
    settings: dict[str, Any] = {"per_device_train_batch_size": 8, "learning_rate": 0.01, "max_steps": 24}
    # when
    attempt = Attempt(tmp_path / "attempt", model, dataset, task=task, eval_split=0.2, **settings)
    # then
    assert attempt.wait() == 0, attempt.stderr()
    losses = [step.loss for step in attempt.of_type(wire.StepLogged)]
    assert len(losses) == 24
    assert losses[-1] < losses[0]
    metrics = attempt.one(wire.TrainerFinished).model.metrics
    assert metrics["eval_loss"] < metrics["base_eval_loss"]
    judged = {"summarization": "rougeL", "extractive-question-answering": "f1"}.get(task)
    if judged is not None:
        assert {f"eval_{judged}", f"base_eval_{judged}"} <= metrics.keys()
