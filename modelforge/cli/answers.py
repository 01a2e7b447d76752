"""Answers of the API as far as the command line shows them: the whole ones are the server's, which loads all of it."""

from typing import Any

from msgspec import Struct

from modelforge.errors import DatasetReport, Refusal
from modelforge.projections.jobs import JobDetails, Status


class JobList(Struct, frozen=True):
    """Jobs, newest first."""

    jobs: list[JobDetails]
    has_more: bool


class Started(Struct, frozen=True):
    """The job that was accepted."""

    job_id: str
    message: str


class Stopped(Struct, frozen=True):
    """How a job ended."""

    status: Status
    message: str
    job_id: str


class Uploaded(Struct, frozen=True):
    """A dataset that was taken in."""

    filename: str
    num_examples: int
    format: str
    revision: int
    validation: DatasetReport


class Fit(Struct, frozen=True):
    """What a training takes of memory or disk, in bytes; `required_bytes` is null where it is not known."""

    available_bytes: int | None = None
    required_bytes: int | None = None
    note: str | None = None
    largest_batch_size: int | None = None


class TakenRecords(Struct, frozen=True):
    """How many records of a dataset would be taken."""

    filename: str
    records: int
    taken: int


class RecordCounts(Struct, frozen=True):
    """How many records would be trained and evaluated on."""

    train: int
    evaluation: int
    datasets: tuple[TakenRecords, ...]


class Preflight(Struct, frozen=True):
    """What speaks against a training."""

    ok: bool
    problems: tuple[Refusal, ...]
    memory: Fit
    disk: Fit
    records: RecordCounts | None = None


class ModelSummary(Struct, frozen=True):
    """A trained model in the list."""

    id: int
    name: str
    base_model: str
    task: str
    created_at: str
    size_mb: float
    kind: str


class ModelList(Struct, frozen=True):
    """The trained models, oldest first."""

    models: list[ModelSummary]


class Figures(Struct, frozen=True):
    """The figures of a step."""

    step: int
    loss: float | None


class Evaluation(Struct, frozen=True):
    """The figures of one evaluation."""

    step: int
    metrics: dict[str, float | None]


class Metrics(Struct, frozen=True):
    """Figures of a job, in order."""

    metrics: list[Figures]
    evaluations: list[Evaluation]
    last_position: int
    has_more: bool


class LoggedRecord(Struct, frozen=True):
    """A record of the log; `at` in unix microseconds."""

    position: int
    stream: str
    kind: str
    type: str
    at: int
    actor: str
    data: Any


class Events(Struct, frozen=True):
    """Records after a position."""

    events: list[LoggedRecord]
    last_position: int
    has_more: bool


class Answer(Struct, frozen=True):
    """What a model said."""

    generated_text: str
    finish_reason: str
    score: float | None = None


class Piece(Struct, frozen=True):
    """A part of an answer that is still coming."""

    text: str


class Said(Struct, frozen=True):
    """What was done, in a sentence."""

    message: str
