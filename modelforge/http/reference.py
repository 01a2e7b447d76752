"""The API to read: a page that shows `openapi.json`, by Swagger UI."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from modelforge.http.plumbing.route import Route
from modelforge.http.plumbing.security_headers import PAGE_POLICY
from modelforge.http.plumbing.web_files import web_file

_POLICY = PAGE_POLICY.replace("img-src 'self'", "img-src 'self' data:")
"""Swagger UI's own signs stand in its style, as data."""
_KEPT = "private, max-age=3600"
"""A browser may keep what is the same for each who asks, and large."""


async def get_reference(_request: web.Request) -> web.Response:
    """The API to read, and to try, in a browser."""
    return web.Response(
        body=web_file("reference.html"),
        content_type="text/html",
        charset="utf-8",
        headers={"Content-Security-Policy": _POLICY},
    )


async def get_reference_script(_request: web.Request) -> web.Response:
    """The script of that page."""
    return _file("reference.js", "text/javascript")


async def get_swagger_ui(_request: web.Request) -> web.Response:
    """Swagger UI, which that page runs."""
    return _file("swagger-ui/swagger-ui-bundle.js", "text/javascript")


async def get_swagger_ui_style(_request: web.Request) -> web.Response:
    """The style of Swagger UI."""
    return _file("swagger-ui/swagger-ui.css", "text/css")


def _file(name: str, media: str) -> web.Response:
    return web.Response(body=web_file(name), content_type=media, charset="utf-8", headers={"Cache-Control": _KEPT})


def _route(path: str, handler: Callable[[web.Request], Awaitable[web.Response]], media: str) -> Route:
    return Route(method="GET", path=path, handler=handler, answer=None, media=(media,))


ROUTES = (
    _route("/api/docs", get_reference, "text/html"),
    _route("/api/docs/reference.js", get_reference_script, "text/javascript"),
    _route("/api/docs/swagger-ui-bundle.js", get_swagger_ui, "text/javascript"),
    _route("/api/docs/swagger-ui.css", get_swagger_ui_style, "text/css"),
)
