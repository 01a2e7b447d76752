"""How requests are read and answers written: msgspec Structs in, msgspec bytes out."""

import hashlib
import json
from typing import TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from modelforge.domain.idempotency import IdempotencyKey
from modelforge.errors import BadInput
from modelforge.fields import check_label, field_error, in_detail

_LONGEST_KEY = 255
_LONGEST_NUMBER = 20
_LARGEST_WHOLE = 2**53
"""Above it not every whole number is a float."""
_T = TypeVar("_T", bound=Struct)
_encoder = msgspec.json.Encoder()


def _number(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() and abs(number) <= _LARGEST_WHOLE else number


_whole_decoder = msgspec.json.Decoder(float_hook=_number)


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
        body = _decode(data, kind)
        refuse_twins(data)  # it goes less deep than what decodes
    except msgspec.ValidationError as error:
        problem = field_error(error, kind)
        if problem.field is not None and "regex" in problem.message:
            _check_labelled(data, problem.field)
        raise BadInput(problem.message, in_detail(problem.field, problem.remedy), field=problem.field) from error
    except RecursionError as error:
        raise BadInput("The body is nested too deeply", "Send fewer objects and lists in each other.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput("The body is not valid JSON", str(error)) from error
    return body


def _check_labelled(data: bytes, field: str) -> None:
    """Name the character for which a text fits no pattern, where it is one that does not show."""
    value = msgspec.json.decode(data, type=dict[str, object]).get(field)
    if isinstance(value, str):
        check_label(value, field)


def _decode(data: bytes, kind: type[_T]) -> _T:
    """The body; 3.0 is a whole number, as JSON has it."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        if ", got `float`" not in str(error):
            raise
        return msgspec.convert(_whole_decoder.decode(data), kind)


def refuse_twins(data: bytes) -> None:
    """Refuse JSON with an object that has a field twice: one of the two would be lost.

    Raises:
        BadInput: which field it is.
    """
    json.loads(data, object_pairs_hook=_refuse_twins)


def _refuse_twins(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise BadInput(f"The field {name!r} is there twice", "Send it once.", field=name)
        seen.add(name)


def key_of(request: web.Request) -> str | None:
    """The request's `Idempotency-Key`.

    Raises:
        BadInput: the key is empty, too long or there twice.
    """
    values = request.headers.getall("Idempotency-Key", [])
    if not values:
        return None
    if len(values) > 1:
        raise BadInput("There are two Idempotency-Keys", "Send one.")
    (value,) = values
    if not 0 < len(value) <= _LONGEST_KEY or not value.isascii() or not value.isprintable():
        raise BadInput(
            "The Idempotency-Key cannot be used", f"It takes 1 to {_LONGEST_KEY} printable characters (ASCII)."
        )
    return value


def refuse_key(request: web.Request, what: str) -> None:
    """Refuse a key where the first answer is not to be had again: it has a secret, which is shown once.

    Raises:
        BadInput: there is one.
    """
    if key_of(request) is not None:
        raise BadInput(f"{what} is shown once, so this request takes no Idempotency-Key", "Send it without one.")


async def idempotency_key(request: web.Request, content: bytes | None = None) -> IdempotencyKey | None:
    """The request's `Idempotency-Key`, bound to what it asks; `content` stands for a body that was streamed."""
    value = key_of(request)
    if value is None:
        return None
    asked = hashlib.sha256(f"{request.method} {request.path}\n".encode())
    asked.update(await request.read() if content is None else content)
    return IdempotencyKey(value=value, request_sha256=asked.hexdigest())


def whole_number(text: str) -> int | None:
    """The number that a text writes in decimal digits, if it does, and is not absurdly long."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER else None
