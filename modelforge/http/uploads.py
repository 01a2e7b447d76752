"""Uploads of datasets: streamed to the disk, checked by line, kept by their content."""

import asyncio
import hashlib
import os
import re
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, TypeVar, get_args

import msgspec
from aiohttp import BodyPartReader, MultipartReader, hdrs, web
from msgspec import Meta, Struct

from modelforge.command_handler import Outcome
from modelforge.datasets.validation.process import check_columns_given, check_dataset, check_encoding_given
from modelforge.domain import dataset
from modelforge.domain.compatibility import check_combination, check_format
from modelforge.domain.state import check_key
from modelforge.errors import BadInput, DatasetReport, TooLarge
from modelforge.event_log.sqlite import LogReader
from modelforge.http.plumbing.body import idempotency_key, json_response, refuse_twins
from modelforge.http.plumbing.disconnect import cancel_on_disconnect
from modelforge.http.plumbing.keys import DATASET_STORE, EVENT_LOG, HANDLER, LAYOUT, SETTINGS
from modelforge.http.plumbing.route import Route
from modelforge.http.upload_progress import WATCHERS, Stage, UploadProgress, Watchers
from modelforge.projections.models import megabytes
from trainer_entry import wire

_CHUNK_BYTES = 1 << 20
_LONGEST_FIELD = 100
_REPORT_EVERY_SECONDS = 0.5
_LONGEST_COLUMNS = 8000
_MOST_PARTS = 10
_Word = TypeVar("_Word")
_FILENAME = re.compile(r"[^/\\\x00-\x1f\x7f\ud800-\udfff]{1,200}")


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


class UploadForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parts of the form; but for the file, one that is empty says nothing. `columns` is a JSON object."""

    file: bytes
    task: wire.Task | Literal[""] = ""
    strategy: wire.Strategy | Literal[""] = ""
    columns: Annotated[str, Meta(max_length=_LONGEST_COLUMNS)] = ""
    encoding: Annotated[str, Meta(max_length=_LONGEST_FIELD)] = ""


async def upload_dataset(request: web.Request) -> web.Response:
    """Upload a dataset as multipart form data; the part is called `file`."""
    layout, settings = request.app[LAYOUT], request.app[SETTINGS]
    scratch = layout.temporary / uuid.uuid4().hex
    records = scratch.with_suffix(".records")
    reporter = _ProgressReporter(request.app[WATCHERS], scratch.name, request.content_length)
    try:
        upload = await _receive(request, scratch, settings.max_upload_bytes, reporter)
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
        register = dataset.RegisterDataset(
            filename=upload.filename,
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
        store = request.app[DATASET_STORE]
        async with store.stored(store.places_of(found, scratch, records)):
            outcome = await request.app[HANDLER].submit(register)
        reporter.end("taken")
    except BaseException:
        reporter.end("refused")
        raise
    finally:
        for leftover in (scratch, records):
            await asyncio.to_thread(leftover.unlink, missing_ok=True)
    return json_response(
        Uploaded(
            filename=upload.filename,
            num_examples=found.num_examples,
            validation=found.report,
            format=found.format,
            container=found.container,
            compression=found.compression,
            sha256=found.sha256,
            revision=await request.app[EVENT_LOG].read(partial(_revision, outcome=outcome)),
            size_mb=megabytes(found.size_bytes),
            columns=found.columns,
        )
    )


def _revision(reader: LogReader, outcome: Outcome) -> int:
    """The revision that a command made, or that it found: the last one up to the record after it."""
    revision = 0
    for record in reader.records(until=outcome.position + 1, streams=(outcome.stream,), types=("DatasetUploaded",)):
        if isinstance(record.message, dataset.DatasetUploaded):
            revision = record.message.revision
    return revision


class _Upload(Struct):
    """What the form's parts said. `sha256`: of the file."""

    filename: str = ""
    sha256: str = ""
    columns: dict[str, str | list[str]] | None = None
    encoding: str | None = None
    task: wire.Task | None = None
    strategy: wire.Strategy | None = None


class _ProgressReporter:
    """Reports the progress of one upload to watchers, every half a second at most."""

    def __init__(self, watchers: Watchers, upload: str, content_length: int | None) -> None:
        self._watchers = watchers
        self._upload = upload
        self._content_length = content_length
        self._last = time.monotonic()
        self.filename = ""

    def receive(self, done_bytes: int) -> None:
        """Report the bytes received, if it is time to. The form is a little longer than the file."""
        if time.monotonic() - self._last > _REPORT_EVERY_SECONDS:
            self.report("receiving", done_bytes, self._content_length)

    def report(self, stage: Stage, done_bytes: int, total_bytes: int | None) -> None:
        """Report how far it is."""
        self._last = time.monotonic()
        self._watchers.send(
            UploadProgress(
                upload=self._upload,
                filename=self.filename,
                stage=stage,
                done_bytes=done_bytes,
                total_bytes=total_bytes,
            )
        )

    def end(self, stage: Literal["taken", "refused"]) -> None:
        """Report how it ended."""
        self.report(stage, 0, None)


async def _receive(request: web.Request, scratch: Path, limit: int, reporter: _ProgressReporter) -> _Upload:
    upload = _Upload()
    received = False
    if hdrs.CONTENT_TYPE not in request.headers:
        raise _no_file()
    try:
        parts: MultipartReader = await request.multipart()
        count = 0
        named: set[str | None] = set()
        while (part := await parts.next()) is not None:
            count += 1
            if not isinstance(part, BodyPartReader) or count > _MOST_PARTS:
                raise BadInput("The form cannot be read", "Send one part called 'file'.", field="file")
            match part.name:
                case "file" if not received:
                    upload.filename = reporter.filename = _filename(part.filename)
                    upload.sha256 = await _write(part, scratch, limit, reporter)
                    received = True
                case name if name in named:
                    raise BadInput(f"The part {name!r} is there twice", "Send it once.", field=name)
                case "task":
                    upload.task = await _one_of(part, get_args(wire.Task))
                case "strategy":
                    upload.strategy = await _one_of(part, get_args(wire.Strategy))
                case "columns":
                    upload.columns = await _columns(part)
                case "encoding":
                    upload.encoding = await _encoding(part)
                case name:
                    raise BadInput(
                        f"Unexpected part {name!r}",
                        "The form takes one 'file', and 'task', 'strategy', 'columns' and 'encoding'.",
                        field=name,
                    )
            named.add(part.name)
    except (ValueError, AssertionError) as error:  # what aiohttp raises for a form that is none
        raise BadInput("The form cannot be read", str(error) or "It is cut off.", field="file") from error
    if not received:
        raise _no_file()
    return upload


def _no_file() -> BadInput:
    return BadInput("The file is missing", "Send it as a multipart part called 'file'.", field="file")


def _filename(name: str | None) -> str:
    """The client's name for the file: a label, never a path."""
    label = re.split(r"[/\\]", name or "")[-1].strip()
    if not _FILENAME.fullmatch(label) or label in {".", ".."}:
        raise BadInput("The file has no usable name", "Give the part a filename, as in data.jsonl.", field="file")
    return label


async def _beginning(part: BodyPartReader, size: int) -> bytes:
    """What a part begins with, up to so many bytes, though the network brings it in pieces."""
    data = b""
    while len(data) < size and (chunk := await part.read_chunk(size)):
        data += chunk
    return data[:size]


async def _one_of(part: BodyPartReader, known: tuple[_Word, ...]) -> _Word | None:
    """The one that a part names; an empty part names none."""
    data = await _beginning(part, _LONGEST_FIELD + 1)
    if len(data) > _LONGEST_FIELD:
        raise BadInput(f"The part {part.name!r} is too long", "It names a task or a strategy.", field=part.name)
    value = data.decode(errors="replace")
    if value and value not in known:
        choice = ", ".join(map(str, known))
        raise BadInput(f"Unknown {part.name} {value!r}", f"It takes one of {choice}.", field=part.name)
    return next((word for word in known if word == value), None)


async def _columns(part: BodyPartReader) -> dict[str, str | list[str]] | None:
    """Which columns are which fields; an empty part says nothing."""
    data = await _beginning(part, _LONGEST_COLUMNS + 1)
    if not data.strip():
        return None
    try:
        columns = msgspec.json.decode(data, type=dict[str, str | list[str]])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(
            "The part 'columns' cannot be read",
            f'{error}. It is a JSON object of fields and columns, as in {{"input": "question"}}.',
            field="columns",
        ) from error
    refuse_twins(data)
    check_columns_given(columns)
    return columns


async def _encoding(part: BodyPartReader) -> str | None:
    """What the file's text is in; an empty part says nothing."""
    name = (await _beginning(part, _LONGEST_FIELD)).decode(errors="replace").strip()
    return check_encoding_given(name) if name else None


async def _write(part: BodyPartReader, scratch: Path, limit: int, reporter: _ProgressReporter) -> str:
    """Write the file to the disk, and give its SHA-256, which is made beside that."""
    size = 0
    digest = hashlib.sha256()
    with await asyncio.to_thread(scratch.open, "wb") as file:
        pending = bytearray()
        while chunk := await part.read_chunk(1 << 16):
            size += len(chunk)
            if size > limit:
                raise TooLarge("The file is too large", f"At most {limit} bytes are accepted.")
            pending += chunk
            if len(pending) >= _CHUNK_BYTES:
                await asyncio.to_thread(_append, file, digest, bytes(pending))
                pending.clear()
                reporter.receive(size)
        await asyncio.to_thread(_append, file, digest, bytes(pending))
        await asyncio.to_thread(_finish, file)
    return digest.hexdigest()


def _append(file: BinaryIO, digest: "hashlib._Hash", data: bytes) -> None:
    file.write(data)
    digest.update(data)


def _finish(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


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
