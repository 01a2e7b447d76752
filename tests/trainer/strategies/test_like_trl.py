"""The same model, data, seed and settings give the same losses here and with trl alone, step by step."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from gpu.bare_order import BareOrder, BareStep
from support import task_records
from support.tiny_model import build_tiny_model
from support.trainer_attempts import Attempt, child_environment, questions, write_dataset

from trainer_entry import wire

if TYPE_CHECKING:
    from trainer_entry.wire import Strategy

pytestmark = pytest.mark.training

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 3,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 2,
    "learning_rate": 0.01,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "weight_decay": 0.01,
    "seed": 7,
    "bf16": False,
}
"""Those that have one name here and there."""
OURS: dict[str, Any] = {"max_seq_length": 128, "lora_r": 8, "lora_alpha": 16}
THEIRS: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}


@pytest.mark.parametrize(("strategy", "dropout"), [("sft", 0.1), ("sft", 0.0), ("dpo", 0.0)])
def test_the_losses_are_those_of_plain_trl(strategy: Strategy, dropout: float, tmp_path: Path) -> None:
    # given 20 records: the last step of an epoch has a batch that is not full
    model = build_tiny_model(tmp_path / "model", chat_template=None)
    records = questions(20) if strategy == "sft" else _plain_preferences(20)
    dataset = write_dataset(tmp_path / "records.jsonl", records)
    beta = {"beta": 0.3} if strategy == "dpo" else {}
    # when
    attempt = Attempt(
        tmp_path / "attempt", model, dataset, strategy=strategy, **SETTINGS, **OURS, **beta, lora_dropout=dropout
    )
    order = BareOrder(
        strategy="dpo" if strategy == "dpo" else "sft",
        provider="huggingface",
        model=str(model),
        dataset=dataset.path,
        output=str(tmp_path / "steps.json"),
        length=128,
        settings={**SETTINGS, "logging_steps": 1},
        adapter=THEIRS | {"lora_dropout": dropout},
        **beta,
    )
    (tmp_path / "order.json").write_bytes(msgspec.json.encode(order))
    command = [sys.executable, "-m", "gpu.bare", str(tmp_path / "order.json")]
    variables = child_environment()
    variables["PYTHONPATH"] += f":{BENCHMARKS}"
    plain = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    # then
    assert attempt.wait() == 0, attempt.stderr()
    assert plain.returncode == 0, plain.stderr
    ours = [step.loss for step in attempt.of_type(wire.StepLogged)]
    theirs = [step.loss for step in msgspec.json.decode(Path(order.output).read_bytes(), type=list[BareStep])]
    assert len(ours) == 8
    # one that is nearly 0 comes of a difference between sums of some hundred, in 32 bits
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-7)


def _plain_preferences(count: int) -> list[dict[str, Any]]:
    """A model without a chat template is given its prompts with a line break: so they are written here."""
    return [record | {"prompt": f"{record['prompt']}\n"} for record in task_records.preferences(count)]
