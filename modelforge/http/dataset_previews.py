"""Previews and statistics of a dataset: its records, their tokens as a model reads them, and their lengths."""

import asyncio
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from modelforge.admission.preview import (
    DocStride,
    MaxCompletionLength,
    MaxSeqLength,
    ModelName,
    ViewQuery,
    preview_spec,
)
from modelforge.datasets.preview_workers import DEADLINE_SECONDS
from modelforge.datasets.record_pages import RecordPage
from modelforge.errors import BadInput, NotFound
from modelforge.http.datasets import find_dataset, find_uploads
from modelforge.http.plumbing.body import json_response
from modelforge.http.plumbing.disconnect import cancel_on_disconnect
from modelforge.http.plumbing.keys import ADMISSION, LAYOUT, PREVIEW_WORKERS, RECORD_PAGES
from modelforge.http.plumbing.query import GIVEN
from modelforge.http.plumbing.route import REVISION, Count, Query, Route
from modelforge.http.plumbing.visits import CLIENT
from modelforge.layout import Layout
from modelforge.projections.datasets import DatasetSummary, summary_of
from trainer_entry import wire

Shown = Annotated[int, Meta(ge=1, le=100)]
Measured = Annotated[int, Meta(ge=1, le=100_000)]
SearchedText = Annotated[str, Meta(min_length=1, max_length=200)]


class PreviewQuery(ViewQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With how many records are to be shown, after how many others, and what is to stand in them."""

    limit: Shown = 10
    offset: Count = 0
    search: SearchedText | None = None


class StatisticsQuery(ViewQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With how many records are to be measured, at most."""

    sample: Measured = 10_000


async def preview_dataset(request: web.Request) -> web.Response:
    """Show records of a dataset, the first ones by default, and, if a model is named, the tokens that it reads."""
    query = _query(request, PreviewQuery)
    summary = await _dataset(request, query.revision)
    if query.model_name is None:
        path, pages = records_file(request.app[LAYOUT], summary), request.app[RECORD_PAGES]
        page = await asyncio.to_thread(pages.read, path, offset=query.offset, limit=query.limit, search=query.search)
        return json_response(_records_as_they_are(page, summary))
    for name in ("offset", "search"):
        if getattr(query, name):
            raise BadInput(
                f"The query's {name} is for records as they are",
                f"A model is shown the first ones: leave out {name}, or model_name.",
                field=name,
            )
    job = await preview_spec(request.app[ADMISSION], query, query.model_name, summary)
    asked = wire.PreviewRequest(
        job=job,
        revision=summary.revision,
        deadline_seconds=DEADLINE_SECONDS,
        limit=query.limit,
        columns=summary.columns,
    )
    return await _ask_worker(request, asked)


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
    job = await preview_spec(request.app[ADMISSION], query, query.model_name, summary)
    asked = wire.StatisticsRequest(
        job=job, revision=summary.revision, deadline_seconds=DEADLINE_SECONDS, sample=query.sample
    )
    return await _ask_worker(request, asked)


def records_file(layout: Layout, summary: DatasetSummary) -> Path:
    """The file with a dataset's records, one a line."""
    return layout.dataset(summary.content)


_Query = TypeVar("_Query", bound=ViewQuery)


def _query(request: web.Request, kind: type[_Query]) -> _Query:
    return msgspec.convert(request[GIVEN].values, kind)


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


def _records_as_they_are(page: RecordPage, summary: DatasetSummary) -> wire.DatasetPreview:
    return wire.DatasetPreview(
        filename=summary.filename,
        revision=summary.revision,
        format=summary.format,
        num_examples=summary.num_examples,
        records=page.records,
        has_more=page.next_offset is not None,
        columns=summary.columns,
        next_offset=page.next_offset,
    )


async def _ask_worker(request: web.Request, asked: wire.AnyDatasetViewRequest) -> web.Response:
    """The worker's answer, as it is."""
    body = await cancel_on_disconnect(request, request.app[PREVIEW_WORKERS].ask(asked, request[CLIENT]))
    return web.Response(body=body, content_type="application/json")


_VIEW = (
    Query("model_name", ModelName, "The model that is to see the dataset, named as for a training."),
    Query("task", wire.Task, "The task; by default the first that the dataset's format serves."),
    Query("strategy", wire.Strategy, "The strategy; by default the first that the dataset's format serves."),
    Query("provider", wire.Provider, "The provider; by default huggingface."),
    Query("max_seq_length", MaxSeqLength, "Where examples are cut, in tokens; chosen as a training chooses it."),
    Query("truncation", wire.Truncation, "What goes of an example that is too long: right, left or drop."),
    Query("doc_stride", DocStride, "How many tokens the windows over a context share."),
    Query("max_completion_length", MaxCompletionLength, "For rlhf: how much room a prompt leaves."),
    REVISION,
)

ROUTES = (
    Route(
        method="GET",
        path="/api/datasets/{filename}/preview",
        handler=preview_dataset,
        answer=wire.DatasetPreview,
        query=(
            Query("limit", Shown, "How many records, from 1 to 100; 10 by default."),
            Query("offset", Count, "Without a model: how many records stand before them; 0 by default."),
            Query("search", SearchedText, "Without a model: a text that stands in a value of them, in any case."),
            *_VIEW,
        ),
        at_once=64,
        errors=(400, 404, 409, 410, 503),
    ),
    Route(
        method="GET",
        path="/api/datasets/{filename}/statistics",
        handler=measure_dataset,
        answer=wire.DatasetStatistics,
        query=(Query("sample", Measured, "How many records at most; 10000 by default."), *_VIEW),
        at_once=64,
        errors=(400, 404, 409, 410, 503),
    ),
)
