"""One attempt in two processes: what they say, save and leave, and what one does when it is left alone.

Both are forked, but for an attempt that runs to its end and those in which one of them fails: these are launched.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.forked_pair import RANKS, launched
from support.trainer_attempts import FORKED_IN_TWO, IN_TWO, Attempt, questions, write_dataset

from trainer_entry import wire
from trainer_entry.runtime.proc import descendants, runs
from trainer_entry.training.checkpoint import is_whole

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.training, pytest.mark.timeout(240)]

STEPS = 24
TRAINED = {"max_steps": STEPS, "lora_dropout": 0.2, "learning_rate": 0.01, "eval_split": 0.125, "eval_steps": 12}

# Runs in every Python process of the attempt: the second one runs out of memory once the file is there.
SECOND_FAILS = """
import ctypes, os, pathlib, threading, time
def fail(main=threading.get_ident()):
    while not pathlib.Path(os.environ["FAIL_WHEN"]).exists():
        time.sleep(0.02)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main), ctypes.py_object(MemoryError))
if os.environ.get("RANK") == "1":
    threading.Thread(target=fail, daemon=True).start()
"""


def in_two(folder: Path, model: Path, dataset: wire.DatasetFile, **options: Any) -> Attempt:
    return Attempt(folder, model, dataset, launcher=IN_TWO, num_processes=2, **options)


def forked(folder: Path, model: Path, dataset: wire.DatasetFile, **options: Any) -> Attempt:
    return Attempt(folder, model, dataset, launcher=FORKED_IN_TWO, num_processes=2, **options)


def processes(attempt: Attempt) -> list[int]:
    """Both of them, in the order of their ranks, once each hears what it is asked."""
    found = started_processes(attempt)
    while not all(hears(pid) for pid in found):
        assert attempt.process.poll() is None, attempt.stderr()
        time.sleep(0.01)
    return found


def hears(pid: int) -> bool:
    """Whether SIGTERM no longer ends a process, which waits for it or is about to."""
    status = Path(f"/proc/{pid}/status").read_text()
    held_back = int(status.partition("SigBlk:")[2].split()[0], 16)
    return bool(held_back >> (signal.SIGTERM - 1) & 1)


def started_processes(attempt: Attempt) -> list[int]:
    """Both of them, whatever they do."""
    if (told := attempt.folder / RANKS).exists():
        return [int(pid) for pid in told.read_text().split()]
    found: dict[int, int] = {}
    while len(found) < 2:
        assert attempt.process.poll() is None, attempt.stderr()
        for pid in descendants(attempt.process.pid):
            if runs(pid, b"trainer_entry.train"):
                variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                (rank,) = [int(one.removeprefix(b"RANK=")) for one in variables if one.startswith(b"RANK=")]
                found[rank] = pid
    return [found[0], found[1]]


def trains(messages: list[wire.AnyTrainerMessage]) -> bool:
    return any(isinstance(message, wire.StepLogged) and message.step >= 4 for message in messages)


def is_in(phase: wire.Phase) -> Callable[[list[wire.AnyTrainerMessage]], bool]:
    return lambda messages: any(isinstance(one, wire.PhaseStarted) and one.phase == phase for one in messages)


def losses(attempt: Attempt) -> dict[int, float | None]:
    return {step.step: step.loss for step in attempt.of_type(wire.StepLogged)}


def assert_gapless(attempt: Attempt) -> None:
    assert [message.seq for message in attempt.messages()] == list(range(1, len(attempt.messages()) + 1))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, dataset: wire.DatasetFile) -> Attempt:
    attempt = in_two(tmp_path_factory.mktemp("finished"), tiny_model, dataset, save_steps=12, **TRAINED)
    assert attempt.wait() == 0, attempt.stderr()
    return attempt


def test_two_train_and_one_speaks(finished: Attempt) -> None:
    started = finished.one(wire.TrainerStarted)
    assert (started.environment.world_size, started.environment.cpu_threads) == (2, 1)
    assert (started.total_steps, started.total_epochs) == (STEPS, 4)  # 56 records make 7 steps of 2 x 4
    assert list(losses(finished)) == list(range(1, STEPS + 1))
    assert [message.step for message in finished.of_type(wire.Evaluated)] == [0, 12, STEPS]
    assert finished.one(wire.TrainerFinished).messages == len(finished.messages())
    assert_gapless(finished)


def test_what_each_of_them_draws_next_is_in_a_checkpoint_that_is_whole(finished: Attempt) -> None:
    checkpoints = finished.folder / "checkpoints"
    assert all(is_whole(checkpoints / f"checkpoint-{step}") for step in (12, STEPS))
    assert len(list((checkpoints / "checkpoint-12").glob("rng_state_*.pth"))) == 2


def test_two_learn_what_one_learns_from_batches_of_both(tmp_path: Path, tiny_model: Path) -> None:
    # given 7 records held out, three at a time: the last batch has one, and the second process none of its own
    dataset = write_dataset(tmp_path / "questions.jsonl", questions(63))
    shared: dict[str, Any] = {"max_steps": 6, "learning_rate": 0.01, "eval_split": 0.115, "eval_steps": 3}
    shared |= {"per_device_eval_batch_size": 3}
    two = forked(tmp_path / "two", tiny_model, dataset, per_device_train_batch_size=4, **shared)
    assert two.wait() == 0, two.stderr()
    one = Attempt(tmp_path / "one", tiny_model, dataset, per_device_train_batch_size=8, **shared)
    assert one.wait() == 0, one.stderr()
    assert one.one(wire.TrainerStarted).eval_examples == 7
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    evaluated = [[told.metrics["eval_loss"] for told in attempt.of_type(wire.Evaluated)] for attempt in (one, two)]
    assert len(evaluated[0]) == 3
    assert evaluated[0] == pytest.approx(evaluated[1], rel=1e-4)
    figures = [attempt.one(wire.TrainerFinished).model.metrics for attempt in (one, two)]
    assert figures[0]["num_tokens"] == figures[1]["num_tokens"]
    assert figures[0]["final_loss"] == pytest.approx(figures[1]["final_loss"], rel=1e-4)


def test_asked_at_different_moments_both_save_the_same_step_and_go_on_from_it(
    tmp_path: Path, tiny_model: Path, dataset: wire.DatasetFile, finished: Attempt
) -> None:
    attempt = forked(tmp_path / "first", tiny_model, dataset, save_steps=1000, **{**TRAINED, "logging_steps": 1})
    attempt.wait_for(trains)
    first, second = processes(attempt)
    os.kill(second, signal.SIGUSR1)  # alone
    attempt.wait_for(lambda messages: any(isinstance(message, wire.CheckpointWritten) for message in messages))
    os.kill(second, signal.SIGTERM)
    os.kill(first, signal.SIGTERM)
    assert attempt.wait() == 0, attempt.stderr()
    assert_gapless(attempt)
    stopped = attempt.one(wire.TrainerStopped)
    assert stopped.checkpoint is not None
    assert stopped.checkpoint.endswith(f"checkpoint-{stopped.step}")
    assert is_whole(Path(stopped.checkpoint))
    assert len(list(Path(stopped.checkpoint).glob("rng_state_*.pth"))) == 2
    resumed = forked(
        tmp_path / "second", tiny_model, dataset, resume_from=stopped.checkpoint,
        checkpoint_dir=tmp_path / "first" / "checkpoints", **TRAINED,
    )  # fmt: skip
    assert resumed.wait() == 0, resumed.stderr()
    assert resumed.one(wire.TrainerStarted).resumed_step == stopped.step
    assert losses(attempt) | losses(resumed) == pytest.approx(losses(finished), rel=1e-5)


@pytest.mark.parametrize("moment", [wire.PhaseStarted, wire.Evaluated])
def test_a_stop_is_heard_by_both_before_anything_is_trained(
    tmp_path: Path, tiny_model: Path, moment: type[wire.TrainerMessage]
) -> None:
    """While the model is loaded, and while one of them judges the untrained model's answers."""
    records = [{"document": f"Text {i}. " * 20, "summary": f"It is {i}. " * 20} for i in range(400)]
    attempt = forked(
        tmp_path / "attempt",
        tiny_model,
        write_dataset(tmp_path / "data.jsonl", records),
        task="summarization",
        max_steps=4,
        eval_split=0.9,
        per_device_eval_batch_size=64,
    )
    attempt.wait_for(lambda messages: any(isinstance(message, moment) for message in messages))
    first, second = processes(attempt)
    os.kill(second, signal.SIGTERM)
    time.sleep(0.1)
    os.kill(first, signal.SIGTERM)
    assert attempt.wait() == 0, attempt.stderr()
    assert_gapless(attempt)
    stopped = attempt.one(wire.TrainerStopped)
    assert (stopped.step, stopped.checkpoint) == (0, None)
    assert len(attempt.of_type(wire.Evaluated)) == (moment is wire.Evaluated)


@pytest.mark.parametrize("phase", ["loading_model", "training"])
def test_when_one_is_killed_nobody_says_that_it_was_stopped(
    tmp_path: Path, tiny_model: Path, dataset: wire.DatasetFile, phase: wire.Phase
) -> None:
    attempt = in_two(tmp_path, tiny_model, dataset, max_steps=1_000_000)
    attempt.wait_for(is_in(phase))
    first, second = processes(attempt)
    given = Path(f"/proc/{second}/environ").read_text().split("\0")
    assert {f"{name}={value}" for name, value in launched(1, 0).items() if name != "MASTER_PORT"} <= set(given)
    os.kill(second, signal.SIGKILL)
    assert attempt.wait() == 1
    assert attempt.of_type(wire.TrainerStopped) == []
    assert attempt.of_type(wire.TrainerFailed) == []
    assert "exitcode  : -9" in attempt.stderr().rpartition("Root Cause")[2]  # what the shim goes by
    assert not Path(f"/proc/{first}").exists()


def test_why_one_failed_is_said_by_the_one_that_is_heard(
    tmp_path: Path, tiny_model: Path, dataset: wire.DatasetFile
) -> None:
    fails = tmp_path / "fails"
    fails.mkdir()
    (fails / "sitecustomize.py").write_text(SECOND_FAILS)
    environment = {
        "PYTHONPATH": os.pathsep.join([str(fails), str(Path(wire.__file__).parents[2])]),
        "FAIL_WHEN": str(tmp_path / "now"),
    }
    attempt = in_two(tmp_path / "attempt", tiny_model, dataset, max_steps=1_000_000, environment=environment)
    attempt.wait_for(trains)
    (tmp_path / "now").touch()
    assert attempt.wait() == 1
    failed = attempt.one(wire.TrainerFailed)
    assert failed.kind == "OutOfMemory"
    assert "Process 2 of 2" in failed.message
    assert_gapless(attempt)


def test_a_policy_is_rewarded_in_two_processes(tmp_path: Path, tiny_model: Path) -> None:
    records = [{"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "Who knows?"} for i in range(32)]
    dataset = write_dataset(tmp_path / "data.jsonl", records)
    attempt = forked(
        tmp_path / "attempt", tiny_model, dataset, strategy="rlhf", max_steps=3, eval_split=0.25, num_generations=2,
        max_completion_length=8,
    )  # fmt: skip
    assert attempt.wait() == 0, attempt.stderr()
    assert list(losses(attempt)) == list(range(1, 7))
    assert_gapless(attempt)
