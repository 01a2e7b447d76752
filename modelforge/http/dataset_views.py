"""What a person sees of a dataset before a training: its records, as a model sees them, and how long they are.

What a model sees is found by a worker process, by the code that trains: it loads the model's tokenizer, and runs the
model's chat template, which is a stranger's program.
"""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import structlog
from aiohttp import web
from msgspec import Meta, Struct

from modelforge.child_process import Ended, run_module
from modelforge.domain.combinations import check_combination, purpose_of
from modelforge.errors import BadInput, Conflict, NotFound, TooMuchWork
from modelforge.fields import field_error
from modelforge.http.datasets import find_dataset, find_uploads
from modelforge.http.keys import LAYOUT, SETTINGS
from modelforge.http.messages import answer
from modelforge.http.waiting import while_client_waits
from modelforge.layout import Layout
from modelforge.model_check import check_model
from modelforge.projections.datasets import DatasetSummary, summary_of
from trainer_entry import wire

_log = structlog.get_logger()
_WORKER = "trainer_entry.dataset_view"
_SECONDS = 120.0
"""How long a worker may take; a big tokenizer alone takes seconds."""
_GRACE_SECONDS = 5.0
"""So much later the system ends a worker that nobody ended."""
_AT_ONCE = 2
_MOST_WAITING = 16


class Looking(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query: how a model is to see a dataset. What is left out is chosen as a training chooses it."""

    model_name: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    task: wire.Task | None = None
    strategy: wire.Strategy | None = None
    provider: wire.Provider = "huggingface"
    max_seq_length: Annotated[int, Meta(ge=-1, le=10_000_000)] | None = None
    doc_stride: Annotated[int, Meta(ge=0, le=1_000_000)] = 128
    max_completion_length: Annotated[int, Meta(ge=1, le=1_000_000)] = 256
    revision: Annotated[int, Meta(ge=1)] | None = None


class PreviewQuery(Looking, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With how many records are to be shown."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 10


class StatisticsQuery(Looking, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With how many records are to be measured, at most."""

    sample: Annotated[int, Meta(ge=1, le=100_000)] = 10_000


class Views:
    """Looks at datasets by worker processes, a few at once; others wait for their turn."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def look(self, look: wire.AnyDatasetViewRequest) -> Ended:
        """What the worker said.

        Raises:
            Conflict: too many wait already.
            TooMuchWork: it took too much time or memory.
        """
        if self._waiting >= _MOST_WAITING:
            raise Conflict(
                "Too many datasets are looked at", f"{self._waiting} requests wait already; try again later."
            )
        self._waiting += 1
        try:
            async with self._turns:
                ended = await run_module(_WORKER, stdin=msgspec.json.encode(look), seconds=_SECONDS)
        except TimeoutError as error:
            raise TooMuchWork(
                "The dataset could not be looked at in time",
                f"It took more than {_SECONDS:.0f} s: the model's chat template may never end, or there is too much to "
                "read. Ask for fewer records (limit, sample), or look at the model's chat template.",
            ) from error
        finally:
            self._waiting -= 1
        if ended.code == -signal.SIGKILL:
            raise TooMuchWork(
                "The process that looked at the dataset was killed",
                "Probably there was no memory left for it: ask for fewer records (limit, sample), or look at the "
                "model's chat template.",
            )
        return ended


VIEWS = web.AppKey("views", Views)


async def preview_dataset(request: web.Request) -> web.Response:
    """Show the first records of a dataset, and, if a model is named, what it sees of them."""
    query = _query(request, PreviewQuery)
    summary = await _dataset(request, query.revision)
    if query.model_name is None:
        path = records_file(request.app[LAYOUT], summary)
        return answer(await asyncio.to_thread(_records_as_they_are, path, summary, query.limit))
    job = await _job(request, query, query.model_name, summary)
    look = wire.PreviewRequest(
        job=job, revision=summary.revision, deadline_seconds=_SECONDS + _GRACE_SECONDS, limit=query.limit
    )
    return await _seen(request, look)


async def measure_dataset(request: web.Request) -> web.Response:
    """How long a dataset's records are in a model's tokens, and how much of them is trained on."""
    query = _query(request, StatisticsQuery)
    summary = await _dataset(request, query.revision)
    if query.model_name is None:
        raise BadInput(
            "The query's model_name is missing",
            "Lengths are counted in the tokens of a model: name the one that you want to train.",
            field="model_name",
        )
    job = await _job(request, query, query.model_name, summary)
    look = wire.StatisticsRequest(
        job=job, revision=summary.revision, deadline_seconds=_SECONDS + _GRACE_SECONDS, sample=query.sample
    )
    return await _seen(request, look)


def records_file(layout: Layout, summary: DatasetSummary) -> Path:
    """The file with a dataset's records, one a line."""
    return layout.dataset(summary.content)


_Query = TypeVar("_Query", bound=Looking)


def _query(request: web.Request, kind: type[_Query]) -> _Query:
    """The request's query.

    Raises:
        BadInput: `field` names the part of it that cannot be used.
    """
    try:
        return msgspec.convert(dict(request.query), kind, strict=False)
    except msgspec.ValidationError as error:
        fault = field_error(error, kind)
        raise BadInput(
            f"The query's {fault.field} cannot be used", f"{fault.message}. {fault.remedy}".strip(), field=fault.field
        ) from error


async def _dataset(request: web.Request, revision: int | None) -> DatasetSummary:
    """The dataset that the path names, as it is now or in an earlier revision.

    Raises:
        NotFound: there is none, or not this revision, or its file is gone.
    """
    summary = find_dataset(request)
    if revision is not None:
        upload, _ = await find_uploads(request)
        summary = summary_of(upload.event, upload.at)
    if not await asyncio.to_thread(records_file(request.app[LAYOUT], summary).is_file):
        raise NotFound("The dataset's file is gone", f"Upload {summary.filename!r} again.")
    return summary


async def _job(request: web.Request, query: Looking, model_name: str, summary: DatasetSummary) -> wire.JobSpec:
    """The training that is thought of.

    Raises:
        BadInput: it could not be; `field` names the part of the query to change.
        NotFound: the model is not there.
    """
    layout, settings = request.app[LAYOUT], request.app[SETTINGS]
    purpose = purpose_of(summary.format, query.task, query.strategy, query.provider)
    parameters = wire.TrainingParameters(
        max_seq_length=query.max_seq_length,
        doc_stride=query.doc_stride,
        max_completion_length=query.max_completion_length,
    )
    check_combination(purpose.task, purpose.strategy, purpose.provider, parameters)
    roots = (*settings.model_roots, layout.models)
    return wire.JobSpec(
        job_id="",
        task=purpose.task,
        strategy=purpose.strategy,
        provider=purpose.provider,
        model_name=model_name,
        model_path=await check_model(model_name, roots, purpose=purpose),
        dataset=wire.DatasetFile(
            filename=summary.filename,
            path=str(records_file(layout, summary)),
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


def _records_as_they_are(path: Path, summary: DatasetSummary, limit: int) -> wire.DatasetPreview:
    records = tuple(_first_records(path, limit))
    return wire.DatasetPreview(
        filename=summary.filename,
        revision=summary.revision,
        format=summary.format,
        num_examples=summary.num_examples,
        records=records,
        has_more=len(records) < summary.num_examples,
    )


def _first_records(path: Path, limit: int) -> Iterator[wire.PreviewedRecord]:
    count = size = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.isspace():
                continue
            yield wire.PreviewedRecord(line=number, record=msgspec.Raw(line.strip()))
            count += 1
            size += len(line)
            if count == limit or size >= wire.MOST_PREVIEWED_BYTES:
                return


async def _seen(request: web.Request, look: wire.AnyDatasetViewRequest) -> web.Response:
    """The worker's answer, as it is."""
    ended = await while_client_waits(request, request.app[VIEWS].look(look))
    if ended.code == wire.PREVIEW_FAILED:
        raise _refusal(msgspec.json.decode(ended.output, type=wire.PreviewFailed), ended.words)
    if ended.code != 0:
        raise RuntimeError(f"The look at a dataset ended with {ended.code}: {ended.words[-2000:]}")
    return web.Response(body=ended.output, content_type="application/json")


def _refusal(unseen: wire.PreviewFailed, words: str) -> BadInput:
    match unseen.kind:
        case "ConflictingParameters":
            field = "max_completion_length"
        case "PromptTooLong":
            field = "max_seq_length"
        case "ModelUnavailable" | "NoChatTemplate" | "ChatTemplateFails":
            field = "model_name"
        case _:
            _log.warning("dataset_unseen", kind=unseen.kind, words=words[-4000:])
            field = "model_name"
    return BadInput("The model cannot see the dataset", f"{unseen.kind}: {unseen.message}", field=field)
