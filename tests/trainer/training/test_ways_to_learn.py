"""What changes how a model learns: the loss of preferences, noise, the order of records, rates of their own."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from support import task_records
from support.tiny_model import build_tiny_model
from support.trainer_attempts import Attempt, job_of, questions, write_dataset

from trainer_entry import wire
from trainer_entry.data.records import Records
from trainer_entry.providers import huggingface
from trainer_entry.strategies import dpo, sft
from trainer_entry.tasks import preferences, text_generation
from trainer_entry.training.defaults import resolve_parameters, with_evaluation, with_model
from trainer_entry.training.trainer import trained_model
from trainer_entry.wire import LOSSES, Strategy, TrainingParameters

if TYPE_CHECKING:
    from pathlib import Path

    from trainer_entry.training.trainer import AttemptTrainer

pytestmark = [
    pytest.mark.slow,
    # peft reads a name that this release of transformers has deprecated.
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]

BETA = 0.2
SMALL: dict[str, Any] = {"per_device_train_batch_size": 6, "learning_rate": 3e-4, "lora_r": 4}
AT_FIRST = {
    "sigmoid": math.log(2),
    "sigmoid_norm": math.log(2),
    "hinge": 1.0,
    "ipo": (1 / (2 * BETA)) ** 2,
    "nca_pair": 2 * math.log(2),
    "bco_pair": 2 * math.log(2),
    "sppo_hard": 2 * (0.5 / BETA) ** 2,
    "apo_zero": 1.0,
    "apo_down": 1.0,
}
"""What the formula of each loss gives where the model is its own reference: both ratios are 1."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def build(model: Path, folder: Path, strategy: Strategy = "sft", **asked: Any) -> AttemptTrainer:
    parameters = TrainingParameters(**{"learning_rate": 0.01, "max_steps": 5, **asked})
    job = job_of(parameters, strategy=strategy, model_path=str(model), checkpoint_dir=str(folder / "checkpoints"))
    parameters = with_model(resolve_parameters(job), job, 128, encoder_decoder=False)
    loaded = huggingface.load(str(model), torch.float32, None)
    held_out = frozenset(range(4)) if parameters.eval_split else frozenset()
    folder.mkdir(exist_ok=True)
    if strategy == "dpo":
        records = Records(write_dataset(folder / "data.jsonl", task_records.preferences(6)))
        examples = preferences.prepare(records, held_out, loaded.tokenizer, ("text-generation", "dpo"), 128, "right")
        return dpo.build_trainer(job, loaded, examples, with_evaluation(parameters, 8, 1))
    records = Records(write_dataset(folder / "data.jsonl", questions(44)))
    examples = text_generation.prepare(records, held_out, loaded.tokenizer, 128)
    return sft.build_trainer(job, loaded, examples, with_evaluation(parameters, 40, 1))


def losses_of(trainer: AttemptTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def lengths_in(trainer: AttemptTrainer, epoch: int) -> list[list[int]]:
    """How long the records of each batch of an epoch are."""
    loader: Any = trainer.get_train_dataloader()
    loader.set_epoch(epoch)
    return [batch["attention_mask"].sum(dim=1).tolist() for batch in loader]


def spread(batches: list[list[int]]) -> float:
    return sum(max(lengths) - min(lengths) for lengths in batches) / len(batches)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_of_preferences_begins_as_its_formula_says_and_falls(loss: str, model: Path, tmp_path: Path) -> None:
    trainer = build(model, tmp_path, "dpo", loss_type=loss, beta=BETA, max_steps=3, **SMALL)
    trainer.train()
    losses = losses_of(trainer)
    assert losses[0] == pytest.approx(AT_FIRST[loss], rel=1e-5)
    assert losses == sorted(losses, reverse=True)


def test_noise_is_in_what_is_learned_and_in_no_evaluation(model: Path, tmp_path: Path) -> None:
    # given
    asked: dict[str, Any] = {"eval_split": 0.1, "eval_steps": 5, "max_steps": 10, "save_steps": 5, "lora_r": 8}
    plain, noisy = (
        build(model, tmp_path / name, neftune_noise_alpha=alpha, **asked)
        for name, alpha in (("plain", None), ("noisy", 20.0))
    )
    untrained = plain.evaluate()["eval_loss"]
    assert noisy.evaluate()["eval_loss"] == untrained
    # when
    for trainer in (plain, noisy):
        trainer.train()
    # then
    assert losses_of(noisy)[0] != pytest.approx(losses_of(plain)[0], rel=1e-3)
    told = [entry["eval_loss"] for entry in noisy.state.log_history if "eval_loss" in entry]
    assert told[-1] < untrained - 0.2
    assert noisy.evaluate()["eval_loss"] == pytest.approx(told[-1], rel=1e-6)
    assert "neftune_noise_alpha" not in vars(trained_model(noisy).get_input_embeddings())
    # and an attempt that goes on hears the same noise
    again = build(model, tmp_path / "noisy", neftune_noise_alpha=20.0, **asked)
    again.train(resume_from_checkpoint=str(tmp_path / "noisy" / "checkpoints" / "checkpoint-5"))
    assert losses_of(again) == pytest.approx(losses_of(noisy), rel=1e-5)


def test_records_by_length_come_in_the_same_order_to_an_attempt_that_goes_on(model: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"group_by_length": True, "max_steps": 25, "save_steps": 14}
    whole, resumed = (build(model, tmp_path, **asked) for _ in range(2))
    whole.train()
    losses = losses_of(whole)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-14"))  # within the second epoch
    assert losses_of(resumed) == pytest.approx(losses, rel=1e-5)
    assert sum(losses[-5:]) < sum(losses[:5]) - 1
    # and a batch has records of like lengths, in another order in each epoch
    first, second = (lengths_in(whole, epoch) for epoch in (0, 1))
    assert first != second
    mixed = lengths_in(build(model, tmp_path / "mixed"), 0)
    assert spread(first) < 0.7 * spread(mixed)
    assert sorted(itertools.chain(*first)) == sorted(itertools.chain(*mixed))


# torch warns of what its own tracing does.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated:DeprecationWarning")
def test_a_compiled_model_learns_and_is_evaluated_saved_and_gone_on_with_as_any_other(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given graphs as they are caught for any backend, but computed by torch: a compiler's code takes minutes
    compile_model = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **_: compile_model(module, backend="eager"))
    asked: dict[str, Any] = {"eval_split": 0.1, "eval_steps": 4, "max_steps": 4, "save_steps": 2, "lora_r": 4}
    plain = build(model, tmp_path / "plain", **asked)
    compiled = build(model, tmp_path / "compiled", torch_compile=True, **asked)
    # when
    for trainer in (plain, compiled):
        trainer.train()
    # then
    assert isinstance(compiled.model_wrapped, torch._dynamo.OptimizedModule)  # noqa: SLF001 - its only name
    assert losses_of(compiled) == pytest.approx(losses_of(plain), rel=1e-4)
    figures = [[entry["eval_loss"] for entry in one.state.log_history if "eval_loss" in entry]
               for one in (plain, compiled)]  # fmt: skip
    assert figures[1] == pytest.approx(figures[0], rel=1e-4)
    checkpoint = tmp_path / "compiled" / "checkpoints" / "checkpoint-2"
    assert not [name for name in load_file(checkpoint / "adapter_model.safetensors") if "_orig_mod" in name]
    again = build(model, tmp_path / "compiled", torch_compile=True, **asked)
    again.train(resume_from_checkpoint=str(checkpoint))
    assert losses_of(again) == pytest.approx(losses_of(compiled), rel=1e-4)


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_8bit"])
def test_the_second_matrix_of_an_adapter_learns_at_a_rate_of_its_own(optim: str, model: Path, tmp_path: Path) -> None:
    trainer = build(model, tmp_path, loraplus_lr_ratio=8.0, optim=optim, weight_decay=0.1, lr_scheduler_type="constant")
    trainer.train()
    assert trainer.optimizer is not None
    names = {id(weights): name for name, weights in trained_model(trainer).named_parameters()}
    rates = {
        names[id(weights)].split(".")[-3]: (group["lr"], group["weight_decay"])
        for group in trainer.optimizer.param_groups
        for weights in group["params"]
    }
    assert rates == {"lora_A": (0.01, 0.1), "lora_B": (0.08, 0.1)}
    assert {entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry} == {0.01}
    assert losses_of(trainer)[-1] < losses_of(trainer)[0] - 0.2


@pytest.mark.training
def test_a_reward_model_and_its_policy_take_what_an_adapter_can_be_given(model: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "use_dora": True,
        "use_rslora": True,
        "init_lora_weights": "orthogonal",
        "loraplus_lr_ratio": 4.0,
        "modules_to_save": ["embed_tokens", "lm_head"],  # of which the reward model lacks one
    }
    dataset = write_dataset(tmp_path / "data.jsonl", task_records.preferences(12))
    attempt = Attempt(
        tmp_path / "attempt", model, dataset, strategy="rlhf", max_completion_length=4, max_steps=3, learning_rate=0.01,
        reward_learning_rate=0.001, **asked,
    )  # fmt: skip
    assert attempt.wait() == 0, attempt.stderr()
    started = attempt.of_type(wire.TrainerStarted)
    assert len(started) == 2
    for name, value in asked.items():
        assert {msgspec.json.encode(getattr(one.parameters, name)) for one in started} == {msgspec.json.encode(value)}
    assert started[0].trainable_parameters < started[1].trainable_parameters
    losses = [step.loss or 0 for step in attempt.of_type(wire.StepLogged)]
    assert len(losses) == 6
    assert losses[2] < losses[0] - 0.05
    numbers = load_file(attempt.output / "adapter_model.safetensors")
    assert {name.rpartition("model.")[2] for name in numbers if "lora" not in name} == {
        "embed_tokens.weight",
        "lm_head.weight",
    }
