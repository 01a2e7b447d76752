"""Trainings that go on from an earlier adapter begin where it ended, and are held to it and not to its base."""

from __future__ import annotations

import functools
import importlib.util
import math
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from support import task_records
from support.tiny_model import build_tiny
from support.trainer_attempts import Attempt, questions, write_dataset

from trainer_entry import wire

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trainer_entry.wire import DatasetFile

pytestmark = pytest.mark.training

LEARNED: dict[str, Any] = {
    "learning_rate": 0.01,
    "max_steps": 12,
    "eval_split": 0.2,
    "eval_steps": 100,
    "lora_r": 4,
    "lora_alpha": 8,
}
unsloth = pytest.mark.skipif(importlib.util.find_spec("unsloth") is None, reason="run `make setup-unsloth`")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, dataset: DatasetFile) -> Attempt:
    """A training whose adapter others go on from."""
    attempt = Attempt(tmp_path_factory.mktemp("earlier"), tiny_model, dataset, **LEARNED)
    assert attempt.wait() == 0, attempt.stderr()
    return attempt


def adapter_of(attempt: Attempt) -> wire.EarlierAdapter:
    return wire.EarlierAdapter(path=str(attempt.output), base_revision=attempt.one(wire.TrainerStarted).base_revision)


def figures_of(attempt: Attempt) -> dict[str, float | None]:
    return attempt.one(wire.TrainerFinished).model.metrics


def test_the_first_loss_is_that_with_which_the_earlier_training_ended(tiny_model: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "one.jsonl", questions(1) * 40)  # so that each batch has the loss of all
    before = Attempt(tmp_path / "before", tiny_model, dataset, **LEARNED)
    assert before.wait() == 0, before.stderr()
    after = Attempt(tmp_path / "after", tiny_model, dataset, adapter=adapter_of(before), **LEARNED)
    assert after.wait() == 0, after.stderr()
    ended = figures_of(before)["eval_loss"]
    assert figures_of(after)["base_eval_loss"] == pytest.approx(ended, rel=1e-5)
    first = after.of_type(wire.StepLogged)[0]
    assert first.loss == pytest.approx(ended, rel=0.01)
    assert figures_of(after)["eval_loss"] < 0.98 * ended
    assert sorted(path.name for path in after.output.iterdir() if path.is_dir()) == []


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"provider": "unsloth"}, marks=unsloth),
        {"use_lora": False, "learning_rate": 0.001},
        {"strategy": "qlora", "gradient_checkpointing": True},
    ],
    ids=str,
)
def test_every_way_to_train_begins_with_what_the_adapter_had_learned(
    earlier: Attempt, tiny_model: Path, dataset: DatasetFile, tmp_path: Path, changed: dict[str, Any]
) -> None:
    settings = {**LEARNED, **changed}
    if settings.get("use_lora", True):
        settings["target_modules"] = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    attempt = Attempt(tmp_path, tiny_model, dataset, adapter=adapter_of(earlier), **settings)
    assert attempt.wait() == 0, attempt.stderr()
    ended, figures = figures_of(earlier)["eval_loss"], figures_of(attempt)
    exact = 0.02 if changed.get("strategy") == "qlora" else 1e-5  # its base is in 4 bits
    assert figures["base_eval_loss"] == pytest.approx(ended, rel=exact)
    assert figures["eval_loss"] < 0.98 * ended
    kind = "full" if changed.get("use_lora") is False else "adapter"
    assert attempt.one(wire.TrainerFinished).model.kind == kind


@pytest.mark.parametrize(
    ("task", "architecture", "records", "figures"),
    [
        ("summarization", "t5", task_records.summaries, ("eval_loss", "eval_rouge1")),
        (
            "extractive-question-answering",
            "bert",
            functools.partial(task_records.questions, unanswerable=False),
            ("eval_loss", "eval_exact_match"),
        ),
    ],
)
def test_so_do_summaries_and_answers_with_their_head(
    tmp_path: Path,
    task: wire.Task,
    architecture: Any,
    records: Callable[[int], list[dict[str, Any]]],
    figures: tuple[str, ...],
) -> None:
    build_tiny(tmp_path / "model", architecture)
    dataset = write_dataset(tmp_path / "records.jsonl", records(24))
    before = Attempt(tmp_path / "before", tmp_path / "model", dataset, task=task, **LEARNED)
    assert before.wait() == 0, before.stderr()
    after = Attempt(tmp_path / "after", tmp_path / "model", dataset, task=task, adapter=adapter_of(before), **LEARNED)
    assert after.wait() == 0, after.stderr()
    for name in figures:
        assert figures_of(after)[f"base_{name}"] == pytest.approx(figures_of(before)[name], rel=1e-5)


def test_preferences_are_learned_beside_the_earlier_adapter_and_so_they_are_after_a_stop(
    earlier: Attempt, tiny_model: Path, tmp_path: Path
) -> None:
    dataset = write_dataset(tmp_path / "preferences.jsonl", task_records.preferences(24))
    settings = {"strategy": "dpo", "learning_rate": 0.001, "max_steps": 6, "save_steps": 3}
    whole = Attempt(tmp_path / "whole", tiny_model, dataset, adapter=adapter_of(earlier), **settings)
    assert whole.wait() == 0, whole.stderr()
    losses = [step.loss for step in whole.of_type(wire.StepLogged)]
    assert losses[0] == pytest.approx(math.log(2), rel=1e-6)  # as likely as before: by the adapter, not the base
    assert losses[-1] < losses[0]
    assert not (whole.output / "ref").exists()
    # when
    middle = tmp_path / "whole" / "checkpoints" / "checkpoint-3"
    resumed = Attempt(
        tmp_path / "resumed", tiny_model, dataset, adapter=adapter_of(earlier), resume_from=str(middle), **settings
    )
    # then
    assert resumed.wait() == 0, resumed.stderr()
    assert [step.loss for step in resumed.of_type(wire.StepLogged)] == pytest.approx(losses[3:], rel=1e-5)


def test_a_policy_is_held_to_the_earlier_adapter(earlier: Attempt, tiny_model: Path, tmp_path: Path) -> None:
    preferred = [{"prompt": f"What is {i}?", "chosen": "It is 1", "rejected": "no"} for i in range(16)]
    attempt = Attempt(
        tmp_path / "policy",
        tiny_model,
        write_dataset(tmp_path / "preferred.jsonl", preferred),
        adapter=adapter_of(earlier),
        strategy="rlhf",
        max_completion_length=4,
        max_steps=2,
    )
    assert attempt.wait() == 0, attempt.stderr()
    steps = [step for step in attempt.of_type(wire.StepLogged) if step.phase == "training"]
    assert steps[0].kl == pytest.approx(0, abs=1e-6)


def test_a_base_that_has_changed_since_is_refused(
    earlier: Attempt, tiny_model: Path, dataset: DatasetFile, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    with (tmp_path / "model" / "more.safetensors").open("wb") as more:
        more.write(b"more")
    attempt = Attempt(tmp_path / "attempt", tmp_path / "model", dataset, adapter=adapter_of(earlier), **LEARNED)
    assert attempt.wait() == 1
    failed = attempt.one(wire.TrainerFailed)
    assert failed.kind == "BaseChanged"
    assert "train anew" in failed.message


@pytest.mark.parametrize(
    "settings",
    [{"strategy": "dpo"}, {"strategy": "rlhf", "reward_functions": ["exact_match"], "max_completion_length": 4}],
    ids=["dpo", "rlhf"],
)
def test_all_weights_are_held_to_the_base_with_the_earlier_adapter_in_it(
    earlier: Attempt, tiny_model: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    prompts = [{"prompt": f"What is {i}?", "completion": "It is 1"} for i in range(8)]
    records = task_records.preferences(8) if settings["strategy"] == "dpo" else prompts
    dataset = write_dataset(tmp_path / "records.jsonl", records)
    settings = {**settings, "use_lora": False, "max_steps": 1}
    attempt = Attempt(tmp_path / "attempt", tiny_model, dataset, adapter=adapter_of(earlier), **settings)
    assert attempt.wait() == 0, attempt.stderr()
    (step,) = attempt.of_type(wire.StepLogged)
    if settings["strategy"] == "dpo":
        assert step.loss == pytest.approx(math.log(2), rel=1e-6)
    else:
        assert step.kl == pytest.approx(0, abs=1e-6)
