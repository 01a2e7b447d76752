"""What saves memory or time learns what the plain way learns, from the same records in the same order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from support.tiny_model import build_tiny_model
from support.trainer_attempts import job_of, questions, write_dataset

from trainer_entry.data.records import Records
from trainer_entry.providers import huggingface
from trainer_entry.providers.precision import quantization_config, weight_dtype
from trainer_entry.strategies import sft
from trainer_entry.tasks.text_generation import prepare
from trainer_entry.training.defaults import resolve_parameters, with_model
from trainer_entry.wire import TrainingParameters

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*MatMul8bitLt.*"),
    pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU"),
]

WAYS: dict[str, dict[str, Any]] = {
    "8-bit optimizer": {"optim": "adamw_8bit"},
    "paged 8-bit optimizer": {"optim": "paged_adamw_8bit"},
    "fused optimizer": {"optim": "adamw_torch_fused"},
    "8-bit base": {"use_8bit": True},
    "4-bit base": {"use_4bit": True},
    "bfloat16": {"bf16": True},
    "activations computed again": {"gradient_checkpointing": True},
    "4 bits, and activations computed again": {"use_4bit": True, "gradient_checkpointing": True},
}
AS_NEAR = {"activations computed again": 1e-5, "fused optimizer": 1e-5, "8-bit optimizer": 0.01}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Wide enough for bitsandbytes' own kernels, and for adapters whose moments are worth 8 bits.
    return build_tiny_model(tmp_path_factory.mktemp("wide") / "model", hidden_size=256)


def losses(model: Path, folder: Path, **way: Any) -> list[float]:
    """The losses of a short training, step by step."""
    asked = TrainingParameters(learning_rate=0.003, max_steps=10, per_device_train_batch_size=8, **way)
    quantized = asked.use_4bit or asked.use_8bit
    job = job_of(asked, strategy="qlora" if quantized else "sft", checkpoint_dir=str(folder / "checkpoints"))
    parameters = with_model(resolve_parameters(job), job, 128, encoder_decoder=False)
    loaded = huggingface.load(str(model), weight_dtype(parameters), quantization_config(parameters))
    records = Records(write_dataset(folder / "data.jsonl", questions(40)))
    trainer = sft.build_trainer(job, loaded, prepare(records, frozenset(), loaded.tokenizer, 128), parameters)
    trainer.args.save_strategy = "no"
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def plain(model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return losses(model, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("way", WAYS)
def test_it_learns_the_same(way: str, plain: list[float], model: Path, tmp_path: Path) -> None:
    found = losses(model, tmp_path, **WAYS[way])
    assert found == pytest.approx(plain, rel=AS_NEAR.get(way, 0.03))
    assert plain[0] - plain[-1] > 0.5
    assert found[0] - found[-1] == pytest.approx(plain[0] - plain[-1], rel=0.1)
    assert torch.get_default_dtype() == torch.float32
