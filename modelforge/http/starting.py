"""What a server answers while it reads its log: that it is well and how far it is, and to all else that it will.

It is an application of its own, which knows no job, no token and no file. It ends as soon as the other one is there.
"""

import html
import sys
from typing import assert_never

from aiohttp import web

from modelforge.errors import ForgeError, LogBeingRead
from modelforge.http.plumbing import openai_errors
from modelforge.http.plumbing.body import json_response
from modelforge.http.plumbing.guard import Guard
from modelforge.http.plumbing.origins import Origins
from modelforge.http.plumbing.problems import problem_of
from modelforge.http.plumbing.request_ids import name_answer
from modelforge.http.plumbing.route import EVENT_STREAM
from modelforge.http.plumbing.security_headers import secure_answer
from modelforge.http.system import Health, Reading
from modelforge.projections.folding import FoldWatch
from modelforge.settings import Settings
from modelforge.version import API_VERSION

AGAIN_SECONDS = 1
_COME_BACK = f"retry: {AGAIN_SECONDS * 1000}\n\n"
"""What an `EventSource` is told: it comes back after a stream that ended, and never after a 503."""
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="refresh" content="2">
<title>ModelForge</title>
<h1>{}</h1>
<p>{}</p>
<p>This page goes on by itself.</p>
</html>
"""


def starting_app(watch: FoldWatch, settings: Settings) -> web.Application:
    """The application; `watch` follows the reading."""
    origins = Origins(settings.allowed_origins)
    guard = Guard(settings.host, settings.allowed_hosts, sys.maxsize, origins)  # no body is read, of whatever size

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            guard.check(request, takes="nothing")
        except ForgeError as error:
            answered = openai_errors.response(request.path, problem_of(error), error)
        else:
            answered = origins.answer_preflight(request) or _answer(request, watch)
            answered.headers["Retry-After"] = str(AGAIN_SECONDS)
        answered.force_close()  # what comes next on this connection is for the other application
        return answered

    app = web.Application()
    app.on_response_prepare.extend((secure_answer, name_answer, origins.mark_answer))
    app.router.add_route("*", "/{path:.*}", answer)
    return app


def work_before(watch: FoldWatch) -> str:
    """What a server has to do before it answers everything, in a sentence."""
    match watch.stage:
        case "upgrading":
            return f"It brings its log to the schema of this release first: {watch.head} records."
        case "loading":
            return f"It reads its snapshot first: {watch.head} parts."
        case "rebuilding":
            return f"It reads its log first: {watch.head - watch.position} records."
        case _:
            assert_never(watch.stage)


def _progress(watch: FoldWatch) -> str:
    match watch.stage:
        case "upgrading":
            return f"It brings its log of {watch.head} records to the schema of this release"
        case "loading":
            return f"It has read {watch.position} of {watch.head} parts of its snapshot"
        case "rebuilding":
            return f"It has read {watch.position} of {watch.head} records"
        case _:
            assert_never(watch.stage)


def _answer(request: web.Request, watch: FoldWatch) -> web.Response:
    if request.path == "/api/health" and request.method in {"GET", "HEAD"}:
        reading = Reading(records=watch.position, of=watch.head, doing=watch.stage)
        return json_response(Health(status="healthy", version=API_VERSION, reading=reading))
    error = LogBeingRead(
        "The server reads its log",
        f"{_progress(watch)}; ask again in a moment. Trainings go on meanwhile.",
    )
    if request.method == "GET" and EVENT_STREAM in request.headers.get("Accept", ""):
        return web.Response(text=_COME_BACK, content_type=EVENT_STREAM, headers={"Cache-Control": "no-store"})
    if request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
        page = _PAGE.format(html.escape(error.message), html.escape(error.detail))
        return web.Response(text=page, status=503, content_type="text/html")
    answered = openai_errors.response(request.path, problem_of(error), error)
    if "x-should-retry" in answered.headers:
        answered.headers["x-should-retry"] = "true"
    return answered
