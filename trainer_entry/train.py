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

from trainer_entry import ranks
from trainer_entry.failures import ConflictingParameters, ModelUnavailable, kind_of, message_of
from trainer_entry.phases import Phases, Stopped, resumed_step
from trainer_entry.records import Records, held_out
from trainer_entry.signals import Signals
from trainer_entry.stdout import LineWriter, Wire, claim_stdout, note
from trainer_entry.wire import (
    AttemptSpec,
    JobSpec,
    TrainerFailed,
    TrainerFinished,
    TrainerStarted,
    TrainerStopped,
    TrainingParameters,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import TrainerState

    from trainer_entry.attempt_trainer import AttemptTrainer
    from trainer_entry.examples import Examples
    from trainer_entry.providers.huggingface import LoadedModel

_TRACEBACK_CHARACTERS = 16_384


def main(attempt_dir: str, run: Callable[[AttemptSpec, Path, Wire, Signals], None]) -> int:
    """Make the attempt that `attempt_dir` describes by `run`, and say how it went."""
    lines = LineWriter(claim_stdout())  # before any import that could print
    folder = Path(attempt_dir)
    spec = msgspec.json.decode((folder / "spec.json").read_bytes(), type=AttemptSpec)
    wire = Wire(lines, speaks=ranks.rank() == 0)
    signals = Signals(
        before_training=lambda: _say_stopped(wire, spec, resumed_step(spec), spec.resume_from),
        left_alone=lambda: ranks.another_ended() and _say_other_failed(wire, folder),
    )
    signals.listen()
    try:
        run(spec, folder, wire, signals)
    except Stopped as stop:
        _say_stopped(wire, spec, stop.step, stop.checkpoint)
    except BaseException as error:  # noqa: BLE001 - nothing is swallowed: the wire gets all of it
        note(traceback.format_exc())
        _say_failed(wire, spec, folder, error)
        return 1
    return 0


def run(spec: AttemptSpec, folder: Path, wire: Wire, signals: Signals) -> None:
    """The attempt, from its spec to a saved model.

    Raises:
        Stopped: it was asked to end.
    """
    job = spec.job
    phases = Phases(spec, wire, signals)
    phases.enter("loading_model")
    records = Records(job.dataset)
    _prepare_process(spec, folder)
    from trainer_entry.parameters import in_effect, with_evaluation, with_model
    from trainer_entry.saved_model import save_model

    if job.provider == "unsloth":
        from trainer_entry.providers import unsloth

        job = unsloth.settle(job)
    parameters = in_effect(job)
    loaded = _load_model(job, parameters)
    parameters = with_model(parameters, job, loaded.context, encoder_decoder=loaded.is_encoder_decoder)

    phases.enter("preparing_data")
    examples = _prepare_examples(job, records, loaded, parameters)
    completed = parameters.num_generations if job.strategy == "rlhf" else 1
    parameters = with_evaluation(parameters, len(examples.train) * completed, examples.tokens)

    def say_started(trainer: AttemptTrainer, parameters: TrainingParameters, state: TrainerState) -> None:
        _say_started(wire, spec, state, parameters, trainer, loaded, records)

    resume_from, earlier, rewards = spec.resume_from, {}, None
    match job.strategy:
        case "sft":
            from trainer_entry.strategies import sft

            trainer = sft.build_trainer(job, loaded, examples, parameters)
        case "qlora":
            from trainer_entry.strategies import sft

            trainer = sft.build_trainer(job, _ready(loaded, parameters), examples, parameters)
        case "dpo":
            from trainer_entry.strategies import dpo

            trainer = dpo.build_trainer(job, _ready(loaded, parameters), examples, parameters)
        case "rlhf":
            from trainer_entry.strategies import rlhf

            rewards = rlhf.learn_rewards(phases, job, loaded, examples, parameters, say_started)
            trainer = rlhf.build_policy(job, _ready(loaded, parameters), rewards, examples, parameters)
            earlier = rewards.report.metrics
            if resumed_step(spec) <= rewards.report.steps:  # a checkpoint of the reward model
                resume_from = None
        case _:
            assert_never(job.strategy)

    trained = phases.train(
        trainer,
        lambda state: say_started(trainer, parameters, state),
        resume_from=resume_from,
        measure=examples.measure,
    )
    phases.enter("saving")
    model = save_model(trainer, loaded, job, parameters, {**trained.metrics, **earlier}, rewards)
    wire.send(lambda seq: TrainerFinished(attempt=spec.attempt, seq=seq, messages=seq, step=trained.step, model=model))


def _prepare_process(spec: AttemptSpec, folder: Path) -> None:
    """What the libraries read from the environment, before they are imported."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder / "tensorboard"))
    if spec.job.provider == "unsloth":
        _import_unsloth(folder)
    import datasets
    import torch
    import transformers

    torch.set_num_threads(ranks.threads(spec.cpu_threads))
    ranks.prepare()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def _import_unsloth(folder: Path) -> None:
    """Import unsloth before the libraries that it changes."""
    os.environ["UNSLOTH_DISABLE_STATISTICS"] = "1"
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(folder / "unsloth_compiled_cache"))
    try:
        import unsloth  # noqa: F401
    except ImportError as error:
        raise ModelUnavailable(
            f"The provider unsloth cannot be used on this machine ({error}). Run `make setup-unsloth`, or use the "
            "provider huggingface."
        ) from error


def _load_model(job: JobSpec, parameters: TrainingParameters) -> LoadedModel:
    from transformers import set_seed

    from trainer_entry.parameters import quantization_config, weight_dtype

    set_seed(parameters.seed)  # a head that the weights do not have begins with random numbers
    match job.provider:
        case "huggingface":
            from trainer_entry.providers import huggingface

            quantization = quantization_config(parameters, job.task)
            return huggingface.load(job.model_path, weight_dtype(parameters), quantization, job.task)
        case "unsloth":
            from trainer_entry.providers import unsloth

            return unsloth.load(job, parameters)
        case _:
            assert_never(job.provider)


def _ready(loaded: LoadedModel, parameters: TrainingParameters) -> LoadedModel:
    """The model, made ready for an adapter where it is quantized and has none yet."""
    if loaded.is_adapted or (not parameters.use_4bit and not parameters.use_8bit):
        return loaded
    from trainer_entry.strategies import qlora

    return qlora.prepare(loaded, parameters)


def _prepare_examples(job: JobSpec, records: Records, loaded: LoadedModel, parameters: TrainingParameters) -> Examples:
    places = held_out(records.count, parameters.eval_split, parameters.seed)
    if parameters.eval_split > 0 and not places:
        raise ConflictingParameters(
            f"eval_split {parameters.eval_split} cannot hold back one of {records.count} records: add some, or leave "
            "it out."
        )
    length = parameters.max_seq_length or loaded.context
    if job.strategy in {"dpo", "rlhf"}:
        from trainer_entry.tasks import preferences

        room = length
        if job.strategy == "rlhf":
            room = min(length, preferences.prompt_room(loaded.context, parameters))
        return preferences.prepare(records, places, loaded.tokenizer, job.task, room)
    match job.task:
        case "text-generation":
            from trainer_entry.tasks import text_generation

            return text_generation.prepare(records, places, loaded.tokenizer, length)
        case "summarization":
            from trainer_entry.tasks import summarization

            return summarization.prepare(records, places, loaded.model.config, loaded.tokenizer, length)
        case "extractive-question-answering":
            from trainer_entry.tasks import answers

            return answers.prepare(records, places, loaded.tokenizer, length, parameters.doc_stride)
        case _:
            assert_never(job.task)


def _say_started(
    wire: Wire,
    spec: AttemptSpec,
    state: TrainerState,
    parameters: TrainingParameters,
    trainer: AttemptTrainer,
    loaded: LoadedModel,
    records: Records,
) -> None:
    from trainer_entry.arguments import as_json
    from trainer_entry.attempt_trainer import count_parameters, count_rows
    from trainer_entry.environment import describe

    trainable, total = count_parameters(trainer)
    wire.send(
        lambda seq: TrainerStarted(
            attempt=spec.attempt,
            seq=seq,
            parameters=parameters,
            trainer_arguments=as_json(trainer.args),
            environment=describe(),
            total_steps=trainer.steps_before + state.max_steps + trainer.steps_after,
            total_epochs=int(state.num_train_epochs),
            train_examples=count_rows(trainer.train_dataset),
            eval_examples=count_rows(trainer.eval_dataset),
            trainable_parameters=trainable,
            all_parameters=total,
            dataset_sha256=records.sha256,
            base_revision=loaded.revision,
            chat_template=loaded.tokenizer.chat_template is not None,
            resumed_step=trainer.steps_before + state.global_step,
        )
    )


def _say_stopped(wire: Wire, spec: AttemptSpec, step: int, checkpoint: str | None) -> None:
    wire.send(lambda seq: TrainerStopped(attempt=spec.attempt, seq=seq, messages=seq, step=step, checkpoint=checkpoint))


def _say_failed(wire: Wire, spec: AttemptSpec, folder: Path, error: BaseException) -> None:
    if ranks.lost_contact(error) and ranks.another_ended():
        _say_other_failed(wire, folder)
        return
    lines = "".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:]
    word = TrainerFailed(
        attempt=spec.attempt, seq=0, messages=0, kind=kind_of(error), message=message_of(error), traceback=lines
    )
    if ranks.rank() > 0:
        ranks.leave_word(folder, word)
    wire.send(lambda seq: msgspec.structs.replace(word, seq=seq, messages=seq))


def _say_other_failed(wire: Wire, folder: Path) -> bool:
    """Why another process failed, if it said so. Of one that was killed the shim tells."""
    word = ranks.word_of_another(folder)
    if word is not None:
        wire.send(lambda seq: msgspec.structs.replace(word, seq=seq, messages=seq))
    return True


if __name__ == "__main__":
    code = main(sys.argv[1], run)
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is said and saved: no library's teardown may hang the process now.
    os._exit(code)
