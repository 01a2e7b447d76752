"""Files as they lie on the disk, whole or in part (RFC 9110), read in threads: the loop waits for no disk."""

import asyncio
import re
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from aiohttp import web
from msgspec import Struct

from modelforge.errors import NotFound
from modelforge.http.plumbing.openai_errors import response
from modelforge.http.plumbing.problems import of_status

_CHUNK_BYTES = 1 << 20
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


class Download(Struct, frozen=True, kw_only=True):
    """A file to send. `filename`: what the client may call it. `etag`: the SHA-256 of its content."""

    path: Path
    filename: str
    media_type: str
    etag: str


async def send(request: web.Request, download: Download) -> web.StreamResponse:
    """Send a file, or the part of it that is asked for, or nothing where the client has it.

    Raises:
        NotFound: it is no longer there.
    """
    headers = {"ETag": f'"{download.etag}"', "Accept-Ranges": "bytes"}
    had = request.headers.get("If-None-Match", "")
    if had.strip() == "*" or f'"{download.etag}"' in had:
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    try:
        file = await asyncio.to_thread(download.path.open, "rb")
    except FileNotFoundError as error:
        detail = f"The file of {download.filename} is gone; upload the same bytes again: they go to the same place."
        raise NotFound("The file is missing", detail) from error
    try:
        return await _send_open(request, download, file, headers)
    finally:
        await asyncio.to_thread(file.close)


async def _send_open(
    request: web.Request, download: Download, file: BinaryIO, headers: dict[str, str]
) -> web.StreamResponse:
    size = await asyncio.to_thread(file.seek, 0, 2)
    wanted = _wanted(request, download.etag, size)
    if wanted is not None and not wanted:
        problem = of_status(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"The file has {size} bytes.")
        refusal = response(request.path, problem)
        refusal.headers["Content-Range"] = f"bytes */{size}"
        return refusal
    headers["Content-Type"] = download.media_type
    headers["Content-Disposition"] = disposition(download.filename)
    headers["X-Content-Type-Options"] = "nosniff"
    sent = range(size) if wanted is None else wanted
    if wanted is not None:
        headers["Content-Range"] = f"bytes {sent.start}-{sent.stop - 1}/{size}"
    answer = web.StreamResponse(status=HTTPStatus.OK if wanted is None else HTTPStatus.PARTIAL_CONTENT, headers=headers)
    answer.content_length = left = len(sent)
    await asyncio.to_thread(file.seek, sent.start)
    await answer.prepare(request)
    while left:
        chunk = await asyncio.to_thread(_read, file, min(left, _CHUNK_BYTES))
        left -= len(chunk)
        await answer.write(chunk)
    await answer.write_eof()
    return answer


def _read(file: BinaryIO, size: int) -> bytes:
    chunk = file.read(size)
    if not chunk:
        raise OSError(f"{file.name} is shorter than it was")
    return chunk


def _wanted(request: web.Request, etag: str, size: int) -> range | None:
    """The bytes that are asked for; None for all of them, an empty range where there are none such.

    A range that cannot be read, or is of several parts, is passed over, as the standard has it.
    """
    only_if = request.headers.get("If-Range")
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    if match is None or (only_if is not None and only_if != f'"{etag}"'):
        return None
    first, last = match.groups()
    if not first:
        return range(max(size - int(last), 0), size) if last else None
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)


def disposition(filename: str) -> str:
    """The header that names a file (RFC 6266): once for clients of today, and once in ASCII for others."""
    plain = re.sub(r"[^A-Za-z0-9 ._()+,=@-]", "_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
