"""Records or weights that nothing can be learned from end a training at once, and it says which records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.tiny_model import build_tiny_model
from support.trainer_attempts import Attempt, questions, write_dataset

from trainer_entry import wire

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.training


def test_a_loss_that_is_no_number_at_once_names_the_records(tmp_path: Path) -> None:
    # given weights that a training in 16 bits has ruined
    import torch
    from transformers import AutoModelForCausalLM

    folder = build_tiny_model(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    model.save_pretrained(folder)
    dataset = write_dataset(tmp_path / "records.jsonl", questions(3))
    # when
    attempt = Attempt(tmp_path / "attempt", folder, dataset)
    # then
    assert attempt.wait() == 1
    failed = attempt.one(wire.TrainerFailed)
    assert failed.kind == "LossNotFinite"
    assert "lines 1, 2, 3" in failed.message
    assert attempt.of_type(wire.StepLogged) == []
    assert not (tmp_path / "attempt" / "output").exists()


@pytest.mark.parametrize(
    ("task", "strategy", "record"),
    [
        ("text-generation", "sft", {"input": "far " * 50, "output": "away"}),
        ("text-generation", "dpo", {"prompt": "far " * 50, "chosen": "away", "rejected": "near"}),
    ],
)
def test_answers_that_are_all_cut_off_are_named(
    task: wire.Task, strategy: wire.Strategy, record: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    dataset = write_dataset(tmp_path / "records.jsonl", [record] * 12)
    attempt = Attempt(tmp_path / "attempt", tiny_model, dataset, task=task, strategy=strategy, max_seq_length=32)
    assert attempt.wait() == 1
    failed = attempt.one(wire.TrainerFailed)
    assert failed.kind == "NoTrainableTokens"
    assert "lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more" in failed.message
    assert "max_seq_length" in failed.message
