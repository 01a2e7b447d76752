"""Nothing that a request says is passed over in silence: it is used, or refused by its name."""

import gzip
import re

import pytest
import requests
from support.problems import problem_in
from support.running_server import RECORDS, RunningServer

from modelforge.http.plumbing.route import Route
from modelforge.http.routes import ROUTES

JSON = {"Content-Type": "application/json"}
PACKED = gzip.compress(b"0" * 10_000_000)
PROMPT = {"prompt": "x", "model_id": 7}
"""Right in itself, and 404: there is no such model."""


def ask(server: RunningServer, route: Route, query: str = "", **options: object) -> requests.Response:
    path = re.sub(r"{\w+}", "1", route.path)
    headers = {**server.as_owner(), **options.pop("headers", {})}  # type: ignore[dict-item]
    return requests.request(route.method, f"{server.url}{path}{query}", timeout=60, headers=headers, **options)  # type: ignore[arg-type]


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


@pytest.mark.parametrize("route", ROUTES, ids=named)
def test_an_unknown_name_in_a_query_is_refused_on_every_route(module_server: RunningServer, route: Route) -> None:
    answer = ask(module_server, route, "?colour=blue")
    assert (answer.status_code, problem_in(answer)["field"]) == (400, "colour")


@pytest.mark.parametrize("route", [route for route in ROUTES if route.query], ids=named)
def test_a_name_that_is_there_twice_is_refused_unless_many_are_taken(
    module_server: RunningServer, route: Route
) -> None:
    for query in route.query:
        answer = ask(module_server, route, f"?{query.name}=1&{query.name}=1")
        if query.many:
            assert answer.status_code == 200
        else:
            assert (answer.status_code, problem_in(answer)["field"]) == (400, query.name)


def test_a_name_that_is_nearly_right_is_told_the_right_one(module_server: RunningServer) -> None:
    assert "'limit'" in module_server.get("/api/jobs?limt=5").json()["detail"]
    assert "takes no query" in module_server.get("/api/health?limit=5").json()["detail"]


@pytest.mark.parametrize("value", ["", "0", "1001", "1.5", "1e2", "+1", " 1", "true", "null", "٣", "9" * 5000, "%ff"])
def test_a_number_in_a_query_is_one_within_its_bounds(module_server: RunningServer, value: str) -> None:
    answer = module_server.get(f"/api/jobs?limit={value}")
    assert (answer.status_code, answer.json()["field"]) == (400, "limit")
    assert "from 1 to 1000" in answer.json()["detail"]


def test_several_streams_of_the_log_may_be_asked_for(module_server: RunningServer) -> None:
    module_server.upload(RECORDS, "one.jsonl")
    module_server.upload(RECORDS, "two.jsonl")
    events = module_server.get("/api/events?type=DatasetUploaded&type=RegisterDataset&limit=10000").json()["events"]
    assert {event["type"] for event in events} == {"DatasetUploaded", "RegisterDataset"}


@pytest.mark.parametrize("route", [route for route in ROUTES if not route.body and not route.form], ids=named)
def test_a_body_is_refused_where_none_is_taken_and_an_empty_object_is_none(
    module_server: RunningServer, route: Route
) -> None:
    assert "no body" in str(problem_in(ask(module_server, route, data=b'{"queue": true}', headers=JSON))["error"])
    assert "no body" in str(problem_in(ask(module_server, route, data=b"oops", headers=JSON))["error"])
    if not route.path.startswith("/ws/"):
        with ask(module_server, route, data=b" {} ", headers=JSON, stream=route.is_endless) as answer:
            assert answer.status_code != 400


@pytest.mark.parametrize("route", ROUTES, ids=named)
def test_a_packed_body_is_refused_before_it_is_unpacked(module_server: RunningServer, route: Route) -> None:
    kind = "multipart/form-data; boundary=b" if route.form else "application/json"
    answer = ask(module_server, route, data=PACKED, headers={"Content-Encoding": "gzip", "Content-Type": kind})
    assert (answer.status_code, problem_in(answer)["error"]) == (415, "The body is packed")


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method != "GET"], ids=named)
def test_a_key_that_cannot_be_used_is_refused_on_every_route_that_changes_something(
    module_server: RunningServer, route: Route
) -> None:
    for key in ("", "x" * 256, "\xe9"):
        answer = ask(module_server, route, headers={"Idempotency-Key": key.encode("latin-1")})
        assert (answer.status_code, problem_in(answer)["error"]) == (400, "The Idempotency-Key cannot be used"), key


@pytest.mark.parametrize("value", ["7.0", "7e0", "0.7e1"])
def test_a_whole_number_may_be_written_as_a_float(module_server: RunningServer, value: str) -> None:
    text = f'{{"prompt": "x", "model_id": {value}}}'
    assert module_server.post("/api/playground/generate", data=text, headers=JSON).status_code == 404


@pytest.mark.parametrize("value", ["7.5", '"7"', "true", "null", "-1.0", "1e400"])
def test_what_is_no_whole_number_is_refused_by_its_name(module_server: RunningServer, value: str) -> None:
    text = f'{{"prompt": "x", "model_id": {value}}}'
    answer = module_server.post("/api/playground/generate", data=text, headers=JSON)
    assert (answer.status_code, answer.json()["field"]) == (400, "model_id")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"prompt": "x", "prompt": "y"}', "'prompt' is there twice"),
        (b'{"prompt": "x", "pr\\u006fmpt": "y"}', "'prompt' is there twice"),
        (b'{"prompt": "\\ud800"}', "not valid JSON"),
        (b'{"prompt": "\xff"}', "not valid JSON"),
        (b'{"prompt": "x", "temperature": NaN}', "not valid JSON"),
        (b'{"prompt": "x", "temperature": -Infinity}', "not valid JSON"),
        (b"[" * 100_000, "got array"),
        (b'{"prompt": ' + b"[" * 100_000, "got array"),
        (b'{"x": ' + b"[" * 100_000, "Unknown field"),
        (b'{"prompt": "x"} {}', "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        ('{"prompt": "x"}'.encode("utf-16"), "not valid JSON"),
    ],
)
def test_a_body_of_another_kind_is_refused_with_the_reason(
    module_server: RunningServer, text: bytes, says: str
) -> None:
    answer = module_server.post("/api/playground/generate", data=text, headers=JSON)
    assert answer.status_code == 400
    assert says in answer.json()["error"]


def test_the_same_columns_twice_are_refused_too(module_server: RunningServer) -> None:
    text = b'{"task": "text-generation", "model_name": "x", "dataset": "y", "columns": {"a": "b", "a": "c"}}'
    answer = module_server.post("/api/start_training", data=text, headers=JSON)
    assert (answer.status_code, answer.json()["field"]) == (400, "a")


def test_a_part_of_a_form_that_is_there_twice_is_refused(module_server: RunningServer) -> None:
    for name in ("file", "task", "strategy", "columns", "encoding"):
        parts = [("file", ("d.jsonl", RECORDS)), (name, (None, b"")), (name, (None, b""))]
        answer = requests.post(module_server.url + "/api/upload_dataset", files=parts, timeout=60)
        assert (answer.status_code, answer.json()["field"]) == (400, name)


def test_a_column_that_is_given_twice_is_refused(module_server: RunningServer) -> None:
    answer = module_server.upload(RECORDS, columns='{"input": "input", "input": "output"}')
    assert (answer.status_code, answer.json()["field"]) == (400, "input")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "APPLICATION/JSON", 'application/json;a="b;c"'])
def test_a_content_type_may_have_parameters(module_server: RunningServer, kind: str) -> None:
    answer = module_server.post("/api/playground/generate", PROMPT, headers={"Content-Type": kind})
    assert answer.status_code == 404


@pytest.mark.parametrize("charset", ["utf-16", "iso-8859-1", "nonsense"])
def test_json_in_another_charset_is_refused(module_server: RunningServer, charset: str) -> None:
    kind = {"Content-Type": f"application/json; charset={charset}"}
    assert module_server.post("/api/playground/generate", PROMPT, headers=kind).status_code == 415
