"""One attempt at a job: provider -> data -> strategy x task -> train -> evaluate -> save.

    accelerate launch … -m trainer_entry.train ATTEMPT_DIR

ATTEMPT_DIR/spec.json says what to do. Stdout becomes the wire (one message a line, trainer_entry.wire), and
everything that prints goes to stderr. SIGTERM saves a checkpoint at the next step and ends, SIGUSR1 saves one
and goes on. The exit code is 0 after TrainerFinished and TrainerStopped, 1 after TrainerFailed.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import msgspec

from trainer_entry.failures import NotBuilt, kind_of, message_of
from trainer_entry.records import Records, held_out
from trainer_entry.signals import Signals
from trainer_entry.stdout import LineWriter, Wire, claim_stdout, note
from trainer_entry.wire import (
    AttemptSpec,
    JobSpec,
    Phase,
    PhaseEntered,
    TrainerFailed,
    TrainerFinished,
    TrainerStarted,
    TrainerStopped,
    TrainingParameters,
)

if TYPE_CHECKING:
    from transformers import TrainerState

    from trainer_entry.providers.huggingface import LoadedModel
    from trainer_entry.strategies.sft import CompletionTrainer
    from trainer_entry.tasks.text_generation import TokenizedRecords

_TRACEBACK_CHARACTERS = 16_384


def main(attempt_dir: str) -> int:
    """Make the attempt that `attempt_dir` describes, and say how it went."""
    lines = LineWriter(claim_stdout())  # before any import that could print
    folder = Path(attempt_dir)
    spec = msgspec.json.decode((folder / "spec.json").read_bytes(), type=AttemptSpec)
    wire = Wire(lines, speaks=os.environ.get("RANK", "0") == "0")
    signals = Signals(before_training=lambda: _say_stopped(wire, spec, _resumed_step(spec), spec.resume_from))
    signals.listen()
    try:
        run(spec, folder, wire, signals)
    except BaseException as error:  # noqa: BLE001 - nothing is swallowed: the wire gets all of it
        note(traceback.format_exc())
        _say_failed(wire, spec, error)
        return 1
    return 0


def run(spec: AttemptSpec, folder: Path, wire: Wire, signals: Signals) -> None:
    """The attempt, from its spec to a saved model."""
    job = spec.job
    _enter(wire, spec, "loading_model")
    records = Records(job.dataset)
    _prepare_process(spec, folder)
    from trainer_entry.callback import StopNow, WireCallback
    from trainer_entry.parameters import in_effect, with_evaluation, with_length
    from trainer_entry.saved_model import final_metrics, save_checkpoint, save_model

    parameters = in_effect(job.parameters, job.strategy)
    loaded = _load_model(job, parameters)
    parameters = with_length(parameters, loaded.context)

    _enter(wire, spec, "preparing_data")
    places = held_out(records.count, parameters.eval_split, parameters.seed)
    tokenized = _tokenize(job, records, places, loaded, parameters)
    parameters = with_evaluation(parameters, len(tokenized.train), tokenized.tokens)
    trainer = _build_trainer(job, loaded, tokenized, parameters)

    def say_started(state: TrainerState) -> None:
        _say_started(wire, spec, state, parameters, trainer, loaded, records)

    callback = WireCallback(wire, spec.attempt, signals, say_started, lambda: int(trainer.tokens_seen))
    trainer.add_callback(callback)

    signals.training_begins()
    _enter(wire, spec, "training")
    try:
        trained = trainer.train(resume_from_checkpoint=spec.resume_from)
        stopped = signals.stop_asked
        evaluates = tokenized.evaluation is not None
        if evaluates and not stopped and callback.must_evaluate(trainer.args, trainer.state.global_step):
            _enter(wire, spec, "evaluating")
            trainer.evaluate()
    except StopNow:
        stopped = True
    if stopped:
        checkpoint = save_checkpoint(trainer, callback) or spec.resume_from
        _say_stopped(wire, spec, trainer.state.global_step, checkpoint)
        return

    _enter(wire, spec, "saving")
    metrics = final_metrics(trained.metrics, callback, trainer)
    model = save_model(trainer, loaded, job, parameters, metrics)
    step = trainer.state.global_step
    wire.send(lambda seq: TrainerFinished(attempt=spec.attempt, seq=seq, messages=seq, step=step, model=model))


def _prepare_process(spec: AttemptSpec, folder: Path) -> None:
    """What the libraries read from the environment, before they are imported."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder / "tensorboard"))
    import datasets
    import torch
    import transformers

    torch.set_num_threads(spec.cpu_threads)
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def _load_model(job: JobSpec, parameters: TrainingParameters) -> LoadedModel:
    from trainer_entry.parameters import quantization_config, weight_dtype

    match job.provider:
        case "huggingface":
            from trainer_entry.providers import huggingface

            return huggingface.load(job.model_path, weight_dtype(parameters), quantization_config(parameters))
        case "unsloth":
            raise NotBuilt("The provider unsloth is not here yet: use huggingface.")
        case _:
            assert_never(job.provider)


def _tokenize(
    job: JobSpec,
    records: Records,
    places: frozenset[int],
    loaded: LoadedModel,
    parameters: TrainingParameters,
) -> TokenizedRecords:
    match job.task:
        case "text-generation":
            from trainer_entry.tasks import text_generation

            length = parameters.max_seq_length or loaded.context
            return text_generation.tokenize(records, places, loaded.tokenizer, length)
        case "summarization" | "extractive-question-answering":
            raise NotBuilt(f"The task {job.task} is not here yet: use text-generation.")
        case _:
            assert_never(job.task)


def _build_trainer(
    job: JobSpec, loaded: LoadedModel, tokenized: TokenizedRecords, parameters: TrainingParameters
) -> CompletionTrainer:
    match job.strategy:
        case "sft":
            from trainer_entry.strategies import sft

            return sft.build_trainer(loaded, tokenized, parameters, job.checkpoint_dir)
        case "qlora":
            from trainer_entry.strategies import qlora

            return qlora.build_trainer(loaded, tokenized, parameters, job.checkpoint_dir)
        case "rlhf" | "dpo":
            raise NotBuilt(f"The strategy {job.strategy} is not here yet: use sft or qlora.")
        case _:
            assert_never(job.strategy)


def _enter(wire: Wire, spec: AttemptSpec, phase: Phase) -> None:
    wire.send(lambda seq: PhaseEntered(attempt=spec.attempt, seq=seq, phase=phase))


def _say_started(
    wire: Wire,
    spec: AttemptSpec,
    state: TrainerState,
    parameters: TrainingParameters,
    trainer: CompletionTrainer,
    loaded: LoadedModel,
    records: Records,
) -> None:
    from trainer_entry.environment import describe
    from trainer_entry.parameters import as_json
    from trainer_entry.strategies.sft import count_parameters, count_rows

    trainable, total = count_parameters(trainer)
    wire.send(
        lambda seq: TrainerStarted(
            attempt=spec.attempt,
            seq=seq,
            parameters=parameters,
            trainer_arguments=as_json(trainer.args),
            environment=describe(),
            total_steps=state.max_steps,
            total_epochs=int(state.num_train_epochs),
            train_examples=count_rows(trainer.train_dataset),
            eval_examples=count_rows(trainer.eval_dataset),
            trainable_parameters=trainable,
            all_parameters=total,
            dataset_sha256=records.sha256,
            base_revision=loaded.revision,
            chat_template=loaded.tokenizer.chat_template is not None,
            resumed_step=state.global_step,
        )
    )


def _say_stopped(wire: Wire, spec: AttemptSpec, step: int, checkpoint: str | None) -> None:
    wire.send(lambda seq: TrainerStopped(attempt=spec.attempt, seq=seq, messages=seq, step=step, checkpoint=checkpoint))


def _say_failed(wire: Wire, spec: AttemptSpec, error: BaseException) -> None:
    lines = "".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:]
    kind, message = kind_of(error), message_of(error)
    wire.send(
        lambda seq: TrainerFailed(
            attempt=spec.attempt, seq=seq, messages=seq, kind=kind, message=message, traceback=lines
        )
    )


def _resumed_step(spec: AttemptSpec) -> int:
    """The step of the checkpoint that the attempt was to go on from; its folder is called checkpoint-STEP."""
    number = Path(spec.resume_from or "").name.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is said and saved: no library's teardown may hang the process now.
    os._exit(code)
