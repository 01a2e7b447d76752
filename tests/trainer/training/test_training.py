"""What a trainer's process says, saves and leaves, from its start to its end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from support.trainer_attempts import BY_ACCELERATE, Attempt, questions, write_dataset

from trainer_entry import wire

pytestmark = pytest.mark.training

# Runs in every Python process of the attempt, before its program: from then on importing numpy, which every
# library here does, prints on stdout by Python, by C, and by a child process.
NOISE = """
import builtins, ctypes, os, sys
imported = builtins.__import__
def noisy(name, *rest, **words):
    if name == "numpy" and not hasattr(builtins, "was_noisy") and "trainer_entry.runtime.stdout" in sys.modules:
        builtins.was_noisy = True
        print("NOISE by python", flush=True)
        libc = ctypes.CDLL(None)
        libc.puts(b"NOISE by C")
        libc.fflush(None)
        os.system("echo NOISE by a child")
        os.write(1, b"NOISE on the descriptor\\n")
    return imported(name, *rest, **words)
builtins.__import__ = noisy
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, dataset: wire.DatasetFile) -> Attempt:
    """64 records, an eighth of them held out, batches of 4, twice: started by accelerate, among noise."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "noise").mkdir()
    (folder / "noise" / "sitecustomize.py").write_text(NOISE)
    search = os.pathsep.join([str(folder / "noise"), str(Path(wire.__file__).parents[2])])
    attempt = Attempt(
        folder,
        tiny_model,
        dataset,
        launcher=BY_ACCELERATE,
        environment={"PYTHONPATH": search},
        num_train_epochs=2,
        eval_split=0.125,
        save_steps=10,
        lora_dropout=0.2,
        learning_rate=0.01,
    )
    assert attempt.wait() == 0, attempt.stderr()
    return attempt


def test_steps_are_counted_as_the_trainer_counts_them_and_reported_once_each(finished: Attempt) -> None:
    started = finished.one(wire.TrainerStarted)
    assert (started.total_steps, started.total_epochs) == (28, 2)
    assert (started.train_examples, started.eval_examples) == (56, 8)
    steps = finished.of_type(wire.StepLogged)
    assert [step.step for step in steps] == list(range(1, 29))
    assert {step.total_steps for step in steps} == {28}
    assert steps[-1].eta_seconds == 0
    assert all(step.loss is not None and step.grad_norm is not None and not step.nonfinite for step in steps)


def test_what_was_learned_shows_in_the_loss(finished: Attempt) -> None:
    losses = [step.loss for step in finished.of_type(wire.StepLogged)]
    assert losses[-1] < losses[0] - 0.5


def test_messages_are_numbered_without_a_gap_and_the_last_one_counts_them(finished: Attempt) -> None:
    messages = finished.messages()
    assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
    assert {message.attempt for message in messages} == {3}
    assert finished.one(wire.TrainerFinished).messages == len(messages)


def test_the_phases_are_reported_in_their_order(finished: Attempt) -> None:
    phases = [message.phase for message in finished.of_type(wire.PhaseStarted)]
    assert phases == ["loading_model", "preparing_data", "evaluating_base", "training", "saving"]


def test_nothing_that_prints_reaches_the_wire(finished: Attempt) -> None:
    # Every line decoded already; the noise is where a person looks for it.
    log = finished.stderr()
    for origin in ("by python", "by C", "by a child", "on the descriptor"):
        assert f"NOISE {origin}" in log


def test_the_job_can_be_run_again_from_its_first_message(finished: Attempt, dataset: wire.DatasetFile) -> None:
    started = finished.one(wire.TrainerStarted)
    parameters = started.parameters
    assert (parameters.learning_rate, parameters.max_seq_length, parameters.eval_steps) == (0.01, 256, 14)
    assert (parameters.bf16, parameters.fp16, parameters.use_4bit) == (False, False, False)
    assert (parameters.per_device_eval_batch_size, parameters.bnb_4bit_compute_dtype) == (4, "float32")
    assert started.trainer_arguments["data_seed"] == 42
    assert started.dataset_sha256 == dataset.sha256
    assert started.base_revision is not None
    assert started.chat_template
    assert {"torch", "transformers", "trl", "peft", "accelerate", "datasets"} <= started.environment.versions.keys()
    assert 0 < started.trainable_parameters < started.all_parameters


def test_every_epoch_is_evaluated(finished: Attempt) -> None:
    evaluations = finished.of_type(wire.Evaluated)
    assert [evaluation.step for evaluation in evaluations] == [0, 14, 28]  # the untrained model's, for comparison
    assert all(evaluation.metrics["eval_loss"] is not None for evaluation in evaluations)


def test_the_model_is_whole_and_says_what_it_is(finished: Attempt, dataset: wire.DatasetFile) -> None:
    model = finished.one(wire.TrainerFinished).model
    assert (model.path, model.kind) == (str(finished.output), "adapter")
    files = {file.name for file in finished.output.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "chat_template.jinja"} <= files
    assert "generation_config.json" in files
    assert model.size_bytes == sum(file.stat().st_size for file in finished.output.iterdir())
    assert not finished.output.with_name("output.partial").exists()
    assert {"final_loss", "train_loss", "train_runtime", "eval_loss", "num_tokens"} <= model.metrics.keys()
    card = (finished.output / "README.md").read_text()
    assert dataset.sha256 in card
    assert "| learning_rate | 0.01 |" in card


def test_a_resumed_attempt_goes_on_as_if_it_had_never_been_interrupted(
    finished: Attempt, tiny_model: Path, dataset: wire.DatasetFile, tmp_path: Path
) -> None:
    # given
    checkpoint = next(saved for saved in finished.of_type(wire.CheckpointWritten) if saved.step == 10)
    # when
    resumed = Attempt(
        tmp_path,
        tiny_model,
        dataset,
        resume_from=checkpoint.path,
        checkpoint_dir=Path(checkpoint.path).parent,
        num_train_epochs=2,
        eval_split=0.125,
        lora_dropout=0.2,
        learning_rate=0.01,
    )
    assert resumed.wait() == 0, resumed.stderr()
    # then
    assert resumed.one(wire.TrainerStarted).resumed_step == 10
    steps = resumed.of_type(wire.StepLogged)
    uninterrupted = finished.of_type(wire.StepLogged)[10:]
    assert [step.step for step in steps] == list(range(11, 29))
    assert [step.loss for step in steps] == pytest.approx([step.loss for step in uninterrupted], rel=1e-5)
    # and a step that both attempts saved is as whole as any other
    saved_again = Path(resumed.of_type(wire.CheckpointWritten)[-1].path)
    assert saved_again == Path(finished.of_type(wire.CheckpointWritten)[-1].path)
    manifest = msgspec.json.decode((saved_again / wire.CHECKPOINT_MANIFEST).read_bytes(), type=wire.CheckpointManifest)
    assert manifest.sizes == {
        str(file.relative_to(saved_again)): file.stat().st_size
        for file in saved_again.rglob("*")
        if file.is_file() and file.name != wire.CHECKPOINT_MANIFEST
    }


def test_a_stop_saves_a_checkpoint_that_training_goes_on_from(
    tiny_model: Path, dataset: wire.DatasetFile, tmp_path: Path
) -> None:
    # given
    attempt = Attempt(tmp_path / "stopped", tiny_model, dataset, max_steps=1_000_000, logging_steps=7)
    attempt.wait_for(lambda messages: any(isinstance(message, wire.StepLogged) for message in messages))
    # when
    attempt.process.send_signal(signal.SIGTERM)
    attempt.process.send_signal(signal.SIGTERM)
    # then
    assert attempt.wait() == 0, attempt.stderr()
    stopped = attempt.one(wire.TrainerStopped)
    saved = attempt.of_type(wire.CheckpointWritten)[-1]
    assert (saved.step, saved.path) == (stopped.step, stopped.checkpoint)
    assert attempt.of_type(wire.StepLogged)[-1].step == stopped.step
    assert not attempt.output.exists()
    # and when
    resumed = Attempt(
        tmp_path / "resumed", tiny_model, dataset, resume_from=stopped.checkpoint, max_steps=stopped.step + 3
    )
    # then
    assert resumed.wait() == 0, resumed.stderr()
    assert [step.step for step in resumed.of_type(wire.StepLogged)] == [stopped.step + n for n in (1, 2, 3)]


def test_a_stop_before_training_ends_at_once(tiny_model: Path, dataset: wire.DatasetFile, tmp_path: Path) -> None:
    # given one that still imports its libraries
    attempt = Attempt(tmp_path, tiny_model, dataset, cold=True)
    attempt.wait_for(bool)
    # when
    attempt.process.send_signal(signal.SIGTERM)
    # then
    assert attempt.wait() == 0
    stopped = attempt.one(wire.TrainerStopped)
    assert (stopped.step, stopped.checkpoint, stopped.messages) == (0, None, len(attempt.messages()))
    assert attempt.of_type(wire.TrainerStarted) == []


def test_a_stop_does_not_wait_for_an_evaluation(tiny_model: Path, tmp_path: Path) -> None:
    # given an evaluation that takes thousands of batches
    dataset = write_dataset(tmp_path / "many.jsonl", questions(2000))
    attempt = Attempt(
        tmp_path / "attempt",
        tiny_model,
        dataset,
        eval_split=0.9,
        eval_steps=2,
        per_device_eval_batch_size=1,
        num_train_epochs=1,
    )
    attempt.wait_for(lambda messages: any(isinstance(m, wire.StepLogged) and m.step == 2 for m in messages))
    # when
    attempt.process.send_signal(signal.SIGTERM)
    # then
    assert attempt.wait() == 0, attempt.stderr()
    stopped = attempt.one(wire.TrainerStopped)
    assert (stopped.step, [evaluated.step for evaluated in attempt.of_type(wire.Evaluated)]) == (2, [0])
    assert stopped.checkpoint is not None
    assert (Path(stopped.checkpoint) / "trainer_state.json").exists()


def test_a_stop_does_not_interrupt_the_saving_of_the_model(
    tiny_model: Path, dataset: wire.DatasetFile, tmp_path: Path
) -> None:
    # given
    attempt = Attempt(tmp_path, tiny_model, dataset, max_steps=1)
    attempt.wait_for(lambda messages: any(isinstance(m, wire.PhaseStarted) and m.phase == "saving" for m in messages))
    # when
    attempt.process.send_signal(signal.SIGTERM)
    # then
    assert attempt.wait() == 0, attempt.stderr()
    assert attempt.one(wire.TrainerFinished).messages == len(attempt.messages())
    assert (attempt.output / "adapter_model.safetensors").exists()


def test_all_weights_are_trained_packed_and_saved_as_a_model(
    tiny_model: Path, dataset: wire.DatasetFile, tmp_path: Path
) -> None:
    # when
    attempt = Attempt(tmp_path, tiny_model, dataset, use_lora=False, packing=True, logging_steps=2, max_steps=3)
    # then
    assert attempt.wait() == 0, attempt.stderr()
    started = attempt.one(wire.TrainerStarted)
    assert started.train_examples < 64
    assert started.trainable_parameters == started.all_parameters
    assert started.parameters.learning_rate == pytest.approx(2e-5)
    assert [step.step for step in attempt.of_type(wire.StepLogged)] == [2, 3]
    assert attempt.one(wire.TrainerFinished).model.kind == "full"
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_model, attempt.output))
    assert before.keys() == after.keys()
    assert not [name for name, weights in before.items() if torch.equal(weights, after[name])]


def test_qlora_trains_on_four_bits_and_evaluates(tiny_model: Path, dataset: wire.DatasetFile, tmp_path: Path) -> None:
    # when
    attempt = Attempt(
        tmp_path, tiny_model, dataset, strategy="qlora", eval_split=0.1, eval_steps=2, max_steps=4, learning_rate=0.01
    )
    # then
    assert attempt.wait() == 0, attempt.stderr()
    started = attempt.one(wire.TrainerStarted)
    assert started.parameters.use_4bit
    assert [evaluation.step for evaluation in attempt.of_type(wire.Evaluated)] == [0, 2, 4]
    assert attempt.one(wire.TrainerFinished).model.kind == "adapter"


def test_training_ends_early_with_the_best_model_when_evaluation_gets_no_better(
    tiny_model: Path, dataset: wire.DatasetFile, tmp_path: Path
) -> None:
    # given a learning rate that ruins the model
    attempt = Attempt(
        tmp_path,
        tiny_model,
        dataset,
        eval_split=0.1,
        eval_steps=1,
        early_stopping_patience=2,
        learning_rate=10.0,
        max_steps=500,
    )
    # then
    assert attempt.wait() == 0, attempt.stderr()
    finished = attempt.one(wire.TrainerFinished)
    losses = [evaluation.metrics["eval_loss"] for evaluation in attempt.of_type(wire.Evaluated)]
    assert finished.step < 500
    assert finished.model.metrics["eval_loss"] == min(loss for loss in losses if loss is not None)


@pytest.mark.parametrize("change", ["dataset", "model"])
def test_a_failure_is_told_by_its_kind(change: str, tiny_model: Path, tmp_path: Path) -> None:
    # given
    dataset = write_dataset(tmp_path / "data.jsonl", questions(4))
    model = tiny_model
    if change == "dataset":
        Path(dataset.path).write_text("{}\n")
    else:
        model = tmp_path / "no-model"
        model.mkdir()
    # when
    attempt = Attempt(tmp_path / "attempt", model, dataset)
    # then
    assert attempt.wait() == 1
    failed = attempt.one(wire.TrainerFailed)
    assert failed.kind == {"dataset": "DatasetChanged", "model": "ModelUnavailable"}[change]
    assert failed.messages == len(attempt.messages())
    assert failed.message
    assert "Traceback" in failed.traceback
    assert failed.traceback.strip().splitlines()[-1] in attempt.stderr()
    assert not attempt.output.exists()
