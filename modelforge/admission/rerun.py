"""A job that is repeated: what it names is looked up again, as it may have gone, or changed, since the first time."""

import asyncio
import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from modelforge.admission.cluster import check_cluster_request, gpus_asked
from modelforge.admission.context import Admission
from modelforge.admission.dataset import allowed_file
from modelforge.admission.evaluation import check_files
from modelforge.admission.installed import check_installed
from modelforge.admission.model import check_model
from modelforge.admission.problems import Problems
from modelforge.admission.reward_files import CHANGED
from modelforge.admission.rewards import check_reward_functions
from modelforge.admission.training import estimate_fit
from modelforge.admission.work import readmit_work
from modelforge.domain.dataset import file_of
from modelforge.domain.purposes import Purpose
from modelforge.errors import BadInput, Conflict, NotFound
from modelforge.layout import Layout
from modelforge.projections.dataset_references import DatasetReference
from trainer_entry import wire


async def readmit(
    admission: Admission, spec: wire.JobSpec, datasets: Iterable[DatasetReference], *, queue: bool
) -> wire.JobSpec:
    """The spec of a job that was made once, as it can be made now. `datasets`: as the job shows them.

    Raises:
        BadInput, NotFound, Conflict: what it needs is not there any more, or has changed.
    """
    if spec.work is not None and not isinstance(spec.work, wire.Evaluate):
        return await readmit_work(admission, spec)
    for dataset in datasets:
        _check_deleted(dataset)
    if isinstance(spec.work, wire.Evaluate):
        await check_files(admission, spec, spec.work)
        records = await asyncio.to_thread(
            _same_dataset,
            spec.work.dataset,
            admission.layout,
            admission.settings.dataset_roots,
            admission.handler.state.references,
        )
        work = msgspec.structs.replace(spec.work, dataset=records)
        return await readmit_work(admission, msgspec.structs.replace(spec, work=work))
    return await _readmit_training(admission, spec, queue=queue)


def _check_deleted(dataset: DatasetReference) -> None:
    """Refuse a job whose dataset was deleted since."""
    if dataset.deleted_at is not None:
        raise NotFound(
            "The dataset was deleted",
            f"dataset: {dataset.filename} with the SHA-256 {dataset.sha256} was deleted at {dataset.deleted_at}; "
            "upload the same file again, under any name, and this job can be started again.",
        )


async def _readmit_training(admission: Admission, spec: wire.JobSpec, *, queue: bool) -> wire.JobSpec:
    layout, settings = admission.layout, admission.settings
    await check_cluster_request(admission, spec.cluster, spec.parameters.num_processes)
    check_installed(spec.provider, spec.parameters, gpus_asked(admission, spec.cluster))
    parameters = await _same_rewards(spec.parameters, settings.reward_roots)
    await asyncio.to_thread(_check_adapter, spec.adapter)
    purpose = Purpose(spec.task, spec.strategy, spec.provider)
    reward = spec.reward_model_path
    same = functools.partial(
        _same_dataset, layout=layout, roots=settings.dataset_roots, references=admission.handler.state.references
    )
    readmitted = msgspec.structs.replace(
        spec,
        model_path=await check_model(spec.model_path, admission.model_roots, purpose=purpose),
        reward_model_path=None if reward is None else await check_model(reward, admission.model_roots, "reward_model"),
        parameters=parameters,
        dataset=await asyncio.to_thread(same, spec.dataset),
        validation=None if spec.validation is None else await asyncio.to_thread(same, spec.validation),
        output_dir=str(layout.models),
        checkpoint_dir=str(layout.jobs),
        grace_seconds=settings.stop_grace_seconds,
    )
    problems = Problems()
    await estimate_fit(admission, spec.parameters.per_device_train_batch_size, readmitted, problems, queue=queue)
    problems.refuse()
    return readmitted


async def _same_rewards(parameters: wire.TrainingParameters, roots: tuple[Path, ...]) -> wire.TrainingParameters:
    """The parameters, whose Python files are those that the job was started with."""
    try:
        return await check_reward_functions(parameters, roots)
    except BadInput as error:
        if error.field is not None and error.field.endswith(f".{CHANGED}"):
            raise Conflict(error.message, error.detail) from error
        raise


def _check_adapter(adapter: wire.EarlierAdapter | None) -> None:
    """Refuse a job that went on from an adapter which is not there any more."""
    if adapter is not None and not Path(adapter.path).is_dir():
        raise NotFound("The adapter is gone", f"model_name: {adapter.path} is there no longer; train it again.")


def _same_dataset(
    dataset: wire.DatasetFile, layout: Layout, roots: tuple[Path, ...], references: Mapping[str, int]
) -> wire.DatasetFile:
    """The file that has the records which the job was started with: the one that is kept, or the one it named."""
    if dataset.parts:
        parts = (
            msgspec.structs.replace(part, dataset=_same_dataset(part.dataset, layout, roots, references))
            for part in dataset.parts
        )
        return msgspec.structs.replace(dataset, parts=tuple(parts))
    content = dataset.content
    kept = layout.dataset(content)
    is_kept = bool(references.get(kept.name)) and kept.is_file()
    if not is_kept and file_of(dataset) is not None:
        raise NotFound(
            "The dataset is gone",
            f"dataset: {dataset.filename} with the SHA-256 {dataset.sha256} is kept no longer; upload it again.",
        )
    path = kept if is_kept else allowed_file(dataset.path, roots)
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput("The dataset cannot be read", f"{path}: {error.strerror}", field="dataset") from error
    if sha256 != content:
        raise Conflict(
            "The dataset has changed",
            f"{path} has the SHA-256 {sha256} now, and had {content} for this job. Bring back the file as it "
            "was, or POST /api/start_training to train on it as it is.",
        )
    return msgspec.structs.replace(dataset, path=str(path))
