"""The query of a request, read once, by what its route takes: nothing in it is passed over in silence."""

import re
from functools import cache
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from modelforge.errors import BadInput
from modelforge.fields import describe, nearest
from modelforge.http.plumbing.route import Query

_WHOLE = re.compile(r"-?[0-9]{1,19}")
_PAIR = re.compile(r"(\w+)\[((?:(?!\]\[).)+)\]", re.DOTALL)  # a key may have brackets; `a[b][c]` is no pair
_SHOWN = 40


class GivenQuery(Struct, frozen=True):
    """What the query of a request said, by name, each as its own type."""

    values: dict[str, Any]


GIVEN = web.RequestKey("given_query", GivenQuery)


def read_query(request: web.Request, queries: tuple[Query, ...]) -> GivenQuery:
    """The request's query.

    Raises:
        BadInput: a name is unknown, or stands there twice, or its value cannot be used; `field` is the name.
    """
    known = {query.name: query for query in queries}
    values: dict[str, Any] = {}
    for name in request.query:
        if (pair := _PAIR.fullmatch(name)) is not None and (query := known.get(pair[1])) is not None and query.pairs:
            values.setdefault(query.name, {})[pair[2]] = _once(request, name)
            continue
        query = known.get(name)
        if query is None:
            shown = name[:_SHOWN]
            remedy = nearest(name, tuple(known)) if known else "This path takes no query."
            raise BadInput(f"Unknown query parameter {shown!r}", remedy, field=shown)
        texts = request.query.getall(name)
        if len(texts) > 1 and not query.many:
            raise BadInput(f"The query has {name} more than once", "Send it once.", field=name)
        if query.pairs:
            _check_none(query, texts[0])
            values[name] = None
            continue
        read = tuple(_value(query, text) for text in texts)
        values[name] = read if query.many else read[0]
    for query in queries:
        if query.pairs and values.get(query.name) is not None:
            values[query.name] = _pairs(query, values[query.name])
    return GivenQuery(values)


def _once(request: web.Request, name: str) -> str:
    texts = request.query.getall(name)
    if len(texts) > 1:
        raise BadInput(f"The query has {name[:_SHOWN]} more than once", "Send it once.", field=name[:_SHOWN])
    return texts[0]


def _check_none(query: Query, text: str) -> None:
    if text != "null":
        raise BadInput(
            f"The query's {query.name} cannot be used",
            f"{query.name}={text[:_SHOWN]!r}: it is written {query.name}[key]=value; or null, for none.",
            field=query.name,
        )


def _pairs(query: Query, given: dict[str, str]) -> Any:
    try:
        return msgspec.convert(given, query.kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"The query's {query.name} cannot be used", f"{error}.", field=query.name) from error


def _value(query: Query, text: str) -> Any:
    schema = schema_of(query.kind)
    value: str | int = int(text) if schema.get("type") == "integer" and _WHOLE.fullmatch(text) else text
    try:
        return msgspec.convert(value, query.kind)
    except msgspec.ValidationError as error:
        raise BadInput(
            f"The query's {query.name} cannot be used",
            f"{query.name}={text[:_SHOWN]!r}: it takes {describe(schema)}.",
            field=query.name,
        ) from error


@cache
def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON schema of a type that is a text or a number."""
    return msgspec.json.schema(kind)


def int_query(request: web.Request, name: str, default: int, *, maximum: int | None = None) -> int:
    """A whole number from the query. `maximum`: the largest that there is now.

    Raises:
        BadInput: it is larger.
    """
    number: int = request[GIVEN].values.get(name, default)
    if maximum is not None and number > maximum:
        raise BadInput(
            f"The query's {name} is beyond the last", f"{name}={number}: there is none above {maximum}.", field=name
        )
    return number


def optional_int(request: web.Request, name: str) -> int | None:
    """A whole number from the query, if it is there."""
    number: int | None = request[GIVEN].values.get(name)
    return number


def text_query(request: web.Request, name: str) -> str | None:
    """A text from the query, if it is there."""
    text: str | None = request[GIVEN].values.get(name)
    return text
