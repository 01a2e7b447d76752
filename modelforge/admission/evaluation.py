"""An evaluation of a trained model: its records found and checked, and turned into work on the model."""

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from modelforge.admission.cluster import evaluation_capacity
from modelforge.admission.context import Admission
from modelforge.admission.estimate.judging import check_evaluation_fits
from modelforge.admission.mixture import (
    AskedRecords,
    Columns,
    DatasetName,
    Encoding,
    FoundDatasets,
    MaxSamples,
    WeighedDatasets,
    find_datasets,
    naming,
)
from modelforge.admission.model import check_model
from modelforge.admission.problems import Problems
from modelforge.admission.trial import try_out
from modelforge.admission.work import work_spec
from modelforge.domain import model
from modelforge.domain.purposes import Purpose, check_format
from modelforge.errors import BadInput, NotFound
from trainer_entry import wire
from trainer_entry.wire.evaluating import judging_job, judging_parameters
from trainer_entry.wire.mixture import mixed, taken_of

_PREFERENCES = "preferences"


class EvaluateBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model is judged on. `base_model`: judge what it was trained from, in its place."""

    dataset: DatasetName | WeighedDatasets
    max_samples: MaxSamples | None = None
    batch_size: Annotated[int, Meta(ge=1, le=4096)] | None = None
    base_model: bool = False
    columns: Columns | None = None
    encoding: Encoding | None = None
    queue: bool = False


class AdmittedEvaluation(Struct, frozen=True):
    """An evaluation that can be started. `found`: its records, with the files that are to be stored first."""

    spec: wire.JobSpec
    found: FoundDatasets


async def admit_evaluation(
    admission: Admission, source: model.ModelRegistered, base_revision: str | None, body: EvaluateBody
) -> AdmittedEvaluation:
    """Check everything that an evaluation names.

    Raises:
        BadInput: the records do not fit, or a file cannot be used; `field` says which part of the request.
        NotFound: the model's files, its base or a dataset are not there.
    """
    problems, task = Problems(), source.spec.task
    if body.max_samples is not None and not isinstance(body.dataset, str):
        raise BadInput(
            "max_samples is for one dataset, and there is a list of them",
            "Send it with the dataset that it is for, as dataset[0].max_samples.",
            field="max_samples",
        )
    asked = AskedRecords(body.dataset, None, body.columns, body.encoding, task, None)
    found = await find_datasets(admission, asked, source.parameters, problems)
    try:
        problems.refuse()
        spec = await _spec(admission, source, base_revision, body, found.dataset)
    except BaseException:
        await found.discard_staged()
        raise
    return AdmittedEvaluation(spec, found)


async def _spec(
    admission: Admission,
    source: model.ModelRegistered,
    base_revision: str | None,
    body: EvaluateBody,
    dataset: wire.DatasetFile | None,
) -> wire.JobSpec:
    if dataset is None:
        raise AssertionError("without a dataset something was refused")
    task, alone = source.spec.task, isinstance(body.dataset, str)
    places = [("dataset" if alone else f"dataset[{number}]", file) for number, file in enumerate(dataset.files)]
    for place, file in places:
        check_format(file.format, task, "dpo" if file.format == _PREFERENCES else "sft", place)
    work = _work(source, base_revision, _at_most(dataset, body.max_samples, source.parameters.seed), body)
    spec = work_spec(admission, source, work, source.name)
    await check_files(admission, spec, work)
    slots, running = admission.settings.max_concurrent_jobs, admission.handler.state.running
    waits, spare = body.queue or len(running) >= slots, await asyncio.to_thread(admission.spare_bytes)
    room = await evaluation_capacity(admission)
    await check_evaluation_fits(judging_job(spec, work), waits=waits, spare=spare, elsewhere=room)
    for place, file in places:
        with naming(place):
            await try_out(admission, judging_job(spec, msgspec.structs.replace(work, dataset=file)))
    return spec


def _at_most(dataset: wire.DatasetFile, most: int | None, seed: int) -> wire.DatasetFile:
    """The dataset, or so many of its records as the seed draws."""
    if most is None or most >= dataset.num_examples:
        return dataset
    taken = taken_of(dataset.num_examples, 1.0, most)
    return mixed((wire.DatasetPart(dataset=dataset, max_samples=most, taken=taken),), seed)


def _work(
    source: model.ModelRegistered, base_revision: str | None, dataset: wire.DatasetFile, body: EvaluateBody
) -> wire.Evaluate:
    adapts = source.model.kind == "adapter"
    if dataset.format == _PREFERENCES and (body.base_model or not adapts):
        raise BadInput(
            "Preferences judge an adapter only",
            "Its base is what its rewards are measured against: evaluate the adapter, or send records with answers.",
            field="dataset",
        )
    return wire.Evaluate(
        model_id=source.model_id,
        name=source.name,
        path=source.model.path,
        dataset=dataset,
        adapts=adapts,
        base_model=body.base_model,
        base_revision=base_revision,
        parameters=judging_parameters(
            source.parameters, source.spec.strategy, adapts=adapts, batch_size=body.batch_size
        ),
    )


async def check_files(admission: Admission, spec: wire.JobSpec, work: wire.Evaluate) -> None:
    """Refuse a model, or the base of an adapter, whose files are gone.

    Raises:
        BadInput, NotFound: they are, or cannot be used.
    """
    if not await asyncio.to_thread(Path(work.path).is_dir):
        raise NotFound("The model's files are gone", f"model_id: there is no folder {work.path} any more.")
    if not work.adapts and not work.base_model:
        return
    purpose = Purpose(spec.task, "sft", spec.provider)
    try:
        await check_model(spec.model_path, admission.model_roots, purpose=purpose)
    except BadInput as error:
        raise BadInput(error.message, error.detail, field="model_id") from error
