"""Errors as HTTP answers: the only place that knows status codes. Every one has the same shape."""

from http import HTTPStatus

import msgspec
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError
from msgspec import UNSET, Struct, UnsetType

from modelforge.errors import (
    NO_ROOM,
    BadInput,
    Conflict,
    DatasetReport,
    DirectoryInUse,
    Forbidden,
    ForgeError,
    InvalidDataset,
    LogBeingRead,
    NotFound,
    PlaygroundFailed,
    Refusal,
    SegmentAway,
    SettingsInvalid,
    StorageFull,
    TooLarge,
    TooManyRequests,
    TooMuchWork,
    TrainersMissing,
    Unauthorized,
    UnknownHost,
    WrongContentType,
)

_log = structlog.get_logger()


class Problem(Struct, frozen=True, kw_only=True):
    """Every answer that is not a success. `field` names the part of the request to change, if it is one.

    `problems`: this one and all others, where several were found at once.
    """

    error: str
    detail: str
    status_code: int
    field: str | UnsetType = UNSET
    validation: DatasetReport | UnsetType = UNSET
    problems: tuple[Refusal, ...] | UnsetType = UNSET


def status_of(error: ForgeError) -> int:
    """The status code of an error."""
    match error:
        case BadInput() | SettingsInvalid():
            return 400
        case Unauthorized():
            return 401
        case Forbidden():
            return 403
        case NotFound():
            return 404
        case Conflict() | DirectoryInUse() | PlaygroundFailed():
            return 409
        case SegmentAway():
            return 410
        case TooLarge():
            return 413
        case WrongContentType():
            return 415
        case UnknownHost():
            return 421
        case TooManyRequests():
            return 429
        case TooMuchWork() | TrainersMissing() | LogBeingRead():
            return 503
        case StorageFull():
            return 507
        case _:
            return 500  # ours to mend, not the client's


def problem_of(error: Exception, request_id: str | None = None) -> Problem:
    """The problem that is answered for an error. That of an unforeseen one has no path, stack or secret.

    `request_id`: under which the log has the trace of such a one.
    """
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        error = StorageFull("No space is left on the disk", "Free some space and try again; nothing was changed.")
    match error:
        case ForgeError():
            return Problem(
                error=error.message,
                detail=error.detail or error.message,
                status_code=status_of(error),
                field=(error.field or UNSET) if isinstance(error, BadInput) else UNSET,
                validation=error.report if isinstance(error, InvalidDataset) else UNSET,
                problems=error.refusals or UNSET,
            )
        case web.HTTPException():
            return of_status(error.status, _detail(error))
        case RequestPayloadError() | HttpProcessingError():
            return CUT_OFF
        case _:
            _log.error("request_failed", request_id=request_id, exc_info=error)
            return of_status(500, "The server failed on this request; its log has the details.")


def of_status(status: int, detail: str) -> Problem:
    """A problem that has no error of ours: its title is the status code's."""
    return Problem(error=HTTPStatus(status).phrase, detail=detail, status_code=status)


CUT_OFF = of_status(400, "The body is cut off, or not what its headers say.")
"""The problem for a client that broke off."""


def _detail(error: web.HTTPException) -> str:
    match error:
        case web.HTTPMethodNotAllowed():
            return f"{error.method} is not allowed here; allowed: {', '.join(sorted(error.allowed_methods))}."
        case web.HTTPRequestEntityTooLarge():
            return "The body is larger than the server accepts."
        case web.HTTPNotFound():
            return "There is no such path; GET /api/openapi.json lists them all."
        case web.HTTPBadRequest():  # aiohttp's own, of a WebSocket that is none
            return (error.text or error.reason).partition("\n")[0]
        case _:
            return error.reason or HTTPStatus(error.status).phrase


def body_of(problem: Problem) -> bytes:
    """The problem as JSON."""
    return msgspec.json.encode(as_text(problem))


def as_text(problem: Problem) -> Problem:
    """The problem without what is no text: bytes that came in with a header may stand in the message."""
    return msgspec.structs.replace(
        problem, **{name: _text(getattr(problem, name)) for name in ("error", "detail", "field")}
    )


def _text(value: str | UnsetType) -> str | UnsetType:
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def response(problem: Problem) -> web.Response:
    """The problem as an answer."""
    return web.Response(body=body_of(problem), status=problem.status_code, content_type="application/json")
