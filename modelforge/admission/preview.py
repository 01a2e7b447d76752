"""The training that a preview is made for: as it would be started, but for what only a start needs."""

from typing import Annotated

from msgspec import Meta, Struct

from modelforge.admission.context import Admission
from modelforge.admission.origin import resolve_origin
from modelforge.domain.compatibility import check_combination
from modelforge.domain.purposes import purpose_of
from modelforge.projections.datasets import DatasetSummary
from trainer_entry import wire

ModelName = Annotated[str, Meta(min_length=1, max_length=1000)]
MaxSeqLength = Annotated[int, Meta(ge=-1, le=10_000_000)]
DocStride = Annotated[int, Meta(ge=0, le=1_000_000)]
MaxCompletionLength = Annotated[int, Meta(ge=1, le=1_000_000)]


class ViewQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query: the training for which a dataset is viewed. What is left out is chosen as a training chooses it."""

    model_name: ModelName | None = None
    task: wire.Task | None = None
    strategy: wire.Strategy | None = None
    provider: wire.Provider = "huggingface"
    max_seq_length: MaxSeqLength | None = None
    truncation: wire.Truncation = "right"
    doc_stride: DocStride = 128
    max_completion_length: MaxCompletionLength = 256
    revision: Annotated[int, Meta(ge=1)] | None = None


async def preview_spec(
    admission: Admission, query: ViewQuery, model_name: str, summary: DatasetSummary
) -> wire.JobSpec:
    """The spec of the training, without an id and folders.

    Raises:
        BadInput: it could not be started; `field` names the part of the query to change.
        NotFound: the model is not there.
    """
    purpose = purpose_of(summary.format, query.task, query.strategy, query.provider)
    parameters = wire.TrainingParameters(
        max_seq_length=query.max_seq_length,
        truncation=query.truncation,
        doc_stride=query.doc_stride,
        max_completion_length=query.max_completion_length,
    )
    check_combination(purpose.task, purpose.strategy, purpose.provider, parameters)
    origin = await resolve_origin(admission, model_name, purpose, parameters)
    return wire.JobSpec(
        job_id="",
        task=purpose.task,
        strategy=purpose.strategy,
        provider=purpose.provider,
        model_name=origin.model_name,
        model_path=origin.model_path,
        dataset=wire.DatasetFile(
            filename=summary.filename,
            path=str(admission.layout.dataset(summary.content)),
            sha256=summary.sha256,
            format=summary.format,
            num_examples=summary.num_examples,
            records_sha256=summary.records_sha256,
        ),
        parameters=parameters,
        output_name="",
        output_dir="",
        checkpoint_dir="",
    )
