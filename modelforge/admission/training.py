"""A training that is asked for: checked in all its parts, and turned into the spec of a job."""

import asyncio
import re
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from modelforge.admission.context import Admission
from modelforge.admission.dataset import resolve_dataset
from modelforge.admission.estimate.fit import Fit, estimate_training, unknown_fit
from modelforge.admission.estimate.report import DiskFit, MemoryFit
from modelforge.admission.installed import check_installed
from modelforge.admission.model import check_model
from modelforge.admission.origin import Origin, resolve_origin
from modelforge.admission.problems import Problems
from modelforge.admission.rewards import check_fields, check_reward_functions
from modelforge.admission.trial import try_out
from modelforge.domain.compatibility import Purpose, check_combination, check_format
from modelforge.domain.rewards import check_rewards
from modelforge.errors import Refusal
from modelforge.fields import check_label, project_struct
from trainer_entry import wire

LONGEST_NAME = 100
OutputName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$(?!\n)", max_length=LONGEST_NAME)]
"""What a trained model may be called."""


MetadataKey = Annotated[str, Meta(min_length=1, max_length=64)]
Metadata = Annotated[dict[MetadataKey, Annotated[str, Meta(max_length=512)]], Meta(max_length=16)]
"""Notes of whoever asks for a job; nothing here reads them."""


class StartTrainingBody(wire.TrainingParameters, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to train, on what, and how: every hyperparameter stands flat in the body."""

    task: wire.Task
    model_name: Annotated[str, Meta(min_length=1, max_length=1000)]
    dataset: Annotated[str, Meta(min_length=1, max_length=4000)]
    provider: wire.Provider = "huggingface"
    strategy: wire.Strategy = "sft"
    output_name: OutputName | None = None
    queue: bool = False
    columns: dict[str, str | list[str]] | None = None
    encoding: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    max_restarts: Annotated[int, Meta(ge=0, le=100)] = 0
    metadata: Metadata | None = None


class Preflight(Struct, frozen=True, kw_only=True):
    """Whether a training could be started now, all that speaks against it, and what it takes."""

    ok: bool
    problems: tuple[Refusal, ...]
    memory: MemoryFit
    disk: DiskFit


class AdmittedTraining(Struct, frozen=True):
    """A training that can be started. `staged`: the file of its records, where it is to be stored first."""

    spec: wire.JobSpec
    staged: Path | None

    async def discard_staged(self) -> None:
        """Remove the staged file, unless it was stored."""
        await _discard(self.staged)


async def admit_training(admission: Admission, body: StartTrainingBody) -> AdmittedTraining:
    """Check everything that a training names and needs.

    Raises:
        ForgeError: the first problem, with all of them beside it if there are several.
    """
    problems = Problems()
    spec, staged = await _resolve(admission, body, problems)
    try:
        await estimate_fit(admission, body.per_device_train_batch_size, spec, problems, queue=body.queue)
        problems.refuse()
    except BaseException:
        await _discard(staged)
        raise
    if spec is None:
        raise AssertionError("without a spec something was refused")
    return AdmittedTraining(spec, staged)


async def preflight_training(admission: Admission, body: StartTrainingBody) -> Preflight:
    """Check everything that a training names and needs, and leave nothing behind."""
    problems = Problems()
    spec, staged = await _resolve(admission, body, problems)
    try:
        fit = await estimate_fit(admission, body.per_device_train_batch_size, spec, problems, queue=body.queue)
    finally:
        await _discard(staged)
    return Preflight(ok=not problems.all, problems=problems.all, memory=fit.memory, disk=fit.disk)


async def _resolve(
    admission: Admission, body: StartTrainingBody, problems: Problems
) -> tuple[wire.JobSpec | None, Path | None]:
    """The job that is asked for, and the staged file of its records, if they had to be made.

    The job is None where it names what is not there, or must not be used: then nothing is left staged.
    """
    parameters = project_struct(body, wire.TrainingParameters)
    purpose = Purpose(body.task, body.strategy, body.provider)
    origin: Origin | None = None
    reward_model_path: str | None = None
    dataset: wire.DatasetFile | None = None
    staged: Path | None = None
    with problems.collecting("strategy"):
        check_combination(body.task, body.strategy, body.provider, parameters)
    with problems.collecting("provider"):
        check_installed(body.provider, parameters)
    with problems.collecting("reward_functions"):
        parameters = await check_reward_functions(parameters, admission.settings.reward_roots)
    with problems.collecting("model_name"):
        origin = await resolve_origin(admission, body.model_name, purpose, parameters)
    with problems.collecting("reward_model"):
        if parameters.reward_model is not None:
            check_label(parameters.reward_model, "reward_model")
            reward_model_path = await check_model(parameters.reward_model, admission.model_roots, "reward_model")
    with problems.collecting("dataset"):
        dataset, staged = await resolve_dataset(admission, body.dataset, body.columns, body.encoding)
        check_format(dataset.format, body.task, body.strategy)
        check_rewards(body.strategy, dataset, parameters)
        await asyncio.to_thread(check_fields, dataset, parameters)
    if origin is None or dataset is None:
        await _discard(staged)
        return None, None
    spec = wire.JobSpec(
        job_id="",
        task=body.task,
        strategy=body.strategy,
        provider=body.provider,
        model_name=origin.model_name,
        model_path=origin.model_path,
        dataset=dataset,
        parameters=origin.parameters,
        output_name=body.output_name or output_name(origin.lineage[0].name if origin.lineage else origin.model_path),
        output_dir=str(admission.layout.models),
        checkpoint_dir=str(admission.layout.jobs),
        reward_model_path=reward_model_path,
        grace_seconds=admission.settings.stop_grace_seconds,
        max_restarts=body.max_restarts,
        adapter=origin.adapter,
        lineage=origin.lineage,
        metadata=body.metadata or {},
    )
    return spec, staged


async def _discard(staged: Path | None) -> None:
    if staged is not None:
        await asyncio.to_thread(staged.unlink, missing_ok=True)


async def estimate_fit(
    admission: Admission, batch_size: int, spec: wire.JobSpec | None, problems: Problems, *, queue: bool
) -> Fit:
    """What a training takes, and in `problems` what of it is not there; without a spec little is known."""
    data_dir = admission.layout.root
    if spec is None:
        return await unknown_fit(batch_size, data_dir)
    # Where there is no place for it now, that is the answer, and not that whoever has it leaves too little memory.
    slots, running = admission.settings.max_concurrent_jobs, admission.handler.state.running
    fit = await estimate_training(spec, data_dir, waits=queue or len(running) >= slots)
    for problem in fit.problems:
        problems.add(problem)
    if not problems.all:
        with problems.collecting("model_name"):
            await try_out(admission, spec)
    return fit


def output_name(model_name: str) -> str:
    """A name for what comes of a model."""
    last = re.sub(r"[^a-z0-9]+", "-", model_name.rpartition("/")[2].lower())
    return f"my-{last[: LONGEST_NAME - len('my--finetuned')]}-finetuned"
