"""One attempt at a job: provider -> data -> strategy x task -> train -> evaluate -> save.

    accelerate launch … -m trainer_entry.train ATTEMPT_DIR

ATTEMPT_DIR/spec.json says what to do. Stdout becomes the wire (one message a line, trainer_entry.wire), and
everything that prints goes to stderr. SIGTERM saves a checkpoint at the next step and ends, SIGUSR1 saves one
and goes on. The exit code is 0 after TrainerFinished and TrainerStopped, 1 after TrainerFailed.

With `--standby` in place of the folder it imports its libraries, and waits for one (trainer_entry.strategies.standby).
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, assert_never

from trainer_entry.data.records import Records
from trainer_entry.providers.model_folder import check_folder
from trainer_entry.runtime.attempt import conduct, resumed_step, run_attempt
from trainer_entry.runtime.failures import refuse
from trainer_entry.strategies.process import prepare_process
from trainer_entry.strategies.standby import stand_by
from trainer_entry.trackers.processes import Trackers
from trainer_entry.training.loop import Phases
from trainer_entry.wire import (
    STANDBY,
    AttemptSpec,
    JobSpec,
    SavedModel,
    TrainerFinished,
    TrainerStarted,
    TrainingParameters,
)
from trainer_entry.wire.mixture import in_datasets
from trainer_entry.wire.obstacles import in_build, in_packing, in_prompts, in_reward_functions

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import TrainerState

    from trainer_entry.data.examples import Examples
    from trainer_entry.providers.huggingface import KnownModel, LoadedModel
    from trainer_entry.rewards.policy_rewards import Rewards
    from trainer_entry.runtime.signals import Signals
    from trainer_entry.runtime.stdout import Wire
    from trainer_entry.training.trainer import AttemptTrainer


def run(spec: AttemptSpec, folder: Path, wire: Wire, signals: Signals) -> None:
    """The attempt, from its spec to a saved model.

    Raises:
        Stopped: it was asked to end.
    """
    with Trackers(spec, wire):
        step, model = _train(spec, folder, wire, signals)
    wire.send(lambda seq: TrainerFinished(attempt=spec.attempt, seq=seq, messages=seq, step=step, model=model))


def _train(spec: AttemptSpec, folder: Path, wire: Wire, signals: Signals) -> tuple[int, SavedModel]:
    """The model, and the steps that were made for it."""
    job = spec.job
    phases = Phases(spec, wire, signals)
    phases.enter("loading_model")
    records = Records(job.dataset, job.validation, eval_split=job.parameters.eval_split, seed=job.parameters.seed)
    prepare_process(spec, folder)
    from trainer_entry.artifacts.save import save_model
    from trainer_entry.providers import huggingface
    from trainer_entry.training.defaults import resolve_parameters, with_evaluation, with_model

    if job.provider == "unsloth":
        from trainer_entry.providers import unsloth

        job = unsloth.settle(job)
    if spec.resume_from is not None:
        check_folder(spec.resume_from)
    resolved = resolve_parameters(job)
    load = functools.cache(lambda: load_model(job, resolved))
    # A policy is loaded when its reward model is trained: both take memory.
    known = huggingface.know(job.model_path) if job.strategy == "rlhf" else load()
    parameters = with_model(
        resolved,
        job,
        known.context,
        encoder_decoder=known.is_encoder_decoder,
        recomputes=huggingface.recomputes(known.config, job.task),
    )
    for speaks_against in (in_packing, in_build):
        refuse(speaks_against(parameters, known.config.model_type, encoder_decoder=known.is_encoder_decoder))

    phases.enter("preparing_data")
    rewards = _load_rewards(job, known)
    examples = prepare_examples(job, records, known, parameters, rewards, kept_in=spec.tokenized)
    completed = parameters.num_generations if job.strategy == "rlhf" else 1
    parameters = with_evaluation(parameters, len(examples.train) * completed, examples.tokens, evaluates=job.evaluates)

    def report_started(trainer: AttemptTrainer, parameters: TrainingParameters, state: TrainerState) -> None:
        _report_started(wire, spec, state, parameters, trainer, known, records, examples)

    resume_from, earlier, reward_model_dir = spec.resume_from, {}, None
    measure = examples.measure
    match job.strategy:
        case "sft" | "qlora":
            from trainer_entry.strategies import sft

            trainer = sft.build_trainer(job, load(), examples, parameters)
        case "dpo":
            from trainer_entry.strategies import dpo

            trainer = dpo.build_trainer(job, load(), examples, parameters)
        case "rlhf":
            from trainer_entry.strategies import rlhf

            policy = rlhf.prepare_policy(phases, job, known, load, examples, parameters, rewards, report_started)
            trainer, measure = policy.trainer, policy.measure
            earlier, reward_model_dir = policy.earlier, policy.reward_model_dir
            if resumed_step(spec) <= trainer.steps_before:  # a checkpoint of the reward model
                resume_from = None
        case _:
            assert_never(job.strategy)

    _prepare_saving(trainer, load(), job, parameters, resumes=resume_from is not None)
    trained = phases.train(
        trainer,
        lambda state: report_started(trainer, parameters, state),
        resume_from=resume_from,
        measure=measure,
    )
    phases.enter("saving")
    model = save_model(trainer, load(), job, parameters, {**trained.metrics, **earlier}, reward_model_dir)
    return trained.step, model


def _prepare_saving(
    trainer: AttemptTrainer, loaded: LoadedModel, job: JobSpec, parameters: TrainingParameters, *, resumes: bool
) -> None:
    """What has to be known of the untrained model when the trained one is saved, and whether it can be."""
    from trainer_entry.artifacts.initial_adapter import settle_initial
    from trainer_entry.artifacts.rehearsal import rehearse_saving

    settle_initial(trainer, job, parameters, resumes=resumes)
    rehearse_saving(trainer, loaded, job, parameters)


def load_model(job: JobSpec, parameters: TrainingParameters) -> LoadedModel:
    """The model as it is trained, with generation settings that can be saved with it."""
    from trainer_entry.data.generation_settings import settle_generation
    from trainer_entry.strategies.earlier_adapter import go_on

    loaded = go_on(_load(job, parameters), job, parameters)
    settle_generation(loaded.model, loaded.tokenizer)
    return loaded


def _load(job: JobSpec, parameters: TrainingParameters) -> LoadedModel:
    from transformers import set_seed

    from trainer_entry.providers.precision import quantization_config, weight_dtype

    set_seed(parameters.seed)  # a head that the weights do not have begins with random numbers
    match job.provider:
        case "huggingface":
            from trainer_entry.providers import huggingface

            quantization = quantization_config(parameters, job.task)
            attention = parameters.attn_implementation
            return huggingface.load(job.model_path, weight_dtype(parameters), quantization, job.task, attention)
        case "unsloth":
            from trainer_entry.providers import unsloth

            return unsloth.load(job, parameters)
        case _:
            assert_never(job.provider)


def _load_rewards(job: JobSpec, known: KnownModel) -> Rewards:
    """The functions that reward a policy, before anything else takes time: they may be a file that has changed."""
    from trainer_entry.rewards.policy_rewards import rewards_of

    refuse(in_reward_functions(job.parameters, beside_a_model=job.has_reward_model))
    return rewards_of(job.parameters.rewards, known.tokenizer)


def prepare_examples(
    job: JobSpec,
    records: Records,
    known: KnownModel,
    parameters: TrainingParameters,
    rewards: Rewards | None = None,
    kept_in: str | None = None,
) -> Examples:
    """The records as the trainer takes them, each token of which the model has an embedding of.

    `kept_in`: the folder in which they may be from an earlier attempt, and are kept for later ones.
    """
    from trainer_entry.data.embedding import check_examples
    from trainer_entry.data.token_cache import key_of, remembered

    config = known.config if job.task == "summarization" else None
    examples = remembered(
        None if job.strategy == "rlhf" else kept_in,  # reward functions see each record before it begins
        lambda: key_of(job, parameters, parameters.max_seq_length or known.context, known.tokenizer, config),
        lambda: _make_examples(job, records, known, parameters, rewards or _load_rewards(job, known)),
        {file.content for file in job.files},
    )
    check_examples(examples, known.config, known.tokenizer)
    if job.strategy == "rlhf":
        refuse(in_prompts(parameters, len(examples.train)))
    return examples


def _make_examples(
    job: JobSpec, records: Records, known: KnownModel, parameters: TrainingParameters, rewards: Rewards
) -> Examples:
    refuse(in_datasets(job))
    places = records.held_out
    length, truncation = parameters.max_seq_length or known.context, parameters.truncation
    if job.strategy in {"dpo", "rlhf"}:
        from trainer_entry.tasks import policy_prompts, preferences

        room = length
        if job.strategy == "rlhf":
            room = min(length, policy_prompts.prompt_room(known.context, parameters))
        if job.dataset.format != "preferences":
            return policy_prompts.prepare(records, places, known.tokenizer, job.task, room, rewards.check_record)
        check = rewards.check_record if rewards.rewarders else None
        purpose = (job.task, job.strategy)
        return preferences.prepare(records, places, known.tokenizer, purpose, room, truncation, check)
    match job.task:
        case "text-generation":
            from trainer_entry.tasks import text_generation

            return text_generation.prepare(records, places, known.tokenizer, length, truncation)
        case "summarization":
            from trainer_entry.tasks import summarization

            return summarization.prepare(records, places, known.config, known.tokenizer, length)
        case "extractive-question-answering":
            from trainer_entry.tasks import question_answering

            return question_answering.prepare(records, places, known.tokenizer, length, parameters.doc_stride)
        case _:
            assert_never(job.task)


def _report_started(
    wire: Wire,
    spec: AttemptSpec,
    state: TrainerState,
    parameters: TrainingParameters,
    trainer: AttemptTrainer,
    known: KnownModel,
    records: Records,
    examples: Examples,
) -> None:
    from trainer_entry.runtime.environment import describe
    from trainer_entry.training.arguments import as_json
    from trainer_entry.training.trainer import count_parameters, count_rows, rows_left_out

    trainable, total = count_parameters(trainer)
    # Packing makes fewer rows of all of them.
    unrewarded = 0 if parameters.packing else rows_left_out(trainer, examples)
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
            base_revision=known.revision,
            chat_template=known.tokenizer.chat_template is not None,
            resumed_step=trainer.steps_before + state.global_step,
            left_out_examples=examples.dropped + unrewarded + trainer.left_out_elsewhere,
            cut_examples=examples.cut,
        )
    )


if __name__ == "__main__":
    code = conduct(stand_by(), run) if sys.argv[1] == STANDBY else run_attempt(sys.argv[1], run)
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is said and saved: no library's teardown may hang the process now.
    os._exit(code)
