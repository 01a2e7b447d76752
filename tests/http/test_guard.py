"""No foreign page reaches this server: every Host and every Origin, tried on every route of the table."""

import socket

import pytest
import requests
from support.problems import problem_in
from support.route_paths import path_of
from support.running_server import RunningServer

from modelforge.http.plumbing.security_headers import SECURITY_HEADERS
from modelforge.http.routes import ROUTES, Route

EVERY_ROUTE = pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")


def ask(server: RunningServer, route: Route, **headers: str) -> tuple[int, dict[str, object]]:
    answer = requests.request(route.method, server.url + path_of(route), headers=headers, timeout=20)
    assert SECURITY_HEADERS.keys() <= answer.headers.keys()
    return answer.status_code, problem_in(answer)


@EVERY_ROUTE
def test_another_host_is_refused(module_server: RunningServer, route: Route) -> None:
    port = module_server.url.rpartition(":")[2]
    ours = ("127.0.0.1", "localhost")
    for host in ("evil.example:8000", "", "127.0.0.1.evil.example", f"evil@127.0.0.1:{port}", "2130706433", "[::2]"):
        status, problem = ask(module_server, route, Host=host)
        assert (status, problem["status_code"]) == (421, 421), host
    for host in ours:  # the name is enough: a proxy on the way may have another port
        for origin in ("http://evil.example", f"http://evil.{host}:{port}", f"http://{host}:{port}@evil.example"):
            status, problem = ask(module_server, route, Host=f"{host}:{port}", Origin=origin)
            assert (status, problem["status_code"]) == (403, 403), (host, origin)


@EVERY_ROUTE
def test_another_origin_is_refused(module_server: RunningServer, route: Route) -> None:
    foreign = ("http://evil.example", "null", "", module_server.url + "1", "https" + module_server.url[4:] + ".evil")
    for origin in (*foreign, "file://", f"ftp{module_server.url[4:]}", f"{module_server.url}, http://evil.example"):
        status, problem = ask(module_server, route, Origin=origin)
        assert (status, problem["status_code"]) == (403, 403), origin
    for site in ("cross-site", "same-site", ""):
        status, _ = ask(module_server, route, **{"Sec-Fetch-Site": site})
        assert status == 403, site


@EVERY_ROUTE
def test_a_form_is_no_write(module_server: RunningServer, route: Route) -> None:
    if route.method == "GET":
        return
    kinds = ("text/plain", "application/x-www-form-urlencoded", "text/plain;application/json", "application/jsonp")
    other = "application/json" if route.takes_form else "multipart/form-data"
    for kind in (*kinds, other):
        status, problem = ask(module_server, route, **{"Content-Type": kind})
        assert (status, problem["status_code"]) == (415, 415), kind


def test_the_server_s_own_pages_may_ask(module_server: RunningServer) -> None:
    assert module_server.get("/api/info", headers={"Origin": module_server.url}).status_code == 200
    port = module_server.url.rpartition(":")[2]
    assert module_server.get("/api/info", headers={"Host": f"localhost:{port}"}).status_code == 200


def test_a_get_changes_nothing(module_server: RunningServer) -> None:
    before = module_server.get("/api/events").json()["last_position"]
    for route in ROUTES:
        if route.method == "GET" and not route.is_endless:
            module_server.get(path_of(route))
    assert module_server.get("/api/events").json()["last_position"] == before


def test_every_answer_forbids_a_browser_to_run_or_frame_it(module_server: RunningServer) -> None:
    for path in ("/api/info", "/nowhere", "/login", "/login.js", "/api/events?limit=0"):
        headers = module_server.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Server" not in headers


def test_every_other_answer_has_the_one_shape(module_server: RunningServer) -> None:
    for answer, status in (
        (module_server.get("/nowhere"), 404),
        (module_server.get("/api/start_training"), 405),
        (module_server.delete("/api/info"), 405),
        (module_server.post("/api/info", data=b"a", headers={"Content-Type": "multipart/form-data; boundary=a"}), 405),
        (
            module_server.post(
                "/api/start_training", data=b"{" * 2_000_000, headers={"Content-Type": "application/json"}
            ),
            413,
        ),
        (module_server.get("/ws/training"), 400),
        (
            module_server.post(
                "/api/jobs/train_000001/checkpoint", data=b"\n", headers={"Content-Type": "application/json"}
            ),
            400,
        ),
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
    assert b"Content-Security-Policy" in answer
