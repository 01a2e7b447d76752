"""What each strategy is for shows in its figures, on real trainings of tiny models."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support import task_records
from support.tiny_model import build_tiny, build_tiny_model
from support.trainer_attempts import Attempt, questions, write_dataset
from transformers import AutoModelForCausalLM

from trainer_entry import wire

if TYPE_CHECKING:
    from trainer_entry.wire import DatasetFile

pytestmark = pytest.mark.training

POLICY: dict[str, Any] = {
    "strategy": "rlhf",
    "learning_rate": 0.003,
    "reward_learning_rate": 0.01,
    "max_completion_length": 6,
    "per_device_train_batch_size": 16,
    "max_steps": 16,
    "eval_split": 0.1,
    "eval_steps": 100,
}


@pytest.fixture(scope="module")
def undecided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers yes or no, as it happens."""
    folder = tmp_path_factory.mktemp("undecided")
    said = [{"input": f"Is it {i}?", "output": "yes" if i * 7 % 3 else "no"} for i in range(96)]
    attempt = Attempt(
        folder,
        build_tiny_model(folder / "model"),
        write_dataset(folder / "said.jsonl", said),
        use_lora=False,
        learning_rate=0.003,
        num_train_epochs=4,
        per_device_train_batch_size=8,
    )
    assert attempt.wait() == 0, attempt.stderr()
    return attempt.output


@pytest.fixture(scope="module")
def no_is_better(tmp_path_factory: pytest.TempPathFactory) -> DatasetFile:
    preferred = [{"prompt": f"Is it {i}?", "chosen": "no", "rejected": "yes"} for i in range(64)]
    return write_dataset(tmp_path_factory.mktemp("preferred") / "no.jsonl", preferred)


@pytest.fixture(scope="module")
def rewarded(tmp_path_factory: pytest.TempPathFactory, undecided: Path, no_is_better: DatasetFile) -> Attempt:
    attempt = Attempt(tmp_path_factory.mktemp("rewarded"), undecided, no_is_better, **POLICY)
    assert attempt.wait() == 0, attempt.stderr()
    return attempt


def test_dpo_tells_chosen_from_rejected(tiny_model: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "preferences.jsonl", task_records.preferences(40))
    attempt = Attempt(
        tmp_path / "attempt", tiny_model, dataset, strategy="dpo", eval_split=0.2, learning_rate=0.001, max_steps=20
    )
    assert attempt.wait() == 0, attempt.stderr()
    metrics = attempt.one(wire.TrainerFinished).model.metrics
    assert (metrics["base_eval_reward_margin"], metrics["base_eval_reward_accuracy"]) == (0, 0)
    assert metrics["eval_reward_margin"] > 0.5
    assert metrics["eval_reward_accuracy"] > 0.9
    steps = attempt.of_type(wire.StepLogged)
    assert steps[-1].reward_margin > steps[1].reward_margin
    assert all(step.loss is not None and step.tokens_per_second is not None for step in steps)


def test_a_policy_learns_what_is_rewarded(rewarded: Attempt) -> None:
    metrics = rewarded.one(wire.TrainerFinished).model.metrics
    assert metrics["reward_model_eval_reward_accuracy"] == 1
    assert metrics["eval_reward"] > metrics["base_eval_reward"] + 0.5
    steps = [step for step in rewarded.of_type(wire.StepLogged) if step.phase == "training"]
    assert all(None not in {step.reward, step.kl, step.completion_length} for step in steps)
    assert steps[0].kl == pytest.approx(0, abs=1e-3)  # it begins as the model that it is held to
    assert steps[-1].kl > 0.01


def test_the_three_phases_of_rlhf_are_counted_through(rewarded: Attempt) -> None:
    phases = [message.phase for message in rewarded.of_type(wire.PhaseStarted)]
    assert [phase for phase in phases if not phase.startswith("evaluating")] == [
        *("loading_model", "preparing_data", "training_reward_model", "merging_reward_model", "training", "saving"),
    ]
    steps = rewarded.of_type(wire.StepLogged)
    assert [step.step for step in steps] == list(range(1, 33))
    assert {step.total_steps for step in steps} == {32}
    assert [step.phase_step for step in steps] == [*range(1, 17), *range(1, 17)]
    assert [started.total_steps for started in rewarded.of_type(wire.TrainerStarted)] == [32, 32]
    # How long the policy takes is not known before its first step.
    assert {step.eta_seconds for step in steps[:16]} == {None}
    assert all(step.phase_eta_seconds is not None for step in steps)
    assert [step.phase_eta_seconds for step in steps[15::16]] == [0, 0]
    assert [step.eta_seconds for step in steps[16:]] == [step.phase_eta_seconds for step in steps[16:]]


def test_what_either_phase_of_rlhf_leaves_out_is_counted_in_both(tiny_model: Path, tmp_path: Path) -> None:
    records = [
        *({"prompt": f"Is it {i}?", "chosen": "no", "rejected": "yes"} for i in range(16)),
        {"prompt": "Is it?", "chosen": "no", "rejected": "yes, " * 90},
        {"prompt": "far " * 90, "chosen": "no", "rejected": "yes"},
    ]
    dataset = write_dataset(tmp_path / "preferences.jsonl", records)
    attempt = Attempt(
        tmp_path / "attempt",
        tiny_model,
        dataset,
        **POLICY | {"max_steps": 1, "eval_split": 0.0, "use_4bit": True, "bf16": True},
        max_seq_length=60,
    )
    assert attempt.wait() == 0, attempt.stderr()
    reports = attempt.of_type(wire.TrainerStarted)
    assert [(started.train_examples, started.left_out_examples) for started in reports] == [(16, 3), (17, 3)]
    # and the reward model's adapter, learned on 4 bits, is merged into the weights as they were before
    config = json.loads((attempt.output / "reward_model" / "config.json").read_text())
    assert ("quantization_config" in config, config["dtype"]) == (False, "bfloat16")


def test_the_reward_model_is_kept_beside_the_policy_and_can_be_given_to_another(
    rewarded: Attempt, undecided: Path, no_is_better: DatasetFile, tmp_path: Path
) -> None:
    kept = rewarded.one(wire.TrainerFinished).model.reward_model_path
    assert kept == str(rewarded.output / "reward_model")
    assert not (rewarded.folder / "checkpoints" / "reward_model").exists()
    # when
    settings = POLICY | {"rl_algorithm": "grpo", "max_steps": 12, "reward_model": "the one before"}
    attempt = Attempt(tmp_path / "attempt", undecided, no_is_better, reward_model_path=kept, **settings)
    # then
    assert attempt.wait() == 0, attempt.stderr()
    assert {step.phase for step in attempt.of_type(wire.StepLogged)} == {"training"}
    model = attempt.one(wire.TrainerFinished).model
    assert model.reward_model_path is None
    assert model.metrics["eval_reward"] > model.metrics["base_eval_reward"] + 0.5


def test_a_policy_that_was_stopped_goes_on_with_the_same_reward_model(
    undecided: Path, no_is_better: DatasetFile, tmp_path: Path
) -> None:
    # given
    stopped = Attempt(tmp_path / "one", undecided, no_is_better, **POLICY | {"save_steps": 4})
    stopped.wait_for(lambda messages: any(isinstance(m, wire.CheckpointWritten) and m.step == 20 for m in messages))
    stopped.process.send_signal(signal.SIGTERM)
    assert stopped.wait() == 0, stopped.stderr()
    end = stopped.one(wire.TrainerStopped)
    assert end.checkpoint == str(tmp_path / "one" / "checkpoints" / f"checkpoint-{end.step}")
    # when
    going_on = Attempt(
        tmp_path / "two",
        undecided,
        no_is_better,
        checkpoint_dir=Path(end.checkpoint).parent,
        resume_from=end.checkpoint,
        **POLICY,
    )
    # then
    assert going_on.wait() == 0, going_on.stderr()
    assert going_on.one(wire.TrainerStarted).resumed_step == end.step
    assert [step.step for step in going_on.of_type(wire.StepLogged)] == list(range(end.step + 1, 33))


@pytest.mark.parametrize("strategy", ["dpo", "rlhf"])
def test_preferences_whose_loss_is_no_number_are_named(
    strategy: wire.Strategy, tiny_model: Path, tmp_path: Path
) -> None:
    # given
    broken = AutoModelForCausalLM.from_pretrained(shutil.copytree(tiny_model, tmp_path / "model"))
    torch.nn.init.constant_(broken.model.norm.weight, math.nan)
    broken.save_pretrained(tmp_path / "model")
    dataset = write_dataset(tmp_path / "preferences.jsonl", task_records.preferences(4))
    # when
    attempt = Attempt(tmp_path, tmp_path / "model", dataset, strategy=strategy, max_completion_length=4)
    # then
    assert attempt.wait() == 1
    failed = attempt.one(wire.TrainerFailed)
    assert failed.kind == "LossNotFinite"
    assert "lines 1, 2, 3, 4" in failed.message


def test_four_bits_lose_little(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model", hidden_size=256)
    dataset = write_dataset(tmp_path / "questions.jsonl", questions(64))
    settings: dict[str, Any] = {"learning_rate": 0.003, "max_steps": 30}
    losses = []
    for strategy in ("sft", "qlora"):
        attempt = Attempt(tmp_path / strategy, model, dataset, strategy=strategy, **settings)
        assert attempt.wait() == 0, attempt.stderr()
        losses.append(attempt.one(wire.TrainerFinished).model.metrics["final_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_answers_are_found_that_the_untrained_model_does_not_find(tmp_path: Path) -> None:
    model = build_tiny(tmp_path / "model", "bert")
    dataset = write_dataset(tmp_path / "questions.jsonl", task_records.questions(240))
    attempt = Attempt(
        tmp_path / "attempt",
        model,
        dataset,
        task="extractive-question-answering",
        use_lora=False,
        eval_split=0.2,
        learning_rate=0.003,
        num_train_epochs=30,
        per_device_train_batch_size=8,
        logging_steps=10,
    )
    assert attempt.wait() == 0, attempt.stderr()
    metrics = attempt.one(wire.TrainerFinished).model.metrics
    assert metrics["eval_f1"] > metrics["base_eval_f1"] + 20
    assert metrics["eval_exact_match"] <= metrics["eval_f1"]
    assert "AutoModelForQuestionAnswering.from_pretrained" in (attempt.output / "README.md").read_text()


def test_summaries_come_nearer_to_their_references(tmp_path: Path) -> None:
    model = build_tiny(tmp_path / "model", "t5", context=256)
    dataset = write_dataset(tmp_path / "summaries.jsonl", task_records.summaries(160))
    attempt = Attempt(
        tmp_path / "attempt",
        model,
        dataset,
        task="summarization",
        use_lora=False,
        eval_split=0.1,
        learning_rate=0.005,
        num_train_epochs=8,
        per_device_train_batch_size=8,
        logging_steps=10,
    )
    assert attempt.wait() == 0, attempt.stderr()
    metrics = attempt.one(wire.TrainerFinished).model.metrics
    assert metrics["eval_rougeL"] > metrics["base_eval_rougeL"] + 20
    assert "AutoModelForSeq2SeqLM.from_pretrained" in (attempt.output / "README.md").read_text()
