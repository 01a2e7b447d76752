"""What a server answers, as its clients have it: a Struct, or a refusal."""

from typing import TypeVar

import msgspec
from msgspec import Struct

from modelforge.errors import DatasetReport, ForgeError, Refusal

_T = TypeVar("_T", bound=Struct)


class RequestRefused(ForgeError):
    """The server refused, with a status code, or cannot be reached."""

    def __init__(
        self,
        message: str,
        detail: str = "",
        *,
        status: int | None = None,
        field: str | None = None,
        refusals: tuple[Refusal, ...] = (),
        validation: DatasetReport | None = None,
    ) -> None:
        super().__init__(message, detail)
        self.status = status
        self.field = field
        self.refusals = refusals
        self.validation = validation


class ServerStarts(RequestRefused):
    """The server reads its log first; nothing was done, and it will answer."""


class Problem(Struct):
    """An answer that is not a success, as far as a client reads it."""

    error: str
    detail: str
    field: str | None = None
    problems: tuple[Refusal, ...] = ()
    validation: DatasetReport | None = None


def decoded(data: bytes, kind: type[_T], url: str, status: int = 200) -> _T:
    """An answer of the server at `url`, as a Struct.

    Raises:
        RequestRefused: it is no such answer.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestRefused(
            "The answer cannot be read", f"{url} answered {status}: is it a ModelForge? {error}"
        ) from error


def refusal_of(problem: Problem, status: int, *, starts: bool = False) -> RequestRefused:
    """What is raised for such an answer. `starts`: it says when to ask again, as a server does that starts."""
    return (ServerStarts if starts else RequestRefused)(
        problem.error,
        problem.detail,
        status=status,
        field=problem.field,
        refusals=problem.problems,
        validation=problem.validation,
    )
