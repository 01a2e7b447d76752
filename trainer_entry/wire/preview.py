"""Requests for a dataset's preview or statistics, and the answers: a dataset as a model reads it."""

from typing import Literal

from msgspec import UNSET, Raw, Struct, UnsetType

from trainer_entry.wire.formats import DatasetFormat
from trainer_entry.wire.job import JobSpec, Provider, Strategy, Task


class DatasetViewRequest(Struct, frozen=True, kw_only=True, tag_field="type", gc=False):
    """A request to `python -m trainer_entry.dataset_view`, on stdin: a dataset, as a job would train on it.

    Of the job nothing is read but its task, strategy, provider, model, dataset and parameters. `revision`: of the
    dataset, for the answer. `deadline_seconds`: what takes longer is ended by the system.
    """

    job: JobSpec
    revision: int
    deadline_seconds: float


class FieldNames(Struct, frozen=True, kw_only=True, gc=False):
    """The fields of a file's records, by the names that they have there: those that are read, and those that are not.

    A field of a turn is named by its place, as `messages[].id`. `mapping`: which column of the file each field was
    taken from, where it was not the one of its name: as it was asked for, or as it was found.
    """

    used: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    mapping: dict[str, str | list[str]] | None = None


class PreviewRequest(DatasetViewRequest, frozen=True, tag="preview", gc=False):
    """Show the first `limit` records; the answer is a `DatasetPreview`."""

    limit: int
    columns: FieldNames = FieldNames()


class StatisticsRequest(DatasetViewRequest, frozen=True, tag="statistics", gc=False):
    """Measure at most `sample` records, evenly spread over the file; the answer is a `DatasetStatistics`."""

    sample: int


class TrialRequest(DatasetViewRequest, frozen=True, tag="trial", gc=False):
    """Find out whether a training could read `sample` records, the first and others spread over the file.

    What it takes beside them to build the trainer is tried too, as far as no weights are needed; the answer is a
    `Trial`.
    """

    sample: int


AnyDatasetViewRequest = PreviewRequest | StatisticsRequest | TrialRequest

SequenceName = Literal["text", "source", "target", "window", "chosen", "rejected", "prompt"]
"""What a model reads at once. Text: a prompt and its answer, or a text to go on with. Source, target: what an
encoder-decoder model reads and writes. Window: a question with a part of its context. Chosen, rejected: a prompt with
either answer. Prompt: what a policy completes by itself.
"""


class TokenView(Struct, frozen=True, kw_only=True, gc=False):
    """A token as a model reads it. The texts of a sequence's tokens, put together, are its text.

    `text` is empty where a character needs further tokens. `loss`: whether the model learns to predict this token; for
    question answering, whether the answer begins or ends with it.
    """

    id: int
    text: str
    loss: bool


class SequenceView(Struct, frozen=True, kw_only=True, gc=False):
    """The tokens that a model reads at once. `length`: how many there were before they were cut.

    `start`, `end`: of a window, the places of the answer's first and last token; the same place for both, that of the
    first token, says that the window has no answer.
    """

    name: SequenceName
    tokens: tuple[TokenView, ...]
    length: int
    start: int | None = None
    end: int | None = None


class ExampleView(Struct, frozen=True, kw_only=True, gc=False):
    """What a trainer makes of a record, or of a part of it. `left_out`: why it is not trained on, where it is not."""

    sequences: tuple[SequenceView, ...]
    left_out: str | None = None


MOST_PREVIEWED_BYTES = 4 << 20
"""A preview ends after the record in which so many bytes of the file were shown."""


class PreviewedRecord(Struct, frozen=True, kw_only=True, gc=False):
    """A record as it stands in its line, and, where a model was named, as the model reads it.

    `more_examples`: how many of them are not shown, for want of room.
    """

    line: int
    record: Raw
    examples: tuple[ExampleView, ...] | UnsetType = UNSET
    more_examples: int | UnsetType = UNSET


class PreviewSettings(Struct, frozen=True, kw_only=True, gc=False):
    """The settings of a preview, those included that were chosen for it.

    `max_seq_length`: in tokens, after which examples are cut. `context`: how many the model can read at once.
    """

    task: Task
    strategy: Strategy
    provider: Provider
    model_name: str
    max_seq_length: int
    context: int
    chat_template: bool
    doc_stride: int | None = None
    max_completion_length: int | None = None


class DatasetPreview(Struct, frozen=True, kw_only=True, gc=False):
    """Records of a dataset, the first ones or those that were asked for. `columns`: those of the file.

    `has_more`: whether there may be others after them. `next_offset`: how many records stand before those, where a
    page of them can be asked for; a search that found enough, or has read enough, stopped there.
    """

    filename: str
    revision: int
    format: DatasetFormat
    num_examples: int
    records: tuple[PreviewedRecord, ...]
    has_more: bool
    columns: FieldNames = FieldNames()
    seen_with: PreviewSettings | None = None
    next_offset: int | None = None


class Quantiles(Struct, frozen=True, kw_only=True, gc=False):
    """Lengths that so many percent of the sequences do not exceed."""

    min: int
    p5: int
    p25: int
    p50: int
    p75: int
    p95: int
    p99: int
    max: int


class Histogram(Struct, frozen=True, kw_only=True, gc=False):
    """How many sequences lie between each two neighbouring edges; one on an edge counts after it, the last before."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class Lengths(Struct, frozen=True, kw_only=True, gc=False):
    """How long the sequences of one kind are, in tokens, before they are cut.

    `limit`: where they are cut. `truncated`: how many are longer, and `truncated_share` of all, 0 to 1.
    """

    sequence: SequenceName
    count: int
    mean: float
    quantiles: Quantiles
    histogram: Histogram
    limit: int
    truncated: int
    truncated_share: float


class DatasetStatistics(Struct, frozen=True, kw_only=True, gc=False):
    """How long a dataset's records are in a model's tokens, and what of them is trained on.

    `measured`: records of all `num_examples`; where they are fewer, they are evenly spread and always the same ones.
    `examples`: what they become, as a trainer takes it; `left_out` of them are not trained on, for want of a token to
    learn, and `left_out_lines` names the first 100. `cut`: those of the others of which a part is missing.
    `tokens`, `loss_tokens`: of the examples that are trained on, cut as they are, all and those that carry loss.
    """

    filename: str
    revision: int
    format: DatasetFormat
    num_examples: int
    measured: int
    examples: int
    left_out: int
    left_out_lines: tuple[int, ...]
    tokens: int
    loss_tokens: int
    lengths: tuple[Lengths, ...]
    seen_with: PreviewSettings
    cut: int = 0


class Trial(Struct, frozen=True, kw_only=True, gc=False):
    """Nothing was found that a training would fail at, in so many records."""

    records: int


class PreviewFailed(Struct, frozen=True, kw_only=True, gc=False):
    """Why a preview could not be made; `kind` is the exception's type. The worker's exit code is 3 then."""

    kind: str
    message: str


PREVIEW_FAILED = 3
"""The exit code of `trainer_entry.dataset_view` that goes with a `DatasetUnseen`."""
