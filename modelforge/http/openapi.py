"""The API as an OpenAPI 3.1 document, made from the routes and their message types."""

import re
import sys
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw, Struct

from modelforge.http.plumbing.openai_errors import ErrorAnswer, is_asked
from modelforge.http.plumbing.problems import Problem
from modelforge.http.plumbing.query import schema_of
from modelforge.http.plumbing.request_check import NoBody
from modelforge.http.plumbing.route import PATH_KINDS, Route, Streamed
from modelforge.http.routes import ROUTES
from modelforge.parameter_meanings import MEANINGS
from modelforge.version import VERSION

EXAMPLES = Path(__file__).with_name("openapi_examples.json")
"""What was asked and answered once, by the name of the Struct: `make examples` writes it."""
_REF = "#/components/schemas/{name}"
_ALWAYS = (400, 401, 403, 408, 413, 415, 417, 421, 429, 500, 503)
"""What every request can come to: its query, body, origin, size, encoding, Expect or Host is none that is taken."""
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key and request get the first answer again.",
    "schema": {"type": "string", "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
}
_TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token of `modelforge token create`; on the server's own machine none, unless there is one.",
}
_BYTES = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
_ONLY_PYTHON = "(?!\\n)"
"""In a pattern, after `$`: elsewhere that is the end of the text and nothing else."""
_NAMES = {
    "job_id": ("job_id", "jobs/0/job_id"),
    "model_id": ("id", "model_id", "models/0/id"),
    "filename": ("filename", "datasets/0/filename"),
    "name": ("tokens/0/name",),
    "file_id": (),
    "fine_tuning_job_id": (),
    "response_id": (),
    "model": (),
    "webhook_endpoint_id": (),
}
"""The fields of answers, as JSON pointers, in which the names of paths stand."""


def document() -> Raw:
    """The document as JSON."""
    types: list[type[Struct]] = [Problem, ErrorAnswer, NoBody]
    for route in ROUTES:
        named = (route.body, route.form, route.answer, *(streamed.data for streamed in route.streams))
        types.extend(kind for kind in named if kind is not None and kind not in types)
    schemas, components = msgspec.json.schema_components(types, schema_hook=_schema, ref_template=_REF)
    references = dict(zip(types, schemas, strict=True))
    for schema in components.values():
        _tell_meanings(schema.get("properties", {}))
    paths: dict[str, dict[str, Any]] = {}
    rooms: dict[str, str] = {}
    for route in ROUTES:
        rooms[route.handler.__module__] = (sys.modules[route.handler.__module__].__doc__ or "").partition("\n")[0]
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, references)
    return Raw(
        msgspec.json.encode(
            _everywhere(
                {
                    "openapi": "3.1.0",
                    "info": {
                        "title": "ModelForge",
                        "version": VERSION,
                        "summary": "Fine-tune language models on your own machine.",
                        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
                    },
                    "tags": [{"name": _tag(name), "description": text} for name, text in rooms.items()],
                    "paths": paths,
                    "components": {
                        "schemas": components,
                        "examples": {name: {"value": example} for name, example in _examples().items()},
                        "securitySchemes": {"token": _TOKEN},
                    },
                    "security": [{"token": []}, {}],
                }
            )
        )
    )


@cache
def _examples() -> dict[str, Raw]:
    return msgspec.json.decode(EXAMPLES.read_bytes(), type=dict[str, Raw])


def _example(kind: type[Struct]) -> dict[str, Any]:
    """What stands beside the schema of a Struct of which there is an example."""
    if kind.__name__ not in _examples():
        return {}
    return {"examples": {"real": {"$ref": f"#/components/examples/{kind.__name__}"}}}


def _schema(kind: type) -> dict[str, Any]:
    if kind is Raw:
        return {"description": "Any JSON value."}
    raise NotImplementedError(kind)


def _tell_meanings(properties: dict[str, dict[str, Any]]) -> None:
    """Where the parameters of a training stand flat, say what each means."""
    if properties.keys() >= MEANINGS.keys():
        for name, meaning in MEANINGS.items():
            properties[name]["description"] = meaning


def _everywhere(part: Any) -> Any:
    """A part of the document with schemas that mean to any reader what they mean to msgspec."""
    match part:
        case {"type": "string", "contentEncoding": "base64"}:  # what msgspec makes of bytes: here they are a file
            return _BYTES
        case {"pattern": str(pattern), **others}:
            return {**others, "pattern": pattern.replace(_ONLY_PYTHON, "")}
        case dict():
            return {name: _everywhere(inside) for name, inside in part.items()}
        case list() | tuple():
            return [_everywhere(inside) for inside in part]
        case _:
            return part


def _operation(route: Route, references: dict[type[Struct], dict[str, Any]]) -> dict[str, Any]:
    statuses = sorted({*route.errors, *_ALWAYS})
    operation: dict[str, Any] = {
        "operationId": _name(route),
        "tags": [_tag(route.handler.__module__)],
        "summary": (route.handler.__doc__ or "").partition("\n")[0],
        "parameters": [*_parameters(route)],
        "responses": {str(route.status): _success(route, references)}
        | {str(status): _also(status) for status in route.also}
        | {str(status): _failure(status, route.path) for status in statuses},
    }
    if route.needs == "open":
        operation["security"] = []
    body = route.form or route.body or (NoBody if route.method == "POST" else None)
    if body is not None:
        media = "application/json" if route.form is None else "multipart/form-data"
        operation["requestBody"] = {
            "required": body is not NoBody and not route.may_be_empty,
            "content": {media: {"schema": references[body], **_example(body)}},
        }
    return operation


def _tag(room: str) -> str:
    """The name under which readers find the routes of a room: `openai: files`."""
    return room.removeprefix(f"{__package__}.").replace(".", ": ").replace("_", " ")


def _name(route: Route) -> str:
    return getattr(route.handler, "__name__", route.path)


def _parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", route.path):
        yield {"name": name, "in": "path", "required": True, "schema": schema_of(PATH_KINDS[name])}
    for query in route.query:
        schema = schema_of(query.kind)
        yield {
            "name": query.name,
            "in": "query",
            "description": query.description,
            "schema": {"type": "array", "items": schema} if query.many else schema,
            **({"style": "deepObject", "explode": True} if query.pairs else {}),
        }
    for header in route.takes:
        yield {"name": header.name, "in": "header", "description": header.description, "schema": {"type": "string"}}
    if route.method != "GET":
        yield _KEY


def _success(route: Route, references: dict[type[Struct], dict[str, Any]]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(route.status).phrase}
    if route.headers:
        described["headers"] = {name: {"required": True, "schema": {"type": "string"}} for name in route.headers}
    if route.answer is not None:
        answer = {"schema": references[route.answer], **_example(route.answer)}
        described["content"] = dict.fromkeys(route.media, answer)
    elif route.status == HTTPStatus.OK:
        described["content"] = {media: {"schema": _unshaped(media)} for media in route.media}
    if route.streams:
        described["content"]["text/event-stream"] = {
            "schema": {"description": "One event.", "oneOf": [_event(one, references) for one in route.streams]}
        }
    if links := dict(_links(route)):
        described["links"] = links
    return described


def _event(streamed: Streamed, references: dict[type[Struct], dict[str, Any]]) -> dict[str, Any]:
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": references[streamed.data]}
    properties: dict[str, Any] = {"data": data}
    if streamed.numbered:
        properties = {"id": {"type": "string", "pattern": "^[0-9]+$"}, **properties}
    if streamed.event != "message":  # the name of an event that has none
        properties = {"event": {"const": streamed.event}, **properties}
    return {"type": "object", "properties": properties, "required": [*properties]}


def _unshaped(media: str) -> dict[str, Any]:
    match media:
        case "application/json":
            return {}
        case "text/plain" | "text/html" | "text/css" | "text/javascript":
            return {"type": "string"}
        case _:
            return _BYTES


def _links(route: Route) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where one can go on with what an answer names."""
    for name, places in _NAMES.items():
        place = next((place for place in places if _has(route.answer, place)), None)
        if place is None:
            continue
        for other in ROUTES:
            if f"{{{name}}}" in other.path and other is not route:
                yield (
                    _name(other),
                    {"operationId": _name(other), "parameters": {name: f"$response.body#/{place}"}},
                )


def _has(answer: type[Struct] | None, place: str) -> bool:
    return answer is not None and place.partition("/")[0] in answer.__struct_fields__


def _also(status: int) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if status == HTTPStatus.PARTIAL_CONTENT:
        described["headers"] = {"Content-Range": {"required": True, "schema": {"type": "string"}}}
        described["content"] = {"*/*": {}}  # a part of anything, and of JSON it may be all
    return described


def _failure(status: int, path: str) -> dict[str, Any]:
    kind = ErrorAnswer if is_asked(path) else Problem
    return {
        "description": HTTPStatus(status).phrase,
        "content": {"application/json": {"schema": {"$ref": _REF.format(name=kind.__name__)}}},
    }
