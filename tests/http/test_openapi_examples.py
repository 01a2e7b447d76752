"""The examples of the document: each was asked or answered once, and would be again."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support.api_examples import Exchange, ask_everything, by_struct, shape
from support.running_server import scripted_server

from modelforge.http.openapi import EXAMPLES, document
from modelforge.http.routes import ROUTES

DOCUMENT = json.loads(bytes(document()))
STORED: dict[str, Any] = json.loads(EXAMPLES.read_text())
NOT_ASKED = {
    "POST /api/models/{model_id}/push": "no test reaches a hub",
    "GET /v1/responses/{response_id}": "none is ever there",
    "DELETE /v1/responses/{response_id}": "none is ever there",
}


def fits(value: object, name: str) -> None:
    """Check a value against a schema of the document; a ValidationError if it does not fit."""
    Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}).validate(value)


def test_there_is_an_example_of_every_body_and_answer_and_of_nothing_else() -> None:
    kinds = {kind.__name__ for route in ROUTES for kind in (route.body, route.answer) if kind is not None}
    assert set(STORED) == kinds == set(DOCUMENT["components"]["examples"])
    for route in ROUTES:
        operation = DOCUMENT["paths"][route.path][route.method.lower()]
        told = []
        if route.body is not None:
            told.append((route.body, operation["requestBody"]["content"]["application/json"]))
        if route.answer is not None:
            told.append((route.answer, operation["responses"][str(route.status)]["content"]["application/json"]))
        for kind, content in told:
            assert content["examples"] == {"real": {"$ref": f"#/components/examples/{kind.__name__}"}}
            assert DOCUMENT["components"]["examples"][kind.__name__] == {"value": STORED[kind.__name__]}


@pytest.mark.parametrize("name", STORED)
def test_an_example_fits_its_schema_and_has_nothing_that_is_not_in_it(name: str) -> None:
    fits(STORED[name], name)
    assert set(STORED[name]) <= set(DOCUMENT["components"]["schemas"][name]["properties"])


def test_no_example_has_a_secret_or_a_folder_of_a_machine() -> None:
    text = EXAMPLES.read_text()
    assert "mf_…" in text
    assert not [word for word in ("/tmp", "/root", "/work", "localhost") if word in text]  # noqa: S108 - looked for
    assert len(text.encode()) < 64 << 10


@pytest.fixture(scope="module")
def exchanges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Exchange]]:
    folder = tmp_path_factory.mktemp("examples")
    server = scripted_server(folder / "data", "--scripted-answers")
    yield ask_everything(server, folder)
    server.end()


@pytest.mark.slow
def test_a_server_is_asked_and_answers_what_the_examples_say(exchanges: list[Exchange]) -> None:
    assert shape(by_struct(exchanges)) == shape(STORED)
    for exchange in exchanges:
        route = exchange.route
        if route.body is not None and exchange.body is not None:
            fits(exchange.body, route.body.__name__)
        if route.answer is not None and exchange.answer is not None:
            fits(exchange.answer, route.answer.__name__)
            assert set(exchange.answer) <= set(DOCUMENT["components"]["schemas"][route.answer.__name__]["properties"])


@pytest.mark.slow
def test_every_route_that_answers_in_json_was_asked(exchanges: list[Exchange]) -> None:
    asked = {f"{one.route.method} {one.route.path}" for one in exchanges if one.answer is not None}
    assert {f"{route.method} {route.path}" for route in ROUTES if route.answer is not None} - asked == set(NOT_ASKED)
