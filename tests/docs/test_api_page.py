"""docs/api.md against the table of routes and the Structs in which JSON comes and goes."""

import ast
import re
from http import HTTPStatus

import msgspec
import pytest
from msgspec import Struct
from pages import blocks, code, read, rows, section

from modelforge.http.plumbing.problems import Problem
from modelforge.http.routes import ROUTES
from modelforge.http.upload_progress import UploadProgress
from modelforge.projections.status_messages import StatusMessage

PAGE = read("docs/api.md")
RESOURCES = re.findall(r"^### (.+)$", section(PAGE, "Routes"), re.MULTILINE)
TABLE = [row for resource in RESOURCES for row in rows(section(PAGE, resource))]
EXAMPLES = re.findall(r"^```json (\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
STRUCTS: dict[str, type[Struct]] = {
    kind.__name__: kind
    for kind in (
        *(kind for route in ROUTES for kind in (route.body, route.answer) if kind is not None),
        *(Problem, StatusMessage, UploadProgress),
    )
}


def test_the_page_has_every_route_and_no_other() -> None:
    told = [code(row[0])[0] for row in TABLE]
    assert sorted(told) == sorted(f"{route.method} {route.path}" for route in ROUTES)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_the_codes_of_a_route_are_those_of_the_table_of_routes(row: list[str]) -> None:
    (route,) = [route for route in ROUTES if f"`{route.method} {route.path}`" == row[0]]
    assert [int(status) for status in row[2].split(", ")] == [route.status, *sorted(route.errors)]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_the_parameters_of_a_query_are_those_of_the_route(row: list[str]) -> None:
    (route,) = [route for route in ROUTES if f"`{route.method} {route.path}`" == row[0]]
    assert set(re.findall(r"`\?(\w+)=`", row[1])) <= {query.name for query in route.query}


def test_every_error_has_its_line_and_every_line_its_error() -> None:
    told = {int(row[0]) for row in rows(section(PAGE, "Errors"))}
    assert {status for route in ROUTES for status in route.errors} <= told
    assert told <= {*HTTPStatus}
    assert min(told) >= HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=lambda value: value if value.isidentifier() else "")
def test_an_example_is_read_by_the_struct_that_it_is_named_after(name: str, example: str) -> None:
    kind = STRUCTS[name]
    msgspec.json.decode(example, type=kind)
    assert set(msgspec.json.decode(example)) <= set(kind.__struct_encode_fields__)


def test_every_body_of_a_route_has_an_example() -> None:
    assert {route.body.__name__ for route in ROUTES if route.body is not None} <= {name for name, _ in EXAMPLES}


def test_the_example_in_python_is_python() -> None:
    (example,) = blocks(PAGE, "python")
    ast.parse(example)
