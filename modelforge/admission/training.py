"""A training that is asked for: checked in all its parts, and turned into the spec of a job."""

import asyncio
import re
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from modelforge.admission.cluster import check_cluster_request, cluster_capacity, gpus_asked
from modelforge.admission.context import Admission
from modelforge.admission.estimate.fit import Fit, estimate_training, unknown_fit
from modelforge.admission.estimate.report import DiskFit, MemoryFit
from modelforge.admission.installed import check_installed
from modelforge.admission.mixture import (
    AskedRecords,
    Columns,
    DatasetName,
    Encoding,
    FoundDatasets,
    RecordCounts,
    WeighedDatasets,
    find_datasets,
    naming,
    places_of,
    records_of,
)
from modelforge.admission.model import check_model
from modelforge.admission.origin import Origin, resolve_origin
from modelforge.admission.problems import Problems
from modelforge.admission.rewards import check_reward_functions
from modelforge.admission.trial import try_out
from modelforge.domain.compatibility import check_combination
from modelforge.domain.purposes import Purpose
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
    dataset: DatasetName | WeighedDatasets
    provider: wire.Provider = "huggingface"
    strategy: wire.Strategy = "sft"
    output_name: OutputName | None = None
    queue: bool = False
    columns: Columns | None = None
    encoding: Encoding | None = None
    max_restarts: Annotated[int, Meta(ge=0, le=100)] = 0
    metadata: Metadata | None = None
    validation_dataset: DatasetName | None = None
    cluster: wire.ClusterRequest | None = None


class Preflight(Struct, frozen=True, kw_only=True):
    """Whether a training could be started now, all that speaks against it, and what it takes.

    `records`: how many it would use, and of what; null while a dataset or the model is not found.
    """

    ok: bool
    problems: tuple[Refusal, ...]
    memory: MemoryFit
    disk: DiskFit
    records: RecordCounts | None = None


class AdmittedTraining(Struct, frozen=True):
    """A training that can be started. `found`: its datasets, with the files that are to be stored first."""

    spec: wire.JobSpec
    found: FoundDatasets


async def admit_training(admission: Admission, body: StartTrainingBody) -> AdmittedTraining:
    """Check everything that a training names and needs.

    Raises:
        ForgeError: the first problem, with all of them beside it if there are several.
    """
    problems = Problems()
    spec, found = await _resolve(admission, body, problems)
    try:
        await estimate_fit(admission, body.per_device_train_batch_size, spec, problems, queue=body.queue)
        problems.refuse()
    except BaseException:
        await found.discard_staged()
        raise
    if spec is None:
        raise AssertionError("without a spec something was refused")
    return AdmittedTraining(spec, found)


async def preflight_training(admission: Admission, body: StartTrainingBody) -> Preflight:
    """Check everything that a training names and needs, and leave nothing behind."""
    problems = Problems()
    spec, found = await _resolve(admission, body, problems)
    try:
        fit = await estimate_fit(admission, body.per_device_train_batch_size, spec, problems, queue=body.queue)
    finally:
        await found.discard_staged()
    return Preflight(
        ok=not problems.all,
        problems=problems.all,
        memory=fit.memory,
        disk=fit.disk,
        records=None if spec is None else records_of(spec),
    )


async def _resolve(
    admission: Admission, body: StartTrainingBody, problems: Problems
) -> tuple[wire.JobSpec | None, FoundDatasets]:
    """The job that is asked for, and its datasets, with the staged files of those that had to be made.

    The job is None where it names what is not there, or must not be used.
    """
    parameters = project_struct(body, wire.TrainingParameters)
    purpose = Purpose(body.task, body.strategy, body.provider)
    origin: Origin | None = None
    reward_model_path: str | None = None
    with problems.collecting("strategy"):
        evaluates = body.validation_dataset is not None
        check_combination(body.task, body.strategy, body.provider, parameters, evaluates=evaluates)
    with problems.collecting("provider"):
        check_installed(body.provider, parameters, gpus_asked(admission, body.cluster))
    cluster: wire.ClusterRequest | None = None
    with problems.collecting("cluster"):
        cluster = await check_cluster_request(admission, body.cluster, parameters.num_processes)
    with problems.collecting("reward_functions"):
        parameters = await check_reward_functions(parameters, admission.settings.reward_roots)
    with problems.collecting("model_name"):
        origin = await resolve_origin(admission, body.model_name, purpose, parameters)
    with problems.collecting("reward_model"):
        if parameters.reward_model is not None:
            check_label(parameters.reward_model, "reward_model")
            reward_model_path = await check_model(parameters.reward_model, admission.model_roots, "reward_model")
    found = await find_datasets(admission, project_struct(body, AskedRecords), parameters, problems)
    if origin is None or found.dataset is None:
        return None, found
    spec = wire.JobSpec(
        job_id="",
        task=body.task,
        strategy=body.strategy,
        provider=body.provider,
        model_name=origin.model_name,
        model_path=origin.model_path,
        dataset=found.dataset,
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
        validation=found.validation,
        cluster=cluster,
    )
    return spec, found


async def estimate_fit(
    admission: Admission, batch_size: int, spec: wire.JobSpec | None, problems: Problems, *, queue: bool
) -> Fit:
    """What a training takes, and in `problems` what of it is not there; without a spec little is known."""
    data_dir = admission.layout.at_nodes()
    if spec is None:
        return await unknown_fit(batch_size, data_dir, await asyncio.to_thread(admission.spare_bytes))
    # Where there is no place for it now, that is the answer, and not that whoever has it leaves too little memory.
    slots, running = admission.settings.max_concurrent_jobs, admission.handler.state.running
    spare = await asyncio.to_thread(admission.spare_bytes)
    room = None if spec.cluster is None else await cluster_capacity(admission, spec.cluster)
    fit = await estimate_training(spec, data_dir, waits=queue or len(running) >= slots, spare=spare, room=room)
    for problem in fit.problems:
        problems.add(problem)
    if not problems.all:
        for place, file in places_of(spec):
            with problems.collecting("model_name"), naming(place):
                await try_out(admission, msgspec.structs.replace(spec, dataset=file))
    return fit


def output_name(model_name: str) -> str:
    """A name for what comes of a model."""
    last = re.sub(r"[^a-z0-9]+", "-", model_name.rpartition("/")[2].lower())
    return f"my-{last[: LONGEST_NAME - len('my--finetuned')]}-finetuned"
