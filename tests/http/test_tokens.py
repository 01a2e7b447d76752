"""Who may do what: every scope on every route, and the life of a token and of a browser's session."""

import asyncio
import contextlib
import json
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import aiohttp
import pytest
import requests
from support.problems import problem_in
from support.route_paths import path_of
from support.running_server import RECORDS, RunningServer, modelforge, scripted_server

from modelforge.domain.access_token import Scope
from modelforge.http.routes import ROUTES, Route

EVERY_ROUTE = pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
OPEN = {"GET /api/health", "GET /login", "GET /login.js", "GET /login.css", "POST /api/session", "DELETE /api/session"}
OPEN |= {"GET /", "GET /page/{page_file}", "GET /page/vendor/{page_file}"}  # which are the same for everyone
ADMIN = {"GET /api/tokens", "POST /api/tokens", "DELETE /api/tokens/{name}", "POST /api/login_links"}
RANK: dict[str, int] = {"nobody": -1, "read": 0, "write": 1, "admin": 2}


def needed(route: Route) -> int:
    """What a route must ask for, told here once more: a route that is new is covered before it is written."""
    name = f"{route.method} {route.path}"
    if name in OPEN:
        return RANK["nobody"]
    if name in ADMIN or route.path.startswith("/v1/webhook_"):
        return RANK["admin"]
    return RANK["read"] if route.method == "GET" else RANK["write"]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def create(data_dir: Path, name: str, scope: str, *more: str) -> str:
    made = modelforge("token", "create", "--name", name, "--scope", scope, *more, "--data-dir", str(data_dir))
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@pytest.fixture(scope="module")
def closed_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("closed") / "data"


@pytest.fixture(scope="module")
def closed(closed_dir: Path) -> Iterator[tuple[RunningServer, dict[str, str]]]:
    """A server with a token of each scope, made before it ran."""
    tokens = {scope: create(closed_dir, f"{scope}er", scope) for scope in get_args(Scope)}
    server = scripted_server(closed_dir)
    yield server, tokens
    server.end()


@EVERY_ROUTE
@pytest.mark.parametrize("who", RANK)
def test_a_scope_is_good_for_its_routes_and_no_others(
    closed: tuple[RunningServer, dict[str, str]], route: Route, who: str
) -> None:
    server, tokens = closed
    headers = bearer(tokens[who]) if who in tokens else {}
    answer = requests.request(
        route.method, server.url + path_of(route), headers=headers, timeout=20, stream=route.is_endless
    )
    if RANK[who] >= needed(route):
        # A code that is none is refused by the handler itself, which speaks of the link.
        assert answer.status_code not in {401, 403}
        answer.close()
    elif who == "nobody":
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    else:
        assert answer.status_code == 403
        assert {"error", "detail", "status_code"} <= problem_in(answer).keys()


def test_head_needs_what_get_needs(closed: tuple[RunningServer, dict[str, str]]) -> None:
    server, tokens = closed
    for path, statuses in (("/api/tokens", (403, 403, 200)), ("/api/jobs", (200, 200, 200))):
        for scope, status in zip(("read", "write", "admin"), statuses, strict=True):
            assert requests.head(server.url + path, headers=bearer(tokens[scope]), timeout=20).status_code == status


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE"])
def test_nobody_learns_what_paths_and_methods_there_are(
    closed: tuple[RunningServer, dict[str, str]], method: str
) -> None:
    server, tokens = closed
    for path in ("/nowhere", "/api/info", "/api/start_training", "/page"):
        assert requests.request(method, server.url + path, timeout=20).status_code in {401, 421}
    assert requests.get(f"{server.url}/nowhere", headers=bearer(tokens["read"]), timeout=20).status_code == 404


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer mf_wrong",
        "Basic bWU6bWU=",
        "Token x",
        "Bearer \u00fc",
        "bearer mf_" + "a" * 4000,
    ],
)
def test_what_is_shown_wrongly_is_refused(closed: tuple[RunningServer, dict[str, str]], shown: str) -> None:
    answer = requests.get(f"{closed[0].url}/api/info", headers={"Authorization": shown.encode()}, timeout=20)
    assert answer.status_code == 401
    assert answer.json()["status_code"] == 401


def test_a_token_in_the_address_is_no_token(closed: tuple[RunningServer, dict[str, str]]) -> None:
    server, tokens = closed
    for name in ("token", "access_token", "api_key"):
        assert requests.get(f"{server.url}/api/info?{name}={tokens['admin']}", timeout=20).status_code == 401


def test_a_token_that_is_wrong_is_refused_though_none_is_needed(module_server: RunningServer) -> None:
    assert module_server.get("/api/info").status_code == 200
    assert module_server.get("/api/info", headers=bearer("mf_wrong")).status_code == 401


def test_without_a_token_nobody_makes_one_over_the_network(module_server: RunningServer) -> None:
    made = module_server.post("/api/tokens", {"name": "me", "scope": "admin"})
    assert (made.status_code, module_server.get("/api/tokens").status_code) == (403, 403)


def test_what_is_shown_once_takes_no_key(closed: tuple[RunningServer, dict[str, str]]) -> None:
    server, tokens = closed
    headers = {**bearer(tokens["admin"]), "Idempotency-Key": "k"}
    bodies = {"/api/tokens": {"name": "n", "scope": "read"}, "/api/login_links": {}, "/api/session": {"code": "c"}}
    for path, body in bodies.items():
        answer = server.post(path, body, headers=headers)
        assert (answer.status_code, "Idempotency-Key" in answer.text) == (400, True), path


def test_only_the_hash_is_kept(closed: tuple[RunningServer, dict[str, str]], closed_dir: Path) -> None:
    server, tokens = closed
    events = requests.get(f"{server.url}/api/events", headers=bearer(tokens["read"]), timeout=20).text
    files = b"".join(path.read_bytes() for path in closed_dir.rglob("*") if path.is_file())
    for token in tokens.values():
        assert token not in events
        assert token.encode() not in files


def test_every_record_has_who_asked(data_dir: Path, serve: Callable[..., RunningServer]) -> None:
    token = create(data_dir, "laptop", "write")
    server = serve()
    uploaded = requests.post(
        f"{server.url}/api/upload_dataset", files={"file": ("a.jsonl", RECORDS)}, headers=bearer(token), timeout=30
    )
    assert uploaded.status_code == 200
    events = requests.get(f"{server.url}/api/events", headers=bearer(token), timeout=20).json()["events"]
    assert {event["actor"] for event in events if event["stream"] == "dataset:a.jsonl"} == {"api:laptop"}
    assert {event["actor"] for event in events if event["stream"] == "token:laptop"} == {"api:owner"}
    assert modelforge("token", "revoke", "laptop", "--data-dir", str(data_dir)).returncode == 0


def test_the_life_of_a_token_beside_a_server(data_dir: Path, serve: Callable[..., RunningServer]) -> None:
    server = serve()
    assert server.get("/api/info").status_code == 200
    token = create(data_dir, "ci", "read", "--expires", "2h")
    assert server.get("/api/info").status_code == 401
    assert server.get("/api/info", headers=bearer(token)).status_code == 200
    listed = modelforge("token", "list", "--data-dir", str(data_dir)).stdout
    assert "ci" in listed
    assert token not in listed
    again = modelforge("token", "create", "--name", "ci", "--scope", "admin", "--data-dir", str(data_dir))
    assert (again.returncode, "ci" in again.stderr) == (1, True)
    revoked = modelforge("token", "revoke", "ci", "--data-dir", str(data_dir))
    assert (revoked.returncode, "No token is left" in revoked.stdout) == (0, True)
    assert server.get("/api/info", headers=bearer(token)).status_code == 401
    assert server.get("/api/info").status_code == 200


async def test_a_token_expires_and_its_sockets_with_it(data_dir: Path, serve: Callable[..., RunningServer]) -> None:
    admin = create(data_dir, "boss", "admin")
    server = serve()
    for expires_at in ("2001-01-01T00:00:00Z", "2099-01-01T00:00:00", "9999-01-01T00:00:00Z"):
        body = {"name": "bad", "scope": "read", "expires_at": expires_at}
        assert server.post("/api/tokens", body, headers=bearer(admin)).status_code == 400, expires_at
    soon = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
    made = server.post("/api/tokens", {"name": "short", "scope": "read", "expires_at": soon}, headers=bearer(admin))
    async with (
        aiohttp.ClientSession(headers=bearer(made.json()["token"])) as session,
        session.ws_connect(f"{server.url}/ws/training") as socket,
    ):
        assert (await socket.receive(timeout=10)).type == aiohttp.WSMsgType.TEXT
        assert (await socket.receive(timeout=20)).type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
        async with session.get(f"{server.url}/api/info") as refused:
            assert (refused.status, "expired" in await refused.text()) == (401, True)
    for name in ("boss", "short"):
        assert modelforge("token", "revoke", "--name", name, "--data-dir", str(data_dir)).returncode == 0


async def test_a_revoked_token_s_sockets_are_closed(data_dir: Path, serve: Callable[..., RunningServer]) -> None:
    token = create(data_dir, "viewer", "read")
    server = serve()
    async with aiohttp.ClientSession(headers=bearer(token)) as session:
        sockets = [await session.ws_connect(f"{server.url}{path}") for path in ("/ws/training", "/ws/datasets")]
        assert (await sockets[0].receive(timeout=10)).type == aiohttp.WSMsgType.TEXT
        revoked = await asyncio.to_thread(modelforge, "token", "revoke", "viewer", "--data-dir", str(data_dir))
        assert revoked.returncode == 0
        for socket in sockets:
            message = await socket.receive(timeout=10)
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"{server.url}/ws/training")
        assert refused.value.status == 401


async def test_what_was_open_to_all_is_closed_by_the_first_token(
    data_dir: Path, serve: Callable[..., RunningServer]
) -> None:
    server = serve()
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/ws/training") as socket:
        await socket.receive(timeout=10)
        await asyncio.to_thread(create, data_dir, "first", "read")
        assert (await socket.receive(timeout=10)).type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
    await asyncio.to_thread(modelforge, "token", "revoke", "first", "--data-dir", str(data_dir))


def test_a_browser_is_signed_in_once_by_a_link(data_dir: Path, serve: Callable[..., RunningServer]) -> None:
    create(data_dir, "boss", "admin")
    server = serve()
    link = modelforge("token", "link", "--data-dir", str(data_dir)).stdout.strip()
    assert link.startswith(f"{server.url}/login#")
    browser = requests.Session()
    code = link.partition("#")[2]
    assert browser.get(f"{server.url}/api/jobs", timeout=20).status_code == 401
    signed_in = browser.post(f"{server.url}/api/session", json={"code": code}, timeout=20)
    cookie = signed_in.headers["Set-Cookie"]
    assert (signed_in.status_code, "HttpOnly" in cookie, "SameSite=Strict" in cookie) == (200, True, True)
    assert browser.get(f"{server.url}/api/jobs", timeout=20).status_code == 200
    foreign = browser.post(f"{server.url}/api/stop_training", headers={"Origin": "http://evil.example"}, timeout=20)
    assert foreign.status_code == 403
    for wrong in (code, "x", ""):
        again = requests.post(f"{server.url}/api/session", json={"code": wrong}, timeout=20)
        assert again.status_code == (401 if wrong else 400)
    assert browser.delete(f"{server.url}/api/session", timeout=20).status_code == 200
    browser.cookies.set("modelforge_session", cookie.partition("=")[2].partition(";")[0])
    assert browser.get(f"{server.url}/api/jobs", timeout=20).status_code == 401
    assert modelforge("token", "revoke", "boss", "--data-dir", str(data_dir)).returncode == 0


def test_nothing_is_done_for_a_token_after_it_is_revoked(
    data_dir: Path, serve: Callable[..., RunningServer], start: Callable[..., str]
) -> None:
    server = serve()
    job_id = start(server, "completes")
    server.wait_for(job_id)
    admin, gone = create(data_dir, "boss", "admin"), create(data_dir, "gone", "write")
    server.shown = bearer(admin)

    def rerun() -> None:
        with contextlib.suppress(requests.ConnectionError):
            server.post(f"/api/jobs/{job_id}/rerun", {"queue": True}, headers=bearer(gone))

    threads = [threading.Thread(target=rerun) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert requests.delete(f"{server.url}/api/tokens/gone", headers=bearer(admin), timeout=20).status_code == 200
    for thread in threads:
        thread.join()
    records = server.get("/api/events?limit=1000").json()["events"]
    (revoked,) = [record["position"] for record in records if record["type"] == "TokenRevoked"]
    assert all(record["position"] < revoked for record in records if record["actor"] == "api:gone")
    for job in server.get("/api/jobs").json()["jobs"]:
        server.wait_for(job["job_id"])
    assert requests.delete(f"{server.url}/api/tokens/boss", headers=bearer(admin), timeout=20).status_code == 200
    server.shown = {}


def test_a_session_is_no_more_and_no_longer_than_who_made_its_link(
    data_dir: Path, serve: Callable[..., RunningServer]
) -> None:
    admin, other = create(data_dir, "boss", "admin"), create(data_dir, "viewer", "admin")
    server = serve()
    codes = [server.post("/api/login_links", {}, headers=bearer(other)).json()["path"].partition("#")[2] for _ in "ab"]
    browser = requests.Session()
    assert browser.post(f"{server.url}/api/session", json={"code": codes[0]}, timeout=20).status_code == 200
    made = browser.post(f"{server.url}/api/tokens", json={"name": "more", "scope": "read"}, timeout=20)
    assert made.status_code == 200
    events = server.get("/api/events?type=TokenCreated", headers=bearer(admin)).json()["events"]
    assert events[-1]["actor"] == "api:viewer"
    assert server.post("/api/tokens/nobody", {}, headers=bearer(admin)).status_code == 405
    revoked = requests.delete(f"{server.url}/api/tokens/viewer", headers=bearer(other), timeout=20)
    assert revoked.status_code == 200  # who ends itself is told so
    assert browser.get(f"{server.url}/api/jobs", timeout=20).status_code == 401
    assert server.post("/api/session", {"code": codes[1]}).status_code == 401
    for name in ("boss", "more"):
        assert modelforge("token", "revoke", name, "--data-dir", str(data_dir)).returncode == 0


async def test_who_signs_out_has_nothing_open_any_more(data_dir: Path, serve: Callable[..., RunningServer]) -> None:
    create(data_dir, "boss", "admin")
    server = serve()
    link = await asyncio.to_thread(modelforge, "token", "link", "--data-dir", str(data_dir))
    jar = aiohttp.CookieJar(unsafe=True)  # an address is no name
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        body = {"code": link.stdout.strip().partition("#")[2]}
        async with session.post(f"{server.url}/api/session", json=body) as answer:
            assert answer.status == 200
        async with session.ws_connect(f"{server.url}/ws/training") as socket:
            await socket.receive(timeout=10)
            async with session.delete(f"{server.url}/api/session") as answer:
                assert answer.status == 200
            assert (await socket.receive(timeout=10)).type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
    await asyncio.to_thread(modelforge, "token", "revoke", "boss", "--data-dir", str(data_dir))


def test_who_is_asked_for_no_token_sends_nothing_large(closed: tuple[RunningServer, dict[str, str]]) -> None:
    large = json.dumps({"code": "x" * 5000})
    url = f"{closed[0].url}/api/session"
    headers = {"Content-Type": "application/json"}
    assert requests.post(url, data=large, headers=headers, timeout=20).status_code == 413
    packed = {**headers, "Content-Encoding": "identity"}  # which is none
    assert requests.post(url, data=large, headers=packed, timeout=20).status_code == 413
    pieces = iter([large.encode()])
    assert requests.post(url, data=pieces, headers=headers, timeout=20).status_code == 413


def test_the_owner_s_key_is_for_the_owner_and_for_this_run(data_dir: Path, serve: Callable[..., RunningServer]) -> None:
    server = serve()
    path = data_dir / "owner.key"
    key = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert server.get("/api/tokens", headers=bearer(key)).json() == {"tokens": []}
    server.end()
    assert not path.exists()
    server.start()
    assert path.read_text() != key
    assert server.get("/api/tokens", headers=bearer(key)).status_code == 401


def test_one_token_may_not_ask_without_end(data_dir: Path, serve: Callable[..., RunningServer]) -> None:
    token, other = create(data_dir, "busy", "read"), create(data_dir, "calm", "read")
    server = serve(MODELFORGE_MAX_REQUESTS_PER_MINUTE="60")
    with requests.Session() as session:
        answers = [session.get(f"{server.url}/api/info", headers=bearer(token), timeout=20) for _ in range(20)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert "max_requests_per_minute" in json.dumps(refused[0].json())
    assert server.get("/api/info", headers=bearer(other)).status_code == 200
    for name in ("busy", "calm"):
        modelforge("token", "revoke", name, "--data-dir", str(data_dir))
