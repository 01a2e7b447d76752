"""A model that is there, judged again: the figures are those that its own training found on the same records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support import task_records
from support.tiny_model import build_tiny
from support.trainer_attempts import EVALUATION, Attempt, questions, write_dataset

from trainer_entry import wire
from trainer_entry.training.loop import tells_quality
from trainer_entry.wire.evaluating import judging_parameters

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.training


def trained(
    folder: Path, model: Path, records: list[dict[str, Any]], **fields: Any
) -> tuple[Attempt, wire.DatasetFile]:
    """A training of some steps, judged by the last six records."""
    judge = write_dataset(folder / "judge.jsonl", records[-6:])
    dataset = write_dataset(folder / "learned.jsonl", records[:-6])
    attempt = Attempt(
        folder / "trained", model, dataset, validation=judge, max_steps=4, learning_rate=0.01, logging_steps=4, **fields
    )
    assert attempt.wait() == 0, attempt.stderr()
    return attempt, judge


def judged(
    folder: Path, model: Path, attempt: Attempt, judge: wire.DatasetFile, *, base_model: bool = False, **fields: Any
) -> wire.Judged:
    """What an evaluation of the trained model says, in batches of another size."""
    started, saved = attempt.one(wire.TrainerStarted), attempt.one(wire.TrainerFinished).model
    assert saved is not None
    adapts = saved.kind == "adapter"
    work = wire.Evaluate(
        model_id=1,
        name="it",
        path=saved.path,
        dataset=judge,
        adapts=adapts,
        base_model=base_model,
        base_revision=started.base_revision,
        parameters=judging_parameters(started.parameters, fields.get("strategy", "sft"), adapts=adapts, batch_size=3),
    )
    found = Attempt(folder, model, judge, work=work, launcher=EVALUATION, **fields)
    assert found.wait() == 0, found.stderr()
    assert found.one(wire.WorkPlanned).total_steps >= 2
    delivery = found.one(wire.TrainerFinished).delivery
    assert isinstance(delivery, wire.Judged)
    assert delivery.base_model is base_model
    return delivery


def alike(found: wire.Judged, metrics: dict[str, float | None], prefix: str = "") -> None:
    """Every figure that the training has is there, and the same."""
    told = {name.removeprefix(prefix): one for name, one in metrics.items() if name.startswith(f"{prefix}eval_")}
    told = {name: one for name, one in told.items() if tells_quality(name) and not name.endswith("preparation_time")}
    assert "eval_loss" in told
    assert told.keys() <= found.metrics.keys()
    for name, figure in told.items():
        assert found.metrics[name] == pytest.approx(figure, abs=1e-4), name


def figures_of(attempt: Attempt) -> dict[str, float | None]:
    saved = attempt.one(wire.TrainerFinished).model
    assert saved is not None
    return saved.metrics


def test_an_adapter_and_its_base_are_judged_as_in_its_training(tmp_path: Path, tiny_model: Path) -> None:
    attempt, judge = trained(tmp_path, tiny_model, questions(26))
    metrics = figures_of(attempt)
    found = judged(tmp_path / "again", tiny_model, attempt, judge)
    alike(found, metrics)
    assert found.records == 6
    assert found.metrics["eval_perplexity"] is not None
    base = judged(tmp_path / "base", tiny_model, attempt, judge, base_model=True)
    alike(base, metrics, "base_")
    assert base.metrics["eval_loss"] != pytest.approx(found.metrics["eval_loss"], abs=1e-3)


def test_preferences_are_judged_by_the_implicit_reward_of_an_adapter(tmp_path: Path, tiny_model: Path) -> None:
    attempt, judge = trained(tmp_path, tiny_model, task_records.preferences(26), strategy="dpo")
    found = judged(tmp_path / "again", tiny_model, attempt, judge, strategy="dpo")
    alike(found, figures_of(attempt))
    assert "eval_reward_accuracy" in found.metrics


def test_answers_in_a_context_are_judged_by_exact_match_and_f1(tmp_path: Path) -> None:
    model = build_tiny(tmp_path / "bert", "bert")
    task = "extractive-question-answering"
    cut = {"max_seq_length": 48, "doc_stride": 16}
    attempt, judge = trained(tmp_path, model, task_records.questions(26), task=task, use_lora=False, **cut)
    assert attempt.one(wire.TrainerStarted).eval_examples > 6, "windows"
    found = judged(tmp_path / "again", model, attempt, judge, task=task)
    alike(found, figures_of(attempt))
    assert found.records == 6
    assert {"eval_f1", "eval_exact_match"} <= set(found.metrics)
