"""Files of OpenAI's clients: each is a dataset, and its id stands for what was uploaded then."""

import asyncio
import contextlib
from pathlib import PurePath
from typing import Annotated, Literal

from aiohttp import web
from msgspec import Meta, Struct

from modelforge.errors import Conflict, NotFound
from modelforge.http.datasets import FOR_PARTS, MEDIA_TYPES, download_of, remove_dataset
from modelforge.http.openai.identifiers import dataset_of, file_id, unix_seconds
from modelforge.http.openai.pages import AFTER_ID, page_of
from modelforge.http.plumbing.body import json_response
from modelforge.http.plumbing.files import send
from modelforge.http.plumbing.keys import LAYOUT, PROJECTOR
from modelforge.http.plumbing.query import text_query
from modelforge.http.plumbing.route import Query, Route, limit_to
from modelforge.http.upload_form import LONGEST_FILENAME, UploadForm
from modelforge.http.uploads import take_upload
from modelforge.layout import Layout
from modelforge.projections.datasets import DatasetSummary

_LARGEST_PAGE = 10_000
_SHOWN_HASH = 12
Purpose = Literal["fine-tune"]


class FileForm(UploadForm, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parts of the form: those of an upload, and what it is for."""

    purpose: Purpose


class FileObject(Struct, frozen=True, kw_only=True):
    """A file. `status` is always `processed`: what cannot be trained on is refused when it is uploaded."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Purpose = "fine-tune"
    status: Literal["processed"] = "processed"
    status_details: None = None
    expires_at: None = None


class FileList(Struct, frozen=True, kw_only=True):
    """A page of files."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(Struct, frozen=True, kw_only=True):
    """The file is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


def find_file(request: web.Request, wanted: str) -> DatasetSummary:
    """The dataset that an id of a file stands for.

    Raises:
        NotFound: there is none, or its name stands for another content by now.
    """
    found = dataset_of(request.app[PROJECTOR].read_models.datasets, wanted)
    if found is None:
        raise NotFound("No such file", f"There is no file {wanted[:60]!r}; GET /v1/files lists them.")
    return found


def _object_of(summary: DatasetSummary, layout: Layout) -> FileObject:
    size = round(summary.size_mb * 1_000_000)
    with contextlib.suppress(FileNotFoundError):  # somebody took it away; the size is known to the kilobyte
        size = download_of(summary, layout).path.stat().st_size
    return FileObject(
        id=_id_of(summary), bytes=size, created_at=unix_seconds(summary.uploaded_at), filename=summary.filename
    )


def _id_of(summary: DatasetSummary) -> str:
    return file_id(summary.filename, summary.revision)


async def _answer(request: web.Request, summary: DatasetSummary) -> web.Response:
    return json_response(await asyncio.to_thread(_object_of, summary, request.app[LAYOUT]))


async def create_file(request: web.Request) -> web.Response:
    """Upload a file to train on; it is checked at once, and kept as a dataset."""
    datasets = request.app[PROJECTOR].read_models.datasets

    def name_for(filename: str, sha256: str) -> str:
        """The file's own name; where that stands for another content, one with a part of its hash."""
        there = datasets.get(filename)
        if there is None or there.sha256 == sha256:
            return filename
        ending = "".join(PurePath(filename).suffixes[-2:])
        room = LONGEST_FILENAME - _SHOWN_HASH - 1 - len(ending)
        return f"{filename.removesuffix(ending)[:room]}-{sha256[:_SHOWN_HASH]}{ending}"

    taken = await take_upload(request, purposes=("fine-tune",), name_for=name_for)
    made = datasets.get(taken.filename)
    if made is None:
        raise Conflict(
            "The file was deleted meanwhile",
            f"{taken.filename} was uploaded, and is gone; upload it again, and not with the same Idempotency-Key.",
        )
    return await _answer(request, made)


async def list_files(request: web.Request) -> web.Response:
    """List the files, newest first unless another order is asked for."""
    purpose = text_query(request, "purpose") or "fine-tune"
    datasets = request.app[PROJECTOR].read_models.datasets.values() if purpose == "fine-tune" else ()
    found = sorted(datasets, key=lambda one: one.uploaded_at)
    if text_query(request, "order") != "asc":
        found.reverse()
    page, has_more = page_of(request, found, _id_of, _LARGEST_PAGE)
    layout = request.app[LAYOUT]
    files = await asyncio.to_thread(lambda: [_object_of(one, layout) for one in page])
    first, last = (files[0].id, files[-1].id) if files else (None, None)
    return json_response(FileList(data=files, first_id=first, last_id=last, has_more=has_more))


async def retrieve_file(request: web.Request) -> web.Response:
    """One file."""
    return await _answer(request, find_file(request, request.match_info["file_id"]))


async def retrieve_file_content(request: web.Request) -> web.StreamResponse:
    """The bytes of a file, as they were uploaded."""
    found = find_file(request, request.match_info["file_id"])
    return await send(request, download_of(found, request.app[LAYOUT]))


async def delete_file(request: web.Request) -> web.Response:
    """Delete a file, which is its dataset with all revisions."""
    wanted = request.match_info["file_id"]
    await remove_dataset(request, find_file(request, wanted).filename)
    return json_response(FileDeleted(id=wanted))


ROUTES = (
    Route(
        method="POST",
        path="/v1/files",
        handler=create_file,
        form=FileForm,
        answer=FileObject,
        errors=(400, 409, 413, 507),
    ),
    Route(
        method="GET",
        path="/v1/files",
        handler=list_files,
        answer=FileList,
        query=(
            AFTER_ID,
            limit_to(_LARGEST_PAGE, _LARGEST_PAGE),
            Query("order", Literal["asc", "desc"], "By the time of the upload; desc by default."),
            Query("purpose", Annotated[str, Meta(max_length=100)], "Only files for this; all are for fine-tune."),
        ),
        errors=(400,),
    ),
    Route(method="GET", path="/v1/files/{file_id}", handler=retrieve_file, answer=FileObject, errors=(404,)),
    Route(method="DELETE", path="/v1/files/{file_id}", handler=delete_file, answer=FileDeleted, errors=(404, 409, 507)),
    Route(
        method="GET",
        path="/v1/files/{file_id}/content",
        handler=retrieve_file_content,
        answer=None,
        errors=(404, 416),
        also=(206, 304),
        media=tuple(MEDIA_TYPES.values()),
        headers=("Accept-Ranges", "ETag"),
        takes=FOR_PARTS,
    ),
)
