"""How requests are read and answers written: msgspec Structs in, msgspec bytes out."""

import hashlib
from typing import TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from modelforge.domain.idempotency import IdempotencyKey
from modelforge.errors import BadInput
from modelforge.fields import check_label, field_error

_LONGEST_KEY = 255
_LONGEST_NUMBER = 20
_T = TypeVar("_T", bound=Struct)
_encoder = msgspec.json.Encoder()


def json_response(body: Struct, status: int = 200) -> web.Response:
    """A Struct as JSON."""
    return web.Response(body=_encoder.encode(body), status=status, content_type="application/json")


async def read_body(request: web.Request, kind: type[_T]) -> _T:
    """The request's body.

    Raises:
        BadInput: it is no JSON, or not of this kind; the message names the field and what it takes.
    """
    data = await request.read()
    if not data:
        raise BadInput("The body is empty", "Send a JSON object.")
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        problem = field_error(error, kind)
        if problem.field is not None and "regex" in problem.message:
            _check_labelled(data, problem.field)
        raise BadInput(
            problem.message, " ".join(filter(None, (problem.field, problem.remedy))), field=problem.field
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput("The body is not valid JSON", str(error)) from error


def _check_labelled(data: bytes, field: str) -> None:
    """Name the character for which a text fits no pattern, where it is one that does not show."""
    value = msgspec.json.decode(data, type=dict[str, object]).get(field)
    if isinstance(value, str):
        check_label(value, field)


async def idempotency_key(request: web.Request, content: bytes | None = None) -> IdempotencyKey | None:
    """The request's `Idempotency-Key`, bound to what it asks; `content` stands for a body that was streamed.

    Raises:
        BadInput: the key is empty or too long.
    """
    value = request.headers.get("Idempotency-Key")
    if value is None:
        return None
    if not 0 < len(value) <= _LONGEST_KEY or not value.isascii() or not value.isprintable():
        raise BadInput(
            "The Idempotency-Key cannot be used", f"It takes 1 to {_LONGEST_KEY} printable characters (ASCII)."
        )
    asked = hashlib.sha256(f"{request.method} {request.path}\n".encode())
    asked.update(await request.read() if content is None else content)
    return IdempotencyKey(value=value, request_sha256=asked.hexdigest())


def int_query(request: web.Request, name: str, default: int, *, minimum: int = 0, maximum: int = 2**53) -> int:
    """A whole number from the query.

    Raises:
        BadInput: it is none, or out of bounds.
    """
    text = request.query.get(name)
    if text is None:
        return default
    number = whole_number(text)
    if number is None or not minimum <= number <= maximum:
        raise BadInput(
            f"The query's {name} cannot be used",
            f"{name}={text[:40]!r}: it takes a whole number from {minimum} to {maximum}.",
            field=name,
        )
    return number


def whole_number(text: str) -> int | None:
    """The number that a text writes in decimal digits, if it does, and is not absurdly long."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER else None
