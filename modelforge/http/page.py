"""The page at `/`: one document, and the modules, styles and signs that it loads, as they lie in `modelforge/web/page`.

It is made in the browser, and knows what the API answers and nothing else. Its files are the same for everyone, and
say nothing of the server: they ask nobody who they are, and the page asks for a token when the API does.
"""

import gzip
import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from aiohttp import web
from msgspec import Struct

from modelforge.errors import NotFound
from modelforge.http.plumbing.route import RequestHeader, Route
from modelforge.http.plumbing.security_headers import PAGE_POLICY

_MEDIA = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".jsonl": "application/jsonl",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
}
_EXAMPLE = "three_lines.jsonl"
_KEPT = "private, no-cache"
"""A browser keeps it, and asks each time whether it is still so: another release has other files."""


class PageFile(Struct, frozen=True):
    """A file of the page, as it is and packed by gzip."""

    content: bytes
    packed: bytes
    media: str

    @property
    def sha256(self) -> str:
        """Of its content."""
        return hashlib.sha256(self.content).hexdigest()


@cache
def page_files() -> dict[str, PageFile]:
    """Every file that a browser may ask for, by its path below the page's folder."""
    package = files("modelforge")
    folder = package / "web" / "page"
    found = [("", file) for file in (*folder.iterdir(), package / "demo" / _EXAMPLE)]
    found += [("vendor/", file) for file in (folder / "vendor").iterdir()]
    return {f"{below}{file.name}": _page_file(file) for below, file in found if _suffix(file) in _MEDIA}


def _page_file(file: Traversable) -> PageFile:
    content = file.read_bytes()
    return PageFile(content, gzip.compress(content, mtime=0), _MEDIA[_suffix(file)])


def _suffix(file: Traversable) -> str:
    return PurePosixPath(file.name).suffix


async def get_page(request: web.Request) -> web.Response:
    """The page: what runs, what was learned, and what to do next."""
    return _answer(request, "index.html")


async def get_page_file(request: web.Request) -> web.Response:
    """A module, a style or a sign of the page, or the example dataset."""
    return _answer(request, request.match_info["page_file"])


async def get_library_file(request: web.Request) -> web.Response:
    """A file of a library that the page uses."""
    return _answer(request, f"vendor/{request.match_info['page_file']}")


def _answer(request: web.Request, path: str) -> web.Response:
    """A file, packed where the client takes that; 304 if it has it already."""
    file = page_files().get(path)
    if file is None:
        raise NotFound(f"The page has no file {path!r}", "Open the page itself, at /.")
    is_packed = "gzip" in request.headers.get("Accept-Encoding", "").lower()
    etag = f'"{file.sha256}{"-gzip" if is_packed else ""}"'
    headers = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": _KEPT, "ETag": etag, "Vary": "Accept-Encoding"}
    if etag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    if is_packed:
        headers["Content-Encoding"] = "gzip"
    body = file.packed if is_packed else file.content
    return web.Response(body=body, content_type=file.media, charset="utf-8", headers=headers)


_LOADED = ("text/javascript", "text/css", "image/svg+xml", "application/jsonl")
_TAKES = (
    RequestHeader("If-None-Match", "ETags; 304 is the answer if the file's is one of them."),
    RequestHeader("Accept-Encoding", "The file comes packed where this has gzip."),
)
_HEADERS = ("ETag",)

ROUTES = (
    Route(
        method="GET",
        path="/",
        handler=get_page,
        answer=None,
        scope="open",
        also=(304,),
        media=("text/html",),
        takes=_TAKES,
        headers=_HEADERS,
    ),
    *(
        Route(
            method="GET",
            path=path,
            handler=handler,
            answer=None,
            scope="open",
            also=(304,),
            errors=(404,),
            media=_LOADED,
            takes=_TAKES,
            headers=_HEADERS,
        )
        for path, handler in (("/page/{page_file}", get_page_file), ("/page/vendor/{page_file}", get_library_file))
    ),
)
