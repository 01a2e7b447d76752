"""The same model, data, seed and settings give the same losses here and with trl alone, step by step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import task_records
from support.tiny_model import build_tiny_model
from support.trainer_attempts import Attempt, child_environment, questions, write_dataset

from trainer_entry import wire

if TYPE_CHECKING:
    from trainer_entry.wire import Strategy

pytestmark = pytest.mark.training

PLAIN = Path(__file__).parents[2] / "support" / "plain_trl.py"
SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 3,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 2,
    "learning_rate": 0.01,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "weight_decay": 0.01,
    "seed": 7,
    "max_seq_length": 128,
    "lora_r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.1,
}


@pytest.mark.parametrize("strategy", ["sft", "dpo"])
def test_the_losses_are_those_of_plain_trl(strategy: Strategy, tmp_path: Path) -> None:
    # given 20 records: the last step of an epoch has a batch that is not full
    model = build_tiny_model(tmp_path / "model", chat_template=None)
    records = questions(20) if strategy == "sft" else _plain_preferences(20)
    dataset = write_dataset(tmp_path / "records.jsonl", records)
    beta = {"beta": 0.3} if strategy == "dpo" else {}
    # when
    attempt = Attempt(tmp_path / "attempt", model, dataset, strategy=strategy, **SETTINGS, **beta)
    output = tmp_path / "losses.json"
    command = [sys.executable, str(PLAIN), strategy, str(model), dataset.path, str(output)]
    plain = subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=False)
    # then
    assert attempt.wait() == 0, attempt.stderr()
    assert plain.returncode == 0, plain.stderr
    ours = [step.loss for step in attempt.of_type(wire.StepLogged)]
    theirs = json.loads(output.read_text())
    assert len(ours) == 8
    assert ours == pytest.approx(theirs, rel=1e-5)


def _plain_preferences(count: int) -> list[dict[str, Any]]:
    """A model without a chat template is given its prompts with a line break: so they are written here."""
    return [record | {"prompt": f"{record['prompt']}\n"} for record in task_records.preferences(count)]
