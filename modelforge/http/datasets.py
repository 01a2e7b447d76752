"""The datasets that were uploaded: what they are, their bytes, and their end."""

from functools import partial
from itertools import dropwhile, islice
from typing import Literal

from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from modelforge.domain import dataset
from modelforge.errors import BadInput, FilesKept, NotFound
from modelforge.http.plumbing.body import idempotency_key, json_response
from modelforge.http.plumbing.files import Download, send
from modelforge.http.plumbing.identities import actor_of
from modelforge.http.plumbing.keys import EVENT_LOG, HANDLER, LAYOUT, PROJECTOR
from modelforge.http.plumbing.long_lists import list_response
from modelforge.http.plumbing.query import int_query, optional_int, text_query
from modelforge.http.plumbing.route import REVISION, Query, RequestHeader, Route, limit_if_asked
from modelforge.layout import Layout
from modelforge.projections.datasets import DatasetDetails, DatasetSummary, Upload, details_of, uploads_of
from trainer_entry import wire

_LARGEST_PAGE = 1000

MEDIA_TYPES: dict[wire.Container | wire.Compression, str] = {
    "jsonl": "application/x-ndjson",
    "json": "application/json",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "gzip": "application/gzip",
    "zstd": "application/zstd",
    "zip": "application/zip",
}


class DatasetList(Struct, frozen=True, kw_only=True):
    """The uploaded datasets. `has_more`: of a page, whether there is another."""

    datasets: list[DatasetSummary]
    has_more: bool | UnsetType = UNSET


class DatasetDeleted(Struct, frozen=True, kw_only=True):
    """The dataset is gone, with its files."""

    status: Literal["deleted"] = "deleted"
    message: str = "Dataset deleted successfully"


def find_dataset(request: web.Request) -> DatasetSummary:
    """The dataset in the path, as its name stands for now.

    Raises:
        NotFound: there is none of that name.
    """
    filename = request.match_info["filename"]
    summary = request.app[PROJECTOR].read_models.datasets.get(filename)
    if summary is None:
        raise dataset.no_such_dataset(filename)
    return summary


async def find_uploads(request: web.Request) -> tuple[Upload, list[Upload]]:
    """The revision that the query asks for, by default the last one; and all of the dataset in the path.

    Raises:
        NotFound: there is no such dataset, or revision.
    """
    filename = find_dataset(request).filename
    uploads = await request.app[EVENT_LOG].read(partial(uploads_of, filename=filename))
    if not uploads:  # it was deleted meanwhile
        raise dataset.no_such_dataset(filename)
    wanted = int_query(request, "revision", uploads[-1].event.revision)
    for upload in uploads:
        if upload.event.revision == wanted:
            return upload, uploads
    there = ", ".join(str(upload.event.revision) for upload in uploads[-20:])
    raise NotFound("No such revision", f"{filename} has no revision {wanted}; there are {there}.")


async def list_datasets(request: web.Request) -> web.StreamResponse:
    """List the uploaded datasets: all of them, or a page of those after one."""
    datasets = request.app[PROJECTOR].read_models.datasets
    after, limit = text_query(request, "after"), optional_int(request, "limit")
    if after is not None and after not in datasets:
        raise BadInput("Unknown dataset in the query", f"after={after[:60]!r}: the name of a dataset.", field="after")
    later = iter(datasets.values())
    if after is not None:
        later = islice(dropwhile(lambda one: one.filename != after, later), 1, None)
    page = [*islice(later, limit)]
    has_more = UNSET if limit is None else next(later, None) is not None
    return await list_response(request, DatasetList(datasets=[], has_more=has_more), "datasets", page)


async def get_dataset(request: web.Request) -> web.Response:
    """One dataset, with what its check found and what it can be trained on for."""
    shown, uploads = await find_uploads(request)
    contents = {one.event.sha256 for one in uploads}
    trained = request.app[PROJECTOR].indexes.trained_on(shown.event.filename, contents)
    return json_response(details_of(shown, uploads, trained))


async def download_dataset(request: web.Request) -> web.StreamResponse:
    """The bytes of a dataset, as they were uploaded."""
    event = (await find_uploads(request))[0].event
    return await send(request, download_of(event, request.app[LAYOUT]))


def download_of(shown: dataset.CheckedFile | DatasetSummary, layout: Layout) -> Download:
    """The file of a dataset as it was uploaded."""
    made = shown.records_sha256 is not None
    return Download(
        path=layout.upload(shown.sha256) if made else layout.dataset(shown.sha256),
        filename=shown.filename,
        media_type=MEDIA_TYPES[shown.compression or shown.container],
        etag=shown.sha256,
    )


async def remove_dataset(request: web.Request, filename: str) -> None:
    """Delete a dataset; its files are gone when this returns, but for those that another dataset has too.

    Raises:
        Conflict: an active job trains on it.
        FilesKept: it is off the list, and its files could not be removed.
    """
    handler, key = request.app[HANDLER], await idempotency_key(request)
    outcome = await handler.submit(dataset.DeleteDataset(filename=filename, key=key), actor=actor_of(request))
    files = tuple(file for event in outcome.events if isinstance(event, dataset.DatasetDeleted) for file in event.files)
    await request.app[PROJECTOR].until(lambda: handler.state.datasets[filename].is_settled(files))
    kept = handler.state.datasets[filename].files_kept
    if kept is not None:
        raise FilesKept(
            "The dataset is off the list, but files of it are still there", f"{kept}. Each start tries again."
        )


async def delete_dataset(request: web.Request) -> web.Response:
    """Delete a dataset; its files are gone when this answers, but for those that another dataset has too."""
    await remove_dataset(request, find_dataset(request).filename)
    return json_response(DatasetDeleted())


FOR_PARTS = (
    RequestHeader("Range", "One range of bytes, as bytes=0-99; any other is passed over."),
    RequestHeader("If-Range", "The ETag that the range is of; the whole file is the answer if it has another."),
    RequestHeader("If-None-Match", "ETags; 304 is the answer if the file's is one of them."),
)

ROUTES = (
    Route(
        method="GET",
        path="/api/datasets",
        handler=list_datasets,
        answer=DatasetList,
        query=(limit_if_asked(_LARGEST_PAGE), Query("after", str, "Go on after the dataset of this name.")),
        errors=(400,),
    ),
    Route(
        method="GET",
        path="/api/datasets/{filename}",
        handler=get_dataset,
        answer=DatasetDetails,
        query=(REVISION,),
        errors=(400, 404, 410),
    ),
    Route(
        method="DELETE",
        path="/api/datasets/{filename}",
        handler=delete_dataset,
        answer=DatasetDeleted,
        errors=(404, 409, 507),
    ),
    Route(
        method="GET",
        path="/api/datasets/{filename}/download",
        handler=download_dataset,
        answer=None,
        query=(REVISION,),
        errors=(400, 404, 410, 416),
        also=(206, 304),
        media=tuple(MEDIA_TYPES.values()),
        headers=("Accept-Ranges", "ETag"),
        takes=FOR_PARTS,
    ),
)
