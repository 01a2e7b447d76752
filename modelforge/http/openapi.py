"""The API as an OpenAPI 3.1 document, made from the routes and their message types."""

import re
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Raw, Struct

from modelforge.http.plumbing.problems import Problem
from modelforge.http.plumbing.route import Route
from modelforge.http.routes import ROUTES
from modelforge.version import VERSION

_REF = "#/components/schemas/{name}"
_ALWAYS = (403, 421, 500)
_UPLOAD = {
    "type": "object",
    "properties": {
        "file": {"type": "string", "contentMediaType": "application/octet-stream"},
        "task": {"type": "string"},
        "strategy": {"type": "string"},
        "columns": {"type": "string", "contentMediaType": "application/json"},
        "encoding": {"type": "string"},
    },
    "required": ["file"],
}


def document() -> Raw:
    """The document as JSON."""
    types: list[type[Struct]] = [Problem]
    for route in ROUTES:
        types.extend(kind for kind in (route.body, route.answer) if kind is not None and kind not in types)
    schemas, components = msgspec.json.schema_components(types, schema_hook=_schema, ref_template=_REF)
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return Raw(
        msgspec.json.encode(
            {
                "openapi": "3.1.0",
                "info": {
                    "title": "ModelForge",
                    "version": VERSION,
                    "summary": "Fine-tune language models on your own machine.",
                    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
                },
                "paths": paths,
                "components": {"schemas": components},
            }
        )
    )


def _schema(kind: type) -> dict[str, Any]:
    if kind is Raw:
        return {"description": "Any JSON value."}
    raise NotImplementedError(kind)


def _operation(route: Route, schema_of: dict[type[Struct], dict[str, Any]]) -> dict[str, Any]:
    path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    query = [
        {"name": one.name, "in": "query", "description": one.description, "schema": {"type": one.kind}}
        for one in route.query
    ]
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same key and request get the first answer again.",
        "schema": {"type": "string", "maxLength": 255},
    }
    # What every body, and every command, can come to.
    always = {*_ALWAYS, *((400, 413, 415) if route.method == "POST" else ())}
    summary = (route.handler.__doc__ or "").partition("\n")[0]
    operation: dict[str, Any] = {
        "operationId": getattr(route.handler, "__name__", route.path),
        "summary": summary,
        "parameters": [*path, *query, *([key] if route.method == "POST" else [])],
        "responses": {str(route.status): _success(route, schema_of)}
        | {str(status): _failure(status) for status in sorted({*route.errors, *always})},
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": not route.may_be_empty,
            "content": {"application/json": {"schema": schema_of[route.body]}},
        }
    elif route.path == "/api/upload_dataset":
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _UPLOAD}}}
    return operation


def _success(route: Route, schema_of: dict[type[Struct], dict[str, Any]]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(route.status).phrase}
    if route.headers:
        described["headers"] = {name: {"schema": {"type": "string"}} for name in route.headers}
    if route.answer is not None:
        described["content"] = {route.media: {"schema": schema_of[route.answer]}}
    elif route.status == HTTPStatus.OK:
        kind = "object" if route.media == "application/json" else "string"
        described["content"] = {route.media: {"schema": {"type": kind}}}
    if route.streams:
        described["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return described


def _failure(status: int) -> dict[str, Any]:
    return {
        "description": HTTPStatus(status).phrase,
        "content": {"application/json": {"schema": {"$ref": _REF.format(name="Problem")}}},
    }
