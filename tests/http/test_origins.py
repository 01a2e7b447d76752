"""Origins that the server was told of: what their pages may, and that nobody else may more than before."""

from collections.abc import Iterator

import pytest
from support.route_paths import path_of
from support.running_server import RunningServer, scripted_server

from modelforge.http.routes import ROUTES, Route

OURS = "http://localhost:3000"
OTHER = "https://forge.example"


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("origins")
    server = scripted_server(folder / "data", MODELFORGE_ALLOWED_ORIGINS=f"{OURS}, {OTHER}:443")
    yield server
    server.end()


@pytest.mark.parametrize("origin", [OURS, OTHER])
def test_a_page_of_an_allowed_origin_reads_answers_and_refusals(open_server: RunningServer, origin: str) -> None:
    for path, status in (("/api/info", 200), ("/nowhere", 404), ("/v1/models/none", 404)):
        answer = open_server.get(path, headers={"Origin": origin, "Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "Origin" in answer.headers["Vary"]
        assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_browser_that_asks_first_is_told_what_is_taken(open_server: RunningServer, route: Route) -> None:
    asked = {"Access-Control-Request-Method": route.method, "Access-Control-Request-Headers": "x-stainless-lang,x-evil"}
    answer = open_server.options(path_of(route), headers={"Origin": OURS, **asked})
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (204, OURS)
    assert route.method in answer.headers["Access-Control-Allow-Methods"]
    taken = answer.headers["Access-Control-Allow-Headers"].lower()
    assert {"authorization", "content-type", "x-stainless-lang"} <= set(taken.split(", "))
    assert "x-evil" not in taken


def test_another_origin_may_what_it_might_before_which_is_nothing(open_server: RunningServer) -> None:
    for origin in (f"{OURS}0", "http://localhost", f"{OURS}/", "null", f"{OURS}, {OURS}", "https://localhost:3000"):
        answer = open_server.get("/api/info", headers={"Origin": origin})
        assert answer.status_code == 403, origin
        assert "Access-Control-Allow-Origin" not in answer.headers
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert open_server.options("/api/info", headers=asked).status_code == 403, origin
    assert open_server.get("/api/info", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_the_name_of_the_server_has_to_be_right_for_an_allowed_origin_too(open_server: RunningServer) -> None:
    assert open_server.get("/api/info", headers={"Origin": OURS, "Host": "evil.example"}).status_code == 421


def test_a_server_that_was_told_of_none_says_how_to_tell_it(module_server: RunningServer) -> None:
    answer = module_server.get("/api/info", headers={"Origin": OURS})
    assert answer.status_code == 403
    assert f"--allowed-origin {OURS}" in answer.json()["detail"]
    assert "Vary" not in answer.headers
