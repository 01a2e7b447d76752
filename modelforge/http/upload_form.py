"""The form of an upload, read part by part: the file goes to the disk as it comes."""

import asyncio
import hashlib
import os
import re
import warnings
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, TypeVar, get_args

import msgspec
from aiohttp import (
    BadContentDispositionHeader,
    BadContentDispositionParam,
    BodyPartReader,
    MultipartReader,
    hdrs,
    web,
)
from msgspec import Meta, Struct

from modelforge.datasets.validation.process import check_columns_given, check_encoding_given
from modelforge.errors import BadInput, TooLarge
from modelforge.fields import check_label
from modelforge.http.plumbing.body import refuse_twins
from modelforge.http.upload_progress import ProgressReporter
from modelforge.machine.disk_space import check_room
from trainer_entry import wire

_CHUNK_BYTES = 1 << 20
_LONGEST_FIELD = 100
_LONGEST_COLUMNS = 8000
_MOST_PARTS = 10
_PARTS = "'file', and 'task', 'strategy', 'columns' and 'encoding'"
_Word = TypeVar("_Word")
LONGEST_FILENAME = 200
_NO_HEADER = (BadContentDispositionHeader, BadContentDispositionParam)
"""Warnings of aiohttp, which are errors where warnings are."""
# And one of its own doings, by how the network divides a form: as an error it would lose the form.
warnings.filterwarnings("ignore", r"unread_data\(\) is deprecated", DeprecationWarning, r"aiohttp\.multipart")


class UploadForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parts of the form; but for the file, one that is empty says nothing. `columns` is a JSON object."""

    file: bytes
    task: wire.Task | Literal[""] = ""
    strategy: wire.Strategy | Literal[""] = ""
    columns: Annotated[str, Meta(max_length=_LONGEST_COLUMNS)] = ""
    encoding: Annotated[str, Meta(max_length=_LONGEST_FIELD)] = ""


class Upload(Struct):
    """What the form's parts said. `sha256`: of the file."""

    filename: str = ""
    sha256: str = ""
    columns: dict[str, str | list[str]] | None = None
    encoding: str | None = None
    task: wire.Task | None = None
    strategy: wire.Strategy | None = None


async def receive_form(
    request: web.Request,
    scratch: Path,
    limits: tuple[int, int],
    reporter: ProgressReporter,
    purposes: tuple[str, ...] = (),
) -> Upload:
    """What a form says; its file is written to `scratch`.

    `limits`: the bytes that the file may have, and those of the disk that stay free. `purposes`: those of which the
    form names one, if it has to name any.

    Raises:
        BadInput, TooLarge: it cannot be read, or says what nobody takes.
    """
    upload = Upload()
    received = False
    if hdrs.CONTENT_TYPE not in request.headers:
        raise _no_file()
    try:
        parts: MultipartReader = await request.multipart()
        count = 0
        purposed = not purposes
        named: set[str | None] = set()
        while (part := await parts.next()) is not None:
            count += 1
            if not isinstance(part, BodyPartReader) or count > _MOST_PARTS:
                raise BadInput("The form cannot be read", "Send one part called 'file'.", field="file")
            match part.name:
                case "file" if not received:
                    upload.filename = reporter.filename = _filename(part.filename)
                    upload.sha256 = await _write(part, scratch, limits, reporter)
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
                case "purpose" if purposes:
                    purposed = await _one_of(part, purposes) is not None
                case name:
                    raise BadInput(
                        f"Unexpected part {name!r}",
                        f"The form takes one {_PARTS}."
                        if not purposes
                        else f"The form takes one 'purpose', and one {_PARTS}.",
                        field=name,
                    )
            named.add(part.name)
    except (ValueError, AssertionError, *_NO_HEADER) as error:  # what aiohttp raises for a form that is none
        raise BadInput("The form cannot be read", str(error) or "It is cut off.", field="file") from error
    if not received:
        raise _no_file()
    if not purposed:
        raise BadInput(
            "The purpose is missing", f"Send it as the part 'purpose': {' or '.join(purposes)}.", field="purpose"
        )
    return upload


def _no_file() -> BadInput:
    return BadInput("The file is missing", "Send it as a multipart part called 'file'.", field="file")


def _filename(name: str | None) -> str:
    """The client's name for the file: a label, never a path."""
    label = re.split(r"[/\\]", name or "")[-1]
    check_label(label, "file", "file's name")
    label = label.strip()
    if not 0 < len(label) <= LONGEST_FILENAME or label in {".", ".."}:
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
        raise BadInput(f"The part {part.name!r} is too long", "It is one word.", field=part.name)
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


async def _write(part: BodyPartReader, scratch: Path, limits: tuple[int, int], reporter: ProgressReporter) -> str:
    """Write the file to the disk, and give its SHA-256, which is made beside that."""
    size = 0
    limit, reserve = limits
    digest = hashlib.sha256()
    with await asyncio.to_thread(scratch.open, "wb") as file:
        pending = bytearray()
        while chunk := await part.read_chunk(1 << 16):
            size += len(chunk)
            if size > limit:
                raise TooLarge("The file is too large", f"At most {limit} bytes are accepted.")
            pending += chunk
            if len(pending) >= _CHUNK_BYTES:
                await asyncio.to_thread(_append, file, digest, bytes(pending), reserve)
                pending.clear()
                reporter.receive(size)
        await asyncio.to_thread(_append, file, digest, bytes(pending), reserve)
        await asyncio.to_thread(_finish, file)
    return digest.hexdigest()


def _append(file: BinaryIO, digest: "hashlib._Hash", data: bytes, reserve: int) -> None:
    check_room(file.fileno(), reserve, len(data))
    file.write(data)
    digest.update(data)


def _finish(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
