"""No foreign page reaches this server: tried on every route of the table."""

import socket

import pytest
import requests
from support.running_server import RunningServer

from modelforge.http.routes import ROUTES, Route

EVERY_ROUTE = pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")


def ask(server: RunningServer, route: Route, **headers: str) -> tuple[int, dict[str, object]]:
    path = route.path.replace("{job_id}", "x").replace("{model_id}", "1")
    answer = requests.request(route.method, server.url + path, headers=headers, timeout=20)
    return answer.status_code, answer.json()


@EVERY_ROUTE
def test_another_host_is_refused(module_server: RunningServer, route: Route) -> None:
    status, problem = ask(module_server, route, Host="evil.example:8000")
    assert (status, problem["status_code"]) == (421, 421)


@EVERY_ROUTE
def test_another_origin_is_refused(module_server: RunningServer, route: Route) -> None:
    for origin in ("http://evil.example", "null", module_server.url + "1", "https" + module_server.url[4:] + ".evil"):
        status, problem = ask(module_server, route, Origin=origin)
        assert (status, problem["status_code"]) == (403, 403), origin
    status, _ = ask(module_server, route, **{"Sec-Fetch-Site": "cross-site"})
    assert status == 403


@EVERY_ROUTE
def test_a_form_is_no_write(module_server: RunningServer, route: Route) -> None:
    if route.method == "GET":
        return
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        status, problem = ask(module_server, route, **{"Content-Type": kind})
        assert (status, problem["status_code"]) == (415, 415), kind


def test_the_server_s_own_pages_may_ask(module_server: RunningServer) -> None:
    assert module_server.get("/api/info", headers={"Origin": module_server.url}).status_code == 200
    port = module_server.url.rpartition(":")[2]
    assert module_server.get("/api/info", headers={"Host": f"localhost:{port}"}).status_code == 200


def test_every_other_answer_has_the_one_shape(module_server: RunningServer) -> None:
    for answer, status in (
        (module_server.get("/nowhere"), 404),
        (module_server.get("/api/start_training"), 405),
        (module_server.delete("/api/info"), 405),
        (
            module_server.post(
                "/api/start_training", data=b"{" * 2_000_000, headers={"Content-Type": "application/json"}
            ),
            413,
        ),
        (module_server.get("/ws/training"), 400),
    ):
        problem = answer.json()
        assert answer.status_code == problem["status_code"] == status
        assert set(problem) >= {"error", "detail", "status_code"}
        assert answer.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize("sent", [b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nBad Header\r\n\r\n"])
def test_what_is_no_http_gets_an_answer_too(module_server: RunningServer, sent: bytes) -> None:
    host, port = module_server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(sent)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert answer.split(b" ")[1] == b"400", answer
    assert b'"status_code":400' in answer
