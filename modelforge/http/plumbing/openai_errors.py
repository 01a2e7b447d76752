"""Errors in the shape that OpenAI's clients read, for the paths under /v1."""

from http import HTTPStatus

import msgspec
from aiohttp import web
from msgspec import Struct

from modelforge.errors import ContextExceeded, ModelNotFound
from modelforge.http.plumbing import problems
from modelforge.http.plumbing.problems import Problem

PREFIX = "/v1/"
_FINAL = frozenset(
    {HTTPStatus.CONFLICT, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE}
    | {HTTPStatus.INSUFFICIENT_STORAGE}
)
"""What the clients would ask again by themselves, to no other end: it says what has to be done first."""
_RETRY = "x-should-retry"


class ErrorDetail(Struct, frozen=True, kw_only=True):
    """What went wrong. `param`: the part of the request to change, where one is to blame."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Struct, frozen=True, kw_only=True):
    """Every answer under /v1 that is not a success."""

    error: ErrorDetail


def is_asked(path: str) -> bool:
    """Whether a path is one of this surface."""
    return path.startswith(PREFIX)


def answer_of(problem: Problem, error: Exception | None = None) -> ErrorAnswer:
    """A problem as OpenAI's clients read it; what else was found stands in the message. `error`: what it comes of."""
    if isinstance(error, web.HTTPNotFound):
        problem = msgspec.structs.replace(problem, error="This path of OpenAI's is not kept here", detail=_KEPT)
    message = problem.error if problem.detail in {"", problem.error} else f"{problem.error}: {problem.detail}"
    if problem.validation:
        lines = (
            f" Line {one.line}{'' if one.field is None else f', {one.field}'}: {one.message}"
            for one in problem.validation.errors[:_SHOWN_LINES]
        )
        message += "".join(line for line in lines if line.strip() not in message)
    if problem.problems:
        message += "".join(
            f" {one.message}: {one.remedy}" for one in problem.problems[:_SHOWN_LINES] if one.message != problem.error
        )
    kind, code = _names(problem.status_code)
    if isinstance(error, ContextExceeded):
        code = "context_length_exceeded"
    param = problem.field or None
    if isinstance(error, ModelNotFound):
        param, code = "model", "model_not_found"
    return ErrorAnswer(error=ErrorDetail(message=message, type=kind, param=param, code=code))


_KEPT = "docs/openai.md names those that are, and GET /api/openapi.json lists them."
_SHOWN_LINES = 10


def _names(status: int) -> tuple[str, str | None]:
    """The type and the code of a status, as OpenAI has them."""
    match status:
        case HTTPStatus.UNAUTHORIZED:
            return "invalid_request_error", "invalid_api_key"
        case HTTPStatus.FORBIDDEN:
            return "permission_error", None
        case HTTPStatus.NOT_FOUND:
            return "invalid_request_error", "not_found"
        case HTTPStatus.CONFLICT:
            return "conflict_error", None
        case HTTPStatus.TOO_MANY_REQUESTS:
            return "rate_limit_error", "rate_limit_exceeded"
        case HTTPStatus.INSUFFICIENT_STORAGE:
            return "server_error", "storage_full"
        case _:
            return ("server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"), None


def response(path: str, problem: Problem, error: Exception | None = None) -> web.Response:
    """The problem as an answer, in the shape of the surface that was asked."""
    if not is_asked(path):
        return problems.response(problem)
    answer = web.Response(
        body=msgspec.json.encode(answer_of(problems.as_text(problem), error)),
        status=problem.status_code,
        content_type="application/json",
    )
    if problem.status_code in _FINAL:
        answer.headers[_RETRY] = "false"
    return answer
