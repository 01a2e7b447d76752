"""One attempt at an evaluation: a model that is there, judged on records as its training would judge it.

    python -m trainer_entry.evaluate ATTEMPT_DIR

It is asked, speaks and ends as `trainer_entry.train` does, in one process. A stop ends it at once.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from trainer_entry.data.examples import LINE
from trainer_entry.data.records import Records
from trainer_entry.runtime.attempt import run_attempt
from trainer_entry.runtime.progress import Progress
from trainer_entry.strategies.process import prepare_process
from trainer_entry.train import load_model, prepare_examples
from trainer_entry.training.loop import Phases, tells_quality
from trainer_entry.wire import AttemptSpec, Evaluate, Judged, TrainerFinished
from trainer_entry.wire.evaluating import judging_job

if TYPE_CHECKING:
    from pathlib import Path

    from trainer_entry.runtime.signals import Signals
    from trainer_entry.runtime.stdout import Wire
    from trainer_entry.training.trainer import AttemptTrainer
    from trainer_entry.wire import JobSpec


def run(spec: AttemptSpec, folder: Path, wire: Wire, signals: Signals) -> None:
    """The attempt, from its spec to the figures."""
    work = spec.job.work
    if not isinstance(work, Evaluate):
        raise TypeError(f"{spec.job.job_id} is no evaluation.")
    job = judging_job(spec.job, work)
    spec = msgspec.structs.replace(spec, job=job)
    phases, progress = Phases(spec, wire, signals), Progress(wire, spec.attempt, signals)
    phases.enter("loading_model")
    records = Records(job.dataset, job.validation)
    prepare_process(spec, folder)
    from trainer_entry.providers import huggingface
    from trainer_entry.runtime.environment import describe
    from trainer_entry.training.defaults import resolve_parameters, with_evaluation, with_model
    from trainer_entry.training.trainer import count_rows

    if job.provider == "unsloth":
        from trainer_entry.providers import unsloth

        job = unsloth.settle(job)
    resolved = resolve_parameters(job)
    loaded = load_model(job, resolved)
    parameters = with_model(
        resolved,
        job,
        loaded.context,
        encoder_decoder=loaded.is_encoder_decoder,
        recomputes=huggingface.recomputes(loaded.config, job.task),
    )
    phases.enter("preparing_data")
    examples = prepare_examples(job, records, loaded, parameters)
    parameters = with_evaluation(parameters, len(examples.train), examples.tokens, evaluates=True)
    if job.strategy == "dpo":
        from trainer_entry.strategies import dpo

        trainer = dpo.build_trainer(job, loaded, examples, parameters)
        if not work.base_model:
            _put_on(trainer, work, job, loaded.revision)
    else:
        from trainer_entry.strategies import sft

        trainer = sft.build_trainer(job, loaded, examples, parameters)
    judged = count_rows(trainer.eval_dataset)
    progress.begin(math.ceil(judged / (parameters.per_device_eval_batch_size or 1)), "steps", describe())
    figures = phases.judge(trainer, examples.measure, lambda: progress.advance(1))
    metrics = {name: value for name, value in figures.items() if tells_quality(name)}
    loss = metrics.get("eval_loss")
    if job.strategy == "sft" and job.task != "extractive-question-answering" and loss is not None:
        metrics["eval_perplexity"] = math.exp(loss) if loss < _LARGEST_LOG else None
    if job.task == "extractive-question-answering":  # a row is a window of a context, and not a record
        judged = len(set(examples.evaluation[LINE])) if examples.evaluation is not None else 0
    result = Judged(records=judged, metrics=metrics, base_model=work.base_model)
    wire.send(
        lambda seq: TrainerFinished(
            attempt=spec.attempt, seq=seq, messages=seq, step=progress.step, model=None, delivery=result
        )
    )


_LARGEST_LOG = math.log(sys.float_info.max)


def _put_on(trainer: AttemptTrainer, work: Evaluate, job: JobSpec, revision: str | None) -> None:
    """Give the new adapter of a trainer the numbers of the one that is judged; without it the model is the reference.

    Raises:
        BaseChanged, ModelUnavailable: these are not the weights that it was trained on, or its layers are not there.
    """
    from peft import set_peft_model_state_dict
    from peft.utils import load_peft_weights

    from trainer_entry.artifacts.merge import check_base
    from trainer_entry.providers.model_folder import check_folder
    from trainer_entry.runtime.failures import ModelUnavailable
    from trainer_entry.training.trainer import trained_model

    check_folder(work.path)
    check_base(job.model_path, revision, work.base_revision)
    model: Any = trainer.accelerator.unwrap_model(trained_model(trainer))
    loading: Any = set_peft_model_state_dict(model, load_peft_weights(work.path, device="cpu"))
    if loading.unexpected_keys:
        raise ModelUnavailable(f"{work.path} has an adapter on {', '.join(loading.unexpected_keys[:3])}.")


if __name__ == "__main__":
    code = run_attempt(sys.argv[1], run)
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is said: no library's teardown may hang the process now.
    os._exit(code)
