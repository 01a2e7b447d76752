"""`/metrics`: figures of the server for Prometheus."""

from aiohttp import hdrs, web

from modelforge.http.plumbing.keys import EXPOSITION
from modelforge.http.plumbing.route import RequestHeader, Route


async def get_exposition(request: web.Request) -> web.Response:
    """Figures of the server for Prometheus; OpenMetrics, if that is asked for."""
    body, content_type = request.app[EXPOSITION].answer(request.headers.get(hdrs.ACCEPT, ""))
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})


ROUTES = (
    Route(
        method="GET",
        path="/metrics",
        handler=get_exposition,
        answer=None,
        media=("text/plain", "application/openmetrics-text"),
        takes=(RequestHeader("Accept", "application/openmetrics-text for OpenMetrics; else Prometheus' own text."),),
    ),
)
