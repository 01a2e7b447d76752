"""A policy learns by reward functions: on held-out prompts too, from where it stopped, by a file that was accepted."""

from __future__ import annotations

import hashlib
import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from support.tiny_model import build_tiny_model
from support.trainer_attempts import Attempt, write_dataset

from trainer_entry import wire

if TYPE_CHECKING:
    from pathlib import Path

    from trainer_entry.wire import DatasetFile

pytestmark = pytest.mark.training

LETTERS = "abcd"
POLICY: dict[str, Any] = {
    "strategy": "rlhf",
    "use_lora": False,
    "learning_rate": 0.003,
    "max_completion_length": 4,
    "num_generations": 4,
    "per_device_train_batch_size": 64,
}
PYTHON = """\
print("loaded")

def reward(prompts, completions, completion_ids, tests, trainer_state, log_metric, answer=None, **columns):
    print({"type": "step"}, flush=True)
    log_metric("seen", trainer_state.global_step)
    assert len(prompts) == len(completions) == len(completion_ids) == len(tests)
    assert all(turns[-1]["role"] == "user" for turns in prompts)
    return [float(completion[0]["content"] == test["first"]) for completion, test in zip(completions, tests)]
"""


def questions(count: int, seed: int) -> list[str]:
    """A letter and three digits; no two are alike."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    found = sorted({draw.choice(LETTERS) + "".join(draw.choices("0123456789", k=3)) for _ in range(2 * count)})
    return draw.sample(found, count)


@pytest.fixture(scope="module")
def guesser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers with the letter of the question, or rather with the one after it."""
    folder, draw = tmp_path_factory.mktemp("guesser"), random.Random(1)  # noqa: S311
    said = [
        {"input": asked, "output": LETTERS[(LETTERS.index(asked[0]) + (draw.random() < 0.7)) % 4]}
        for asked in questions(300, seed=0)
    ]
    attempt = Attempt(
        folder,
        build_tiny_model(folder / "model"),
        write_dataset(folder / "said.jsonl", said),
        use_lora=False,
        learning_rate=0.003,
        num_train_epochs=12,
        per_device_train_batch_size=16,
        logging_steps=100,
    )
    assert attempt.wait() == 0, attempt.stderr()
    return attempt.output


@pytest.fixture(scope="module")
def first_letters(tmp_path_factory: pytest.TempPathFactory) -> DatasetFile:
    records = [{"input": asked, "output": asked[0], "level": len(asked)} for asked in questions(250, seed=2)]
    return write_dataset(tmp_path_factory.mktemp("asked") / "letters.jsonl", records)


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_exact_match_on_held_out_prompts_rises_by_what_is_rewarded(
    algorithm: str, guesser: Path, first_letters: DatasetFile, tmp_path: Path
) -> None:
    attempt = Attempt(
        tmp_path,
        guesser,
        first_letters,
        **POLICY,
        rl_algorithm=algorithm,
        max_steps=25,
        eval_split=0.2,
        eval_steps=100,
        reward_functions=["exact_match", {"name": "length", "max": 2, "weight": 0.5}],
    )
    assert attempt.wait() == 0, attempt.stderr()
    model = attempt.one(wire.TrainerFinished).model
    assert model.metrics["eval_greedy_exact_match"] > model.metrics["base_eval_greedy_exact_match"] + 0.3
    assert model.metrics["eval_greedy_reward"] == pytest.approx(
        model.metrics["eval_greedy_exact_match"] + 0.5 * model.metrics["eval_greedy_length"]
    )
    assert model.metrics["eval_reward"] > model.metrics["base_eval_reward"] + 0.3
    # and no reward model is trained, nor saved
    assert {step.phase for step in attempt.of_type(wire.StepLogged)} == {"training"}
    assert {message.phase for message in attempt.of_type(wire.PhaseStarted)}.isdisjoint(
        {"training_reward_model", "merging_reward_model"}
    )
    assert model.reward_model_path is None
    assert attempt.one(wire.TrainerStarted).parameters.reward_learning_rate is None
    assert "Reward functions (`exact_match`, `length`) rewarded" in (attempt.output / "README.md").read_text()
    for step in attempt.of_type(wire.StepLogged):
        assert set(step.rewards) == {"exact_match", "length"}
        assert step.reward == pytest.approx(step.rewards["exact_match"] + 0.5 * step.rewards["length"], abs=1e-4)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, guesser: Path) -> tuple[Attempt, Path, DatasetFile]:
    """A policy that a Python file rewarded by a field of its own, from prompts without answers; and the file."""
    folder = tmp_path_factory.mktemp("judged")
    file = folder / "rewards.py"
    file.write_text(PYTHON)
    records = [{"prompt": asked, "tests": {"first": asked[0]}} for asked in questions(64, seed=3)]
    dataset = write_dataset(folder / "prompts.jsonl", records)
    attempt = Attempt(folder / "one", guesser, dataset, **by_file(file), save_total_limit=None)
    assert attempt.wait() == 0, attempt.stderr()
    return attempt, file, dataset


def by_file(file: Path) -> dict[str, Any]:
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    functions = [{"name": "python_file", "path": str(file), "sha256": sha256}, {"name": "length", "target": 1}]
    return POLICY | {"rl_algorithm": "grpo", "max_steps": 6, "save_steps": 3, "reward_functions": functions}


def test_what_a_reward_function_prints_comes_to_the_log_and_its_field_to_it(
    judged: tuple[Attempt, Path, DatasetFile],
) -> None:
    attempt, _, _ = judged
    steps = attempt.of_type(wire.StepLogged)  # every line of the wire is a message
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    assert all(0 < step.rewards["python_file"] < 1 for step in steps)
    said = attempt.stderr()
    assert said.count("loaded") == 1
    assert said.count("{'type': 'step'}") == 7  # once before the first step
    assert "python_file rewards the first prompt's own answer with 0.0." in said


def test_a_policy_that_goes_on_is_the_one_that_was_never_interrupted(
    judged: tuple[Attempt, Path, DatasetFile], guesser: Path, tmp_path: Path
) -> None:
    whole, file, dataset = judged
    shutil.copytree(whole.folder / "checkpoints" / "checkpoint-3", tmp_path / "checkpoints" / "checkpoint-3")
    going_on = Attempt(
        tmp_path, guesser, dataset, resume_from=str(tmp_path / "checkpoints" / "checkpoint-3"), **by_file(file)
    )
    assert going_on.wait() == 0, going_on.stderr()
    told = [
        [(step.step, step.loss, step.reward, step.rewards, step.kl) for step in attempt.of_type(wire.StepLogged)]
        for attempt in (whole, going_on)
    ]
    assert told[1] == told[0][3:]


def test_a_file_that_has_changed_since_is_not_run_when_a_job_goes_on(
    judged: tuple[Attempt, Path, DatasetFile], guesser: Path, tmp_path: Path
) -> None:
    whole, file, dataset = judged
    copy = tmp_path / "rewards.py"
    copy.write_text(file.read_text())
    settings = by_file(copy)
    copy.write_text(PYTHON + "# and another line\n")
    checkpoint = str(whole.folder / "checkpoints" / "checkpoint-3")
    attempt = Attempt(tmp_path / "two", guesser, dataset, resume_from=checkpoint, **settings)
    assert attempt.wait() == 1
    failed = attempt.one(wire.TrainerFailed)
    assert (failed.kind, str(copy) in failed.message) == ("RewardFileChanged", True)
    assert "loaded" not in attempt.stderr()


@pytest.mark.parametrize(
    ("changed", "kind", "says"),
    [
        (
            {"reward_functions": ["number_match"]},
            "WrongRecords",
            "Line 1 of the dataset: there is no number in the field 'answer'",
        ),
        (
            {"reward_functions": [{"name": "exact_match", "field": "hint"}]},
            "WrongRecords",
            "there is no text or number in a field 'hint'",
        ),
    ],
)
def test_records_that_cannot_be_rewarded_are_named_by_their_line_before_a_step(
    changed: dict[str, Any], kind: str, says: str, guesser: Path, first_letters: DatasetFile, tmp_path: Path
) -> None:
    attempt = Attempt(tmp_path, guesser, first_letters, **POLICY | {"max_steps": 1} | changed)
    assert attempt.wait() == 1
    failed = attempt.one(wire.TrainerFailed)
    assert (failed.kind, says in failed.message) == (kind, True), failed.message
    assert attempt.of_type(wire.TrainerStarted) == []


def test_functions_reward_beside_a_reward_model_that_preferences_train(guesser: Path, tmp_path: Path) -> None:
    records = [{"prompt": asked, "chosen": asked[0], "rejected": "d, or so"} for asked in questions(64, seed=4)]
    attempt = Attempt(
        tmp_path,
        guesser,
        write_dataset(tmp_path / "preferences.jsonl", records),
        **POLICY,
        max_steps=2,
        reward_functions=[{"name": "exact_match", "weight": 3}],
    )
    assert attempt.wait() == 0, attempt.stderr()
    steps = [step for step in attempt.of_type(wire.StepLogged) if step.phase == "training"]
    assert [step.step for step in steps] == [3, 4]
    for step in steps:
        expected = step.rewards["reward_model"] + 3 * step.rewards["exact_match"]
        assert step.reward == pytest.approx(expected, abs=1e-3)
    card = (attempt.output / "README.md").read_text()
    assert "A reward model and reward functions (`exact_match`) rewarded" in card
    assert attempt.one(wire.TrainerFinished).model.reward_model_path is not None
