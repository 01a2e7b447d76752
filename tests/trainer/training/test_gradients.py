"""Gradients are the right ones: of the loss that is reported, and on quantized weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from support.tiny_model import build_tiny_model
from support.trainer_attempts import job_of, questions, write_dataset
from trl import SFTTrainer

from trainer_entry.data.records import Records
from trainer_entry.providers import huggingface
from trainer_entry.providers.precision import quantization_config, weight_dtype
from trainer_entry.strategies import sft
from trainer_entry.tasks.text_generation import prepare
from trainer_entry.training.defaults import resolve_parameters, with_model
from trainer_entry.wire import Strategy, TrainingParameters

if TYPE_CHECKING:
    from pathlib import Path

# peft reads a name that this release of transformers has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Wide enough for bitsandbytes' own kernels.
    return build_tiny_model(tmp_path_factory.mktemp("wide") / "model", hidden_size=256)


def build(model: Path, folder: Path, strategy: Strategy, **asked: Any) -> sft.CompletionTrainer:
    job = job_of(TrainingParameters(**asked), strategy=strategy, checkpoint_dir=str(folder / "checkpoints"))
    parameters = with_model(resolve_parameters(job), job, 128, encoder_decoder=False)
    loaded = huggingface.load(str(model), weight_dtype(parameters), quantization_config(parameters))
    records = Records(write_dataset(folder / "data.jsonl", questions(16)))
    examples = prepare(records, frozenset(), loaded.tokenizer, 128)
    trainer = sft.build_trainer(job, loaded, examples, parameters)
    assert isinstance(trainer, sft.CompletionTrainer)
    return trainer


def gradient(trainer: sft.CompletionTrainer, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    trainer.model.train()
    trainer.model.zero_grad()
    trainer.model(**batch).loss.backward()
    parts = [weights.grad.flatten() for weights in trainer.model.parameters() if weights.grad is not None]
    return torch.cat(parts)


def test_an_evaluation_does_not_spoil_the_gradients_of_four_bit_weights(model: Path, tmp_path: Path) -> None:
    # given two trainers that are the same
    fresh, evaluated = build(model, tmp_path, "qlora"), build(model, tmp_path, "qlora")
    batch = next(iter(fresh.get_train_dataloader()))
    # when one of them has evaluated
    evaluated.model.eval()
    with torch.no_grad():
        evaluated.model(**batch)
    # then
    expected, actual = gradient(fresh, batch), gradient(evaluated, batch)
    assert expected.norm() > 0
    assert torch.nn.functional.cosine_similarity(expected, actual, dim=0) > 0.99
    modules = list(evaluated.model.modules())
    assert any(type(module).__name__ == "Linear4bit" for module in modules)
    assert not any(getattr(module, "support_avx512bf16_for_cpu", False) for module in modules)


@pytest.mark.parametrize("strategy", ["sft", "qlora"])
def test_adapters_are_trained_in_32_bits(strategy: Strategy, model: Path, tmp_path: Path) -> None:
    trainer = build(model, tmp_path, strategy)
    trained = {weights.dtype for weights in trainer.model.parameters() if weights.requires_grad}
    assert trained == {torch.float32}


def test_all_weights_are_trained_in_the_type_that_was_asked_for(model: Path, tmp_path: Path) -> None:
    for asked, dtype in (({}, torch.float32), ({"weight_dtype": "bfloat16"}, torch.bfloat16)):
        trainer = build(model, tmp_path, "sft", use_lora=False, optim="adamw_8bit", **asked)
        assert {weights.dtype for weights in trainer.model.parameters()} == {dtype}
        assert trainer.args.bf16 == (dtype == torch.bfloat16)


@pytest.mark.parametrize("post", ["plain", "capped", "scaled", "divided"])
def test_the_fused_head_gives_the_model_s_own_loss_and_gradients(post: str, model: Path, tmp_path: Path) -> None:
    # given models that change their logits, each in its own way
    path = model if post == "plain" else _with_other_logits(model, tmp_path / "model", post)
    trainer = build(path, tmp_path, "sft")
    batch = next(iter(trainer.get_train_dataloader()))
    count = (batch["labels"][:, 1:] != -100).sum()
    # when it is computed as on a GPU, and as on a CPU
    found = []
    for trainer.fuses_head in (True, False):
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=count)
        loss.backward()
        parts = [weights.grad.flatten() for weights in trainer.model.parameters() if weights.grad is not None]
        found.append((loss.item(), torch.cat(parts)))
    # then
    (fused, its_gradient), (own, gradient) = found
    assert fused == pytest.approx(own, rel=1e-5)
    torch.testing.assert_close(its_gradient, gradient, rtol=1e-4, atol=1e-6)


def _with_other_logits(model: Path, folder: Path, post: str) -> Path:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
    }
    kinds = {
        "capped": lambda: transformers.Gemma2Config(**sizes, final_logit_softcapping=2.0),
        "scaled": lambda: transformers.CohereConfig(**sizes, logit_scale=0.3),
        "divided": lambda: transformers.GraniteConfig(**sizes, logits_scaling=3.0),
    }
    made = transformers.AutoModelForCausalLM.from_config(kinds[post]())
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_loss_is_the_one_that_trl_computes(model: Path, tmp_path: Path) -> None:
    # given
    trainer = build(model, tmp_path, "sft")
    batch = next(iter(trainer.get_train_dataloader()))
    count = (batch["labels"][:, 1:] != -100).sum()
    # when
    ours = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=count)
    theirs = SFTTrainer.compute_loss(trainer, trainer.model, dict(batch), num_items_in_batch=count)
    # then
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)


def test_records_that_are_packed_together_do_not_see_each_other(model: Path, tmp_path: Path) -> None:
    # given
    apart, together = build(model, tmp_path, "sft"), build(model, tmp_path, "sft", packing=True)
    assert len(together.train_dataset) < len(apart.train_dataset)
    # then
    assert total_loss(together) == pytest.approx(total_loss(apart), rel=1e-4)


def total_loss(trainer: sft.CompletionTrainer) -> float:
    with torch.no_grad():
        return sum(
            trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=1).item()
            for batch in trainer.get_train_dataloader()
        )
