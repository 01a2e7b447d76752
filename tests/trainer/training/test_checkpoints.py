"""Checkpoints: saved when asked, whole or not there, and removed only once a newer one is whole."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.small_disk import small_disk
from support.trainer_attempts import Attempt, questions, write_dataset
from test_gradients import build

from trainer_entry import wire
from trainer_entry.runtime.claim import CLAIM_VARIABLE, REVOKED, ClaimLost, claim_of, take_claim
from trainer_entry.runtime.disk import DiskFull, disk_full_errors
from trainer_entry.runtime.failures import kind_of
from trainer_entry.training.checkpoint import prune, seal
from trainer_entry.training.trainer import AttemptTrainer

if TYPE_CHECKING:
    from collections.abc import Callable

# peft reads a name that this release of transformers has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def whole(folder: Path) -> list[int]:
    """The steps of the whole checkpoints in a job's folder."""
    steps = []
    for checkpoint in folder.glob("checkpoint-*"):
        manifest = checkpoint / wire.CHECKPOINT_MANIFEST
        if manifest.exists():
            sizes = msgspec.json.decode(manifest.read_bytes(), type=wire.CheckpointManifest).sizes
            assert sizes
            assert all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
            steps.append(int(checkpoint.name.rpartition("-")[2]))
    return sorted(steps)


def checkpoint(folder: Path, step: int, *, sealed: bool) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "weights").write_bytes(b"weights")
    if sealed:
        seal(path, step)
    return path


# ---- pruning ----


@settings(max_examples=60)
@given(
    steps=st.dictionaries(st.integers(1, 30), st.booleans(), min_size=1, max_size=8),
    limit=st.integers(1, 4),
    best=st.none() | st.integers(1, 30),
)
def test_the_newest_whole_ones_and_the_best_are_kept(
    steps: dict[int, bool], limit: int, best: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("job")
    for step, sealed in steps.items():
        checkpoint(folder, step, sealed=sealed)
    newest = max((step for step, sealed in steps.items() if sealed), default=None)
    assume(newest is not None)
    prune(folder / f"checkpoint-{newest}", limit, None if best is None else str(folder / f"checkpoint-{best}"))
    sealed_steps = sorted(step for step, sealed in steps.items() if sealed)
    kept = whole(folder)
    assert len(list(folder.iterdir())) == len(kept)  # of torn ones nothing is left
    assert kept[-1:] == sealed_steps[-1:]
    assert best not in sealed_steps or best in kept
    protected = {*sealed_steps[-1:], *({best} & set(sealed_steps))}
    assert len(kept) == min(len(sealed_steps), max(limit, len(protected)))
    gone = set(sealed_steps) - set(kept)
    assert all(step in protected or all(step > lost for lost in gone) for step in kept)


def test_a_later_one_that_was_damaged_does_not_take_the_place_of_the_one_just_saved(tmp_path: Path) -> None:
    damaged, newest = checkpoint(tmp_path, 100, sealed=True), checkpoint(tmp_path, 60, sealed=True)
    (damaged / "weights").write_bytes(b"")
    prune(newest, 1, None)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-60"]


# ---- a real trainer ----


@pytest.mark.training
def test_the_checkpoint_of_a_stop_stays_beside_the_best_one(tmp_path: Path, tiny_model: Path) -> None:
    attempt = Attempt(
        tmp_path / "attempt",
        tiny_model,
        write_dataset(tmp_path / "data.jsonl", questions(64)),
        max_steps=1_000_000,
        eval_split=0.25,
        eval_steps=40,
        early_stopping_patience=1000,
        save_total_limit=1,
        learning_rate=0.5,  # it soon gets worse: the best one is not the last one
    )
    attempt.wait_for(lambda messages: sum(isinstance(message, wire.Evaluated) for message in messages) >= 3)
    attempt.process.send_signal(signal.SIGTERM)
    assert attempt.wait() == 0, attempt.stderr()
    stopped = attempt.one(wire.TrainerStopped)
    assert stopped.checkpoint is not None
    assert int(stopped.checkpoint.rpartition("-")[2]) in whole(Path(stopped.checkpoint).parent)


@pytest.mark.training
def test_a_checkpoint_on_request_is_saved_at_the_next_step_and_training_goes_on(
    tmp_path: Path, tiny_model: Path
) -> None:
    dataset = write_dataset(tmp_path / "data.jsonl", questions(64))
    attempt = Attempt(tmp_path / "attempt", tiny_model, dataset, max_steps=1_000_000, save_total_limit=1)
    attempt.wait_for(lambda messages: any(isinstance(message, wire.StepLogged) for message in messages))
    for count in (1, 2):
        attempt.process.send_signal(signal.SIGUSR1)
        attempt.wait_for(
            lambda messages, count=count: sum(isinstance(one, wire.CheckpointWritten) for one in messages) >= count
        )
    saved = attempt.of_type(wire.CheckpointWritten)
    assert len(saved) == 2
    attempt.wait_for(
        lambda messages: isinstance(messages[-1], wire.StepLogged) and messages[-1].step > saved[-1].step + 3
    )
    assert whole(Path(saved[-1].path).parent) == [saved[-1].step]
    attempt.process.send_signal(signal.SIGTERM)
    assert attempt.wait() == 0, attempt.stderr()


@pytest.mark.slow
def test_an_attempt_that_was_given_up_leaves_the_checkpoints_of_the_next_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt, job = tmp_path / "attempt", tmp_path / "job"
    attempt.mkdir()
    assert take_claim(attempt, {"mark": "ours"})
    monkeypatch.setenv(CLAIM_VARIABLE, claim_of(attempt, {"mark": "ours"}))
    (attempt / REVOKED).touch()
    checkpoint(job, 3, sealed=True)
    trainer: Any = types.SimpleNamespace(
        args=types.SimpleNamespace(output_dir=str(job), should_save=True),
        state=types.SimpleNamespace(global_step=3),
        checkpoint_at=lambda step: job / f"checkpoint-{step}",
    )
    model: Any = None
    with pytest.raises(ClaimLost):
        AttemptTrainer._save_checkpoint(trainer, model, None)  # noqa: SLF001 - as transformers calls it
    assert whole(job) == [3]


@pytest.mark.training
def test_a_disk_that_is_full_at_a_checkpoint_fails_the_attempt_and_the_one_before_stays(
    tmp_path: Path, tiny_model: Path
) -> None:
    dataset = write_dataset(tmp_path / "data.jsonl", questions(64))
    with small_disk(tmp_path / "disk", megabytes=64) as disk:
        attempt = Attempt(
            tmp_path / "attempt",
            tiny_model,
            dataset,
            checkpoint_dir=disk.path / "checkpoints",
            max_steps=1_000_000,
            save_steps=20,
        )
        attempt.wait_for(lambda messages: any(isinstance(message, wire.CheckpointWritten) for message in messages))
        disk.fill(leave=100_000)
        assert attempt.wait() == 1
        failed = attempt.one(wire.TrainerFailed)
        assert failed.kind == "DiskFull"
        assert "save_total_limit" in failed.message
        saved = [message.step for message in attempt.of_type(wire.CheckpointWritten)]
        assert whole(disk.path / "checkpoints") == saved[-3:]
        assert len(list((disk.path / "checkpoints").iterdir())) == len(saved[-3:])


# ---- at whatever byte the disk is full ----


def test_at_whatever_byte_there_is_no_more_room_the_checkpoint_before_stays_whole(
    tmp_path: Path, tiny_model: Path
) -> None:
    with small_disk(tmp_path / "disk", megabytes=64) as disk:
        trainer = build(tiny_model, disk.path, "sft")
        folder = disk.path / "checkpoints"
        trainer.args.max_steps = 1
        trainer.args.save_strategy = "no"
        trainer.train()
        trainer._save_checkpoint(trainer.model_wrapped, trial=None)  # noqa: SLF001 - what the loop calls
        assert whole(folder) == [1]
        size = sum(file.stat().st_size for file in (folder / "checkpoint-1").iterdir())
        trainer.state.global_step = 2
        for part in range(50):
            disk.fill(leave=size * part // 50)
            with pytest.raises(DiskFull, match="checkpoint-2"):
                trainer._save_checkpoint(trainer.model_wrapped, trial=None)  # noqa: SLF001
            assert [path.name for path in folder.iterdir()] == ["checkpoint-1"]
            assert whole(folder) == [1]
            disk.empty()
        trainer._save_checkpoint(trainer.model_wrapped, trial=None)  # noqa: SLF001
        assert whole(folder) == [1, 2]


def test_a_limit_on_the_size_of_files_is_told_as_a_full_disk(tmp_path: Path) -> None:
    import torch

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DiskFull), disk_full_errors(folder):
            torch.save(torch.zeros(1_000_000), folder / "weights.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_another_failure_is_told_as_what_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-1"
    checkpoint(tmp_path, 1, sealed=True)
    with pytest.raises(RuntimeError, match="inline_container") as caught, disk_full_errors(folder):
        raise RuntimeError("[enforce fail at inline_container.cc:672] of another cause")
    assert kind_of(caught.value) == "RuntimeError"
    assert folder.exists()


# ---- pickles ----


class Canary:
    """What is unpickled leaves a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.place}",)


@pytest.mark.training
def test_a_pickle_in_a_checkpoint_is_not_run(tiny_model: Path, dataset: wire.DatasetFile, tmp_path: Path) -> None:
    # given a checkpoint whose every pickle is another one
    first = Attempt(tmp_path / "first", tiny_model, dataset, max_steps=1, save_steps=1)
    assert first.wait() == 0
    (kept,) = (tmp_path / "first" / "checkpoints").glob("checkpoint-*")
    canary = tmp_path / "canary"
    pickles = [path for path in kept.iterdir() if path.suffix in {".pt", ".pth", ".bin"}]
    assert len(pickles) >= 3
    for path in [*pickles, kept / "pytorch_model.bin", kept / "adapter_model.bin"]:
        path.write_bytes(pickle.dumps(Canary(canary)))
    # when
    resumed = Attempt(tmp_path / "resumed", tiny_model, dataset, resume_from=str(kept), max_steps=2)
    # then
    assert resumed.wait() == 1
    assert "weights_only" in resumed.one(wire.TrainerFailed).message
    assert not canary.exists()


@pytest.mark.training
def test_a_checkpoint_with_a_file_that_never_ends_is_refused(
    tiny_model: Path, dataset: wire.DatasetFile, tmp_path: Path
) -> None:
    kept = checkpoint(tmp_path / "checkpoints", 1, sealed=False)
    os.mkfifo(kept / "trainer_state.json")
    attempt = Attempt(tmp_path / "attempt", tiny_model, dataset, resume_from=str(kept), max_steps=2)
    assert attempt.wait() == 1
    assert "trainer_state.json is not read: it is no regular file" in attempt.one(wire.TrainerFailed).message
