"""The document says what the server does."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from support.running_server import RunningServer

from modelforge.http.openapi import document
from modelforge.http.routes import ROUTES
from modelforge.parameter_meanings import MEANINGS
from trainer_entry import wire


def test_the_document_is_valid_and_has_every_route(module_server: RunningServer) -> None:
    document = module_server.get("/api/openapi.json").json()
    OpenAPIV31SpecValidator(document).validate()
    listed = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert listed == {(route.method, route.path) for route in ROUTES}


def test_every_training_parameter_stands_in_it(module_server: RunningServer) -> None:
    document = module_server.get("/api/openapi.json").json()
    body = document["components"]["schemas"]["StartTrainingBody"]
    assert set(body["properties"]) >= set(wire.TrainingParameters.__struct_fields__)
    assert set(body["required"]) == {"task", "model_name", "dataset"}
    told = {name: body["properties"][name]["description"] for name in wire.TrainingParameters.__struct_fields__}
    assert told == MEANINGS


DOCUMENT = json.loads(bytes(document()))
OPERATIONS = [
    pytest.param(path, method, operation, id=operation["operationId"])
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


def schemas(part: object) -> Iterator[dict[str, Any]]:
    """Every object in a part of the document that says a type."""
    if isinstance(part, dict):
        if "type" in part:
            yield part
        for inside in part.values():
            yield from schemas(inside)
    elif isinstance(part, list):
        for inside in part:
            yield from schemas(inside)


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_parameter_has_its_bounds(path: str, method: str, operation: dict[str, Any]) -> None:
    parameters = {(one["in"], one["name"]): one["schema"] for one in operation["parameters"]}
    assert {name for place, name in parameters if place == "path"} == set(re.findall(r"{(\w+)}", path))
    assert (("header", "Idempotency-Key") in parameters) == (method != "get")
    for (place, name), schema in parameters.items():
        if schema.get("type") == "integer":
            assert {"minimum", "maximum"} <= set(schema), name
        if place == "path":
            assert set(schema) & {"pattern", "minimum"}, name


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_status_is_told_and_every_refusal_has_the_one_shape(
    path: str, method: str, operation: dict[str, Any]
) -> None:
    (route,) = [route for route in ROUTES if (route.method.lower(), route.path) == (method, path)]
    told = {int(status) for status in operation["responses"]}
    assert told >= {route.status, *route.errors, *route.also, 400, 403, 413, 415, 421, 500}
    for status, response in operation["responses"].items():
        if int(status) >= 400:
            shape = "ErrorAnswer" if path.startswith("/v1/") else "Problem"
            assert response["content"] == {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape}"}}}


def test_bodies_take_nothing_but_what_they_name() -> None:
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                name = content["schema"]["$ref"].rpartition("/")[2]
                assert DOCUMENT["components"]["schemas"][name]["additionalProperties"] is False, name


def test_patterns_are_those_of_any_reader_and_not_of_python() -> None:
    patterns = [schema["pattern"] for schema in schemas(DOCUMENT) if "pattern" in schema]
    assert patterns
    assert not [pattern for pattern in patterns if "(?" in pattern or "\\Z" in pattern]


def test_answers_lead_to_the_routes_of_what_they_name() -> None:
    ids = {operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()}
    started = DOCUMENT["paths"]["/api/start_training"]["post"]["responses"]["200"]["links"]
    assert set(started) >= {"get_job", "stop_job", "get_metrics", "rerun_job"}
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                assert {link["operationId"] for link in response.get("links", {}).values()} <= ids
