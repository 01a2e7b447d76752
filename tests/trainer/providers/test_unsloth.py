"""The provider unsloth, through its own code on the CPU: what it trains is what the provider huggingface trains."""

from __future__ import annotations

import json
import os
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.tiny_model import build_tiny
from support.trainer_attempts import Attempt, write_dataset

from trainer_entry import wire

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.training
installed = pytest.mark.skipif(find_spec("unsloth") is None, reason="run `make setup-unsloth`")

# Runs in every Python process of the attempt, before its program.
HIDING = """
import sys
class Hiding:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "unsloth":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hiding())
"""
# Notes every address that the process asks for, and lets it ask.
LISTENING = """
import os, sys
def listen(event, arguments):
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(arguments[1], tuple)):
        with open(os.environ["ASKED"], "a") as file:
            print(event, arguments, file=file)
sys.addaudithook(listen)
"""


def preferences(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "I do not know that, and do not care."}
        for i in range(count)
    ]


def summaries(count: int) -> list[dict[str, Any]]:
    return [
        {"document": f"Bread rises. Yeast fills the dough of loaf {i} with gas.", "summary": f"Yeast fills loaf {i}."}
        for i in range(count)
    ]


def before_all_else(folder: Path, code: str) -> dict[str, str]:
    """An environment in which Python runs `code` first."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(wire.__file__).parents[2])])}


def losses(attempt: Attempt) -> list[float | None]:
    return [step.loss for step in attempt.of_type(wire.StepLogged)]


def policy(attempt: Attempt) -> list[wire.StepLogged]:
    """The steps of the policy, which alone is held to a reference."""
    return [step for step in attempt.of_type(wire.StepLogged) if step.kl is not None]


def adapters(folder: Path) -> set[str]:
    """Where under a folder an adapter's weights lie."""
    return {str(file.relative_to(folder).parent) for file in folder.rglob("adapter_model.safetensors")}


def test_where_it_is_not_installed_a_job_says_how_to_get_it(
    tmp_path: Path, tiny_model: Path, dataset: wire.DatasetFile
) -> None:
    environment = before_all_else(tmp_path / "hiding", HIDING)
    attempt = Attempt(tmp_path / "attempt", tiny_model, dataset, provider="unsloth", environment=environment)
    assert attempt.wait() == 1
    failed = attempt.one(wire.TrainerFailed)
    assert failed.kind == "ModelUnavailable"
    assert "make setup-unsloth" in failed.message


@installed
@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        ("sft", {"eval_split": 0.125, "lora_dropout": 0.1, "use_rslora": True, "lora_alpha": 8}),
        (
            "sft",
            {
                "target_modules": ["q_proj", "v_proj"],
                "gradient_checkpointing": True,
                "group_by_length": True,
                "loraplus_lr_ratio": 2.0,
            },
        ),
        ("sft", {"use_lora": False}),
        ("qlora", {"eval_split": 0.125}),
    ],
    ids=["adapter", "named-modules", "all-weights", "four-bits"],
)
def test_it_learns_what_the_provider_huggingface_learns(
    strategy: wire.Strategy, more: Mapping[str, Any], tmp_path: Path, tiny_model: Path, dataset: wire.DatasetFile
) -> None:
    # when
    shared = {"strategy": strategy, "max_steps": 16, "learning_rate": 0.01, "optim": "adamw_torch_fused", **more}
    ours = Attempt(tmp_path / "unsloth", tiny_model, dataset, provider="unsloth", **shared)
    theirs = Attempt(tmp_path / "huggingface", tiny_model, dataset, provider="huggingface", **shared)
    # then
    assert ours.wait() == 0, ours.stderr()
    assert theirs.wait() == 0, theirs.stderr()
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-3)
    assert losses(ours)[-1] < losses(ours)[0] - 0.1
    assert "Unsloth" in ours.stderr()
    assert "Unsloth" not in theirs.stderr()
    started, reference = ours.one(wire.TrainerStarted), theirs.one(wire.TrainerStarted)
    assert started.trainable_parameters == reference.trainable_parameters
    assert started.all_parameters == reference.all_parameters
    assert started.parameters == reference.parameters
    assert started.base_revision == reference.base_revision
    assert {"unsloth", "unsloth_zoo"} <= started.environment.versions.keys()
    model, expected = ours.one(wire.TrainerFinished).model, theirs.one(wire.TrainerFinished).model
    assert model.kind == expected.kind
    if "eval_split" in more:
        for name in ("eval_loss", "base_eval_loss"):
            assert model.metrics[name] == pytest.approx(expected.metrics[name], rel=1e-3)
    assert {file.name for file in ours.output.iterdir()} == {file.name for file in theirs.output.iterdir()}
    if model.kind == "adapter":
        written = json.loads((ours.output / "adapter_config.json").read_text())
        wanted = json.loads((theirs.output / "adapter_config.json").read_text())
        assert set(written["target_modules"]) == set(wanted["target_modules"])
        del written["target_modules"], wanted["target_modules"]
        assert written == wanted


@installed
def test_preferences_are_learned_against_the_model_without_the_adapter(tmp_path: Path, tiny_model: Path) -> None:
    # when
    dataset = write_dataset(tmp_path / "preferences.jsonl", preferences(32))
    shared: dict[str, Any] = {"strategy": "dpo", "learning_rate": 0.005, "optim": "adamw_torch_fused", "save_steps": 4}
    shared["loss_type"] = "apo_zero"
    ours = Attempt(tmp_path / "unsloth", tiny_model, dataset, provider="unsloth", **shared)
    theirs = Attempt(tmp_path / "huggingface", tiny_model, dataset, provider="huggingface", **shared)
    # then
    assert ours.wait() == 0, ours.stderr()
    assert theirs.wait() == 0, theirs.stderr()
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-3)
    assert losses(ours)[-1] < losses(ours)[0] - 0.1
    assert ours.one(wire.TrainerStarted).trainable_parameters == theirs.one(wire.TrainerStarted).trainable_parameters
    # and there is one adapter, wherever it is saved
    assert adapters(ours.output) == {"."}
    saved = ours.of_type(wire.CheckpointWritten)
    assert [checkpoint.step for checkpoint in saved] == [4, 8]
    assert all(adapters(Path(checkpoint.path)) == {"."} for checkpoint in saved)
    # and when
    resumed = Attempt(
        tmp_path / "resumed", tiny_model, dataset, provider="unsloth", resume_from=saved[0].path, **shared
    )
    # then
    assert resumed.wait() == 0, resumed.stderr()
    assert losses(resumed) == pytest.approx(losses(ours)[4:], rel=1e-4)


@installed
@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_a_policy_is_rewarded_as_the_provider_huggingface_rewards_it(
    algorithm: str, tmp_path: Path, tiny_model: Path
) -> None:
    # when
    dataset = write_dataset(tmp_path / "preferences.jsonl", preferences(24))
    shared: dict[str, Any] = {
        "strategy": "rlhf",
        "rl_algorithm": algorithm,
        "max_steps": 4,
        "max_completion_length": 12,
        "learning_rate": 0.05,
        "reward_learning_rate": 0.01,
        "optim": "adamw_torch_fused",
        "use_4bit": True,
    }
    ours = Attempt(tmp_path / "unsloth", tiny_model, dataset, provider="unsloth", **shared)
    theirs = Attempt(tmp_path / "huggingface", tiny_model, dataset, provider="huggingface", **shared)
    # then
    assert ours.wait() == 0, ours.stderr()
    assert theirs.wait() == 0, theirs.stderr()
    assert losses(ours)[:4] == pytest.approx(losses(theirs)[:4], rel=1e-3)  # of the reward model
    steps, expected = policy(ours), policy(theirs)
    assert [step.reward for step in steps] == pytest.approx([step.reward for step in expected], rel=1e-2)
    assert [step.kl for step in steps] == pytest.approx([step.kl for step in expected], rel=1e-2, abs=1e-3)
    assert any(step.kl for step in steps)
    assert adapters(ours.output) == {"."}
    assert adapters(tmp_path / "unsloth" / "checkpoints") == {"checkpoint-4", "checkpoint-8"}


@installed
def test_summaries_are_learned(tmp_path: Path, tiny_model: Path) -> None:
    dataset = write_dataset(tmp_path / "summaries.jsonl", summaries(48))
    attempt = Attempt(
        tmp_path / "attempt",
        tiny_model,
        dataset,
        task="summarization",
        provider="unsloth",
        eval_split=0.125,
        learning_rate=0.01,
    )
    assert attempt.wait() == 0, attempt.stderr()
    metrics = attempt.one(wire.TrainerFinished).model.metrics
    assert metrics["eval_loss"] < metrics["base_eval_loss"] - 0.5
    assert metrics["eval_rougeL"] > metrics["base_eval_rougeL"]


@installed
def test_a_stop_saves_a_checkpoint_that_unsloth_goes_on_from(
    tmp_path: Path, tiny_model: Path, dataset: wire.DatasetFile
) -> None:
    # given
    attempt = Attempt(tmp_path / "stopped", tiny_model, dataset, provider="unsloth", max_steps=1_000_000)
    attempt.wait_for(lambda messages: any(isinstance(message, wire.StepLogged) for message in messages))
    # when
    attempt.process.send_signal(signal.SIGTERM)
    # then
    assert attempt.wait() == 0, attempt.stderr()
    stopped = attempt.one(wire.TrainerStopped)
    assert stopped.checkpoint is not None
    assert (Path(stopped.checkpoint) / wire.CHECKPOINT_MANIFEST).exists()
    # and when
    end = stopped.step + 3
    resumed = Attempt(
        tmp_path / "resumed", tiny_model, dataset, provider="unsloth", resume_from=stopped.checkpoint, max_steps=end
    )
    # then
    assert resumed.wait() == 0, resumed.stderr()
    assert [step.step for step in resumed.of_type(wire.StepLogged)] == [stopped.step + n for n in (1, 2, 3)]


@installed
@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"fp16": True}, "fp16"),
        ({"use_8bit": True}, "8 bits"),
        ({"use_4bit": True, "use_nested_quant": False}, "use_nested_quant"),
    ],
    ids=["fp16", "8-bits", "not-nested"],
)
def test_what_it_would_silently_train_instead_is_refused(
    asked: dict[str, Any], named: str, tmp_path: Path, tiny_model: Path, dataset: wire.DatasetFile
) -> None:
    attempt = Attempt(tmp_path, tiny_model, dataset, provider="unsloth", **asked)
    assert attempt.wait() == 1
    failed = attempt.one(wire.TrainerFailed)
    assert failed.kind == "ConflictingParameters"
    assert named in failed.message
    assert "huggingface" in failed.message


@installed
def test_a_model_that_is_not_causal_is_refused(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "summaries.jsonl", summaries(8))
    model = build_tiny(tmp_path / "model", "t5")
    attempt = Attempt(tmp_path / "attempt", model, dataset, task="summarization", provider="unsloth")
    assert attempt.wait() == 1
    failed = attempt.one(wire.TrainerFailed)
    assert failed.kind == "ConflictingParameters"
    assert "causal" in failed.message


@installed
def test_it_asks_nobody_leaves_nothing_where_the_server_runs_and_says_what_it_changed(
    tmp_path: Path, tiny_model: Path, dataset: wire.DatasetFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a server's folder, and a hub that may be asked
    here, asked = tmp_path / "here", tmp_path / "asked.log"
    here.mkdir()
    monkeypatch.chdir(here)
    environment = before_all_else(tmp_path / "listening", LISTENING)
    environment |= {"HF_HUB_OFFLINE": "0", "ASKED": str(asked)}
    # when
    attempt = Attempt(
        tmp_path / "attempt",
        tiny_model,
        dataset,
        provider="unsloth",
        environment=environment,
        optim="adamw_8bit",
        packing=True,
        max_steps=2,
    )
    # then
    assert attempt.wait() == 0, attempt.stderr()
    assert not asked.exists(), asked.read_text()
    assert list(here.iterdir()) == []
    # and
    started = attempt.one(wire.TrainerStarted)
    assert (started.parameters.optim, started.parameters.packing) == ("adamw_torch_fused", False)
    assert (started.trainer_arguments["optim"], started.trainer_arguments["packing"]) == ("adamw_torch_fused", False)
    assert started.train_examples == dataset.num_examples
