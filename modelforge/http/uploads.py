"""Uploads of datasets: streamed to the disk, checked by line, kept by their content."""

import asyncio
import uuid
from collections.abc import Callable
from functools import partial
from typing import Literal

import msgspec
from aiohttp import web
from msgspec import Struct

from modelforge.command_handler import Outcome
from modelforge.datasets.validation.process import check_dataset
from modelforge.datasets.validation.protocol import ValidDataset
from modelforge.domain import dataset
from modelforge.domain.compatibility import check_combination
from modelforge.domain.purposes import check_format
from modelforge.domain.state import check_key
from modelforge.errors import DatasetReport
from modelforge.event_log.sqlite import LogReader
from modelforge.http.plumbing.body import idempotency_key, json_response
from modelforge.http.plumbing.disconnect import cancel_on_disconnect
from modelforge.http.plumbing.identities import actor_of
from modelforge.http.plumbing.keys import DATASET_STORE, EVENT_LOG, HANDLER, LAYOUT, SETTINGS
from modelforge.http.plumbing.route import Route
from modelforge.http.upload_form import UploadForm, receive_form
from modelforge.http.upload_progress import WATCHERS, ProgressReporter
from modelforge.machine.disk_space import check_room
from modelforge.projections.models import megabytes
from trainer_entry import wire


class Uploaded(Struct, frozen=True, kw_only=True):
    """The dataset that was taken in, and what the check found."""

    status: Literal["uploaded"] = "uploaded"
    filename: str
    num_examples: int
    validation: DatasetReport
    format: wire.DatasetFormat
    container: wire.Container
    compression: wire.Compression | None
    sha256: str
    revision: int
    size_mb: float
    columns: wire.FieldNames


class Taken(Struct, frozen=True, kw_only=True):
    """A dataset that was taken in: its name, what its check found, and the command that registered it."""

    filename: str
    found: ValidDataset
    outcome: Outcome


def _as_it_was_sent(filename: str, _sha256: str) -> str:
    return filename


async def take_upload(
    request: web.Request,
    *,
    purposes: tuple[str, ...] = (),
    name_for: Callable[[str, str], str] = _as_it_was_sent,
) -> Taken:
    """Receive a form, check its file and register it as a dataset.

    `purposes`: those that the form has to name one of, if any. `name_for`: what the dataset is called, by the name that
    the file came with and its SHA-256.

    Raises:
        ForgeError: the form, the file or its records cannot be used.
    """
    layout, settings = request.app[LAYOUT], request.app[SETTINGS]
    scratch = layout.temporary / uuid.uuid4().hex
    records = scratch.with_suffix(".records")
    reporter = ProgressReporter(request.app[WATCHERS], scratch.name, request.content_length)
    reserve = settings.reserve_disk_bytes
    try:
        await asyncio.to_thread(check_room, layout.temporary, reserve, request.content_length or 0)
        upload = await receive_form(request, scratch, (settings.max_upload_bytes, reserve), reporter, purposes)
        check_combination(
            upload.task or "text-generation", upload.strategy or "sft", "huggingface", wire.TrainingParameters()
        )
        checking = check_dataset(
            scratch,
            "file",
            filename=upload.filename,
            records=records,
            limit=settings.max_upload_bytes,
            columns=upload.columns,
            encoding=upload.encoding,
            sha256=upload.sha256,
            reserve=reserve,
            on_progress=lambda progress: reporter.report(progress.stage, progress.done_bytes, progress.total_bytes),
        )
        found = await cancel_on_disconnect(request, checking)
        check_format(found.format, upload.task, upload.strategy, "file")
        asked = f"{upload.filename}\n{upload.task or ''}\n{upload.strategy or ''}\n{found.sha256}"
        if upload.columns is not None:
            asked += f"\n{msgspec.json.encode(upload.columns, order='sorted').decode()}"
        if upload.encoding is not None:
            asked += f"\nencoding {upload.encoding}"
        key = await idempotency_key(request, asked.encode())
        check_key(request.app[HANDLER].state, key)
        store = request.app[DATASET_STORE]
        async with store.stored(store.places_of(found, scratch, records)):
            filename = name_for(upload.filename, found.sha256)  # nobody else takes it until it is recorded
            register = dataset.RegisterDataset(
                filename=filename,
                sha256=found.sha256,
                format=found.format,
                num_examples=found.num_examples,
                size_bytes=found.size_bytes,
                container=found.container,
                compression=found.compression,
                columns=found.columns.mapping,
                fields=found.columns,
                has_tools=found.has_tools,
                records_sha256=found.records_sha256,
                records_bytes=found.records_bytes,
                warnings=found.report.warnings,
                warning_count=found.report.warning_count,
                key=key,
            )
            outcome = await request.app[HANDLER].submit(register, actor=actor_of(request))
        reporter.end("taken")
    except BaseException:
        reporter.end("refused")
        raise
    finally:
        for leftover in (scratch, records):
            await asyncio.to_thread(leftover.unlink, missing_ok=True)
    return Taken(filename=filename, found=found, outcome=outcome)


async def upload_dataset(request: web.Request) -> web.Response:
    """Upload a dataset as multipart form data; the part is called `file`."""
    taken = await take_upload(request)
    found = taken.found
    return json_response(
        Uploaded(
            filename=taken.filename,
            num_examples=found.num_examples,
            validation=found.report,
            format=found.format,
            container=found.container,
            compression=found.compression,
            sha256=found.sha256,
            revision=await request.app[EVENT_LOG].read(partial(revision_of, outcome=taken.outcome)),
            size_mb=megabytes(found.size_bytes),
            columns=found.columns,
        )
    )


def revision_of(reader: LogReader, outcome: Outcome) -> int:
    """The revision that a command made, or that it found: the last one up to the record after it."""
    revision = 0
    for event in outcome.events:
        if isinstance(event, dataset.DatasetUploaded):
            return event.revision
    for record in reader.records(until=outcome.position + 1, streams=(outcome.stream,), types=("DatasetUploaded",)):
        if isinstance(record.message, dataset.DatasetUploaded):
            revision = record.message.revision
    return revision


ROUTES = (
    Route(
        method="POST",
        path="/api/upload_dataset",
        handler=upload_dataset,
        form=UploadForm,
        answer=Uploaded,
        errors=(400, 409, 413, 507),
    ),
)
