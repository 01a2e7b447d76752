"""The client against the document: each method's request and answer, and each route's method."""

import inspect
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from jsonschema import Draft202012Validator
from msgspec import Struct

from modelforge.client import AsyncClient, LogPart
from modelforge.http.openapi import EXAMPLES, document
from modelforge.http.plumbing.problems import Problem
from modelforge.http.plumbing.route import EVENT_STREAM, Route
from modelforge.http.routes import ROUTES
from modelforge.projections.status_messages import LoggedRecord, StatusMessage

DOCUMENT = json.loads(bytes(document()))
STORED: dict[str, Any] = json.loads(EXAMPLES.read_text())
NOT_REACHED = {
    "GET /api/openapi.json": "it describes what the methods are",
    "GET /api/docs": "a page to read",
    "GET /api/docs/reference.js": "its script",
    "GET /api/docs/swagger-ui-bundle.js": "its script",
    "GET /api/docs/swagger-ui.css": "its style",
    "POST /api/session": "a browser's cookie",
    "DELETE /api/session": "a browser's cookie",
    "GET /ws/datasets": "who sends a file hears how far it is by on_sent",
}
OTHERWISE_NAMED = {"follow_job": "training_socket", "stream_answer": "generate"}
NO_ROUTE = {"close", "with_idempotency_key"}
JOB = "train_000003"
TRAINING: dict[str, Any] = {
    "task": "summarization",
    "model_name": "m",
    "dataset": "a.jsonl",
    "lora_r": 8,
    "queue": True,
}
VIEW: dict[str, Any] = {
    "model_name": "m",
    "task": "text-generation",
    "strategy": "qlora",
    "provider": "unsloth",
    "max_seq_length": 64,
    "truncation": "left",
    "doc_stride": 16,
    "max_completion_length": 32,
    "revision": 2,
}
ASKED: dict[str, Any] = {"prompt": "Why?", "model_id": 1, "stop": ("\n",), "temperature": 0}
CALLS: dict[str, Callable[[AsyncClient, Path], Any]] = {
    "start_training": lambda client, _: client.start_training(**TRAINING),
    "preflight": lambda client, _: client.preflight(**TRAINING),
    "get_training_status": lambda client, _: client.get_training_status(),
    "stop_training": lambda client, _: client.stop_training(),
    "list_jobs": lambda client, _: client.list_jobs(status="queued", limit=3, after=JOB),
    "get_job": lambda client, _: client.get_job(JOB),
    "stop_job": lambda client, _: client.stop_job(JOB),
    "cancel_job": lambda client, _: client.cancel_job(JOB),
    "save_checkpoint": lambda client, _: client.save_checkpoint(JOB),
    "resume_job": lambda client, _: client.resume_job(JOB),
    "rerun_job": lambda client, _: client.rerun_job(JOB, queue=True),
    "get_checkpoints": lambda client, _: client.get_checkpoints(JOB),
    "get_metrics": lambda client, _: client.get_metrics(JOB, after=3, limit=5),
    "get_logs": lambda client, _: client.get_logs(JOB, offset=7, attempt=1),
    "follow_job": lambda client, _: client.follow_job(JOB, after=3, records=True),
    "upload_dataset": lambda client, file: client.upload_dataset(
        file, task="text-generation", strategy="sft", columns={"input": "q", "output": ["a", "b"]}, encoding="utf-8"
    ),
    "list_datasets": lambda client, _: client.list_datasets(limit=3, after="a.jsonl"),
    "get_dataset": lambda client, _: client.get_dataset("a #ä.jsonl", revision=2),
    "delete_dataset": lambda client, _: client.delete_dataset("a.jsonl"),
    "download_dataset": lambda client, file: client.download_dataset("a?.jsonl", file, revision=2),
    "preview_dataset": lambda client, _: client.preview_dataset("a.jsonl", limit=3, offset=2, search="why", **VIEW),
    "measure_dataset": lambda client, _: client.measure_dataset("a.jsonl", sample=3, **VIEW),
    "list_models": lambda client, _: client.list_models(limit=3, after=2),
    "get_model": lambda client, _: client.get_model(1),
    "delete_model": lambda client, _: client.delete_model(1),
    "merge_model": lambda client, _: client.merge_model(1, output_name="poet", dtype="float16", queue=True),
    "export_model": lambda client, _: client.export_model(1, format="gguf", quantization="q8_0", path="/a", queue=True),
    "push_model": lambda client, _: client.push_model(1, repo_id="me/poet", private=False, queue=True),
    "evaluate_model": lambda client, _: client.evaluate_model(1, dataset="a.jsonl", max_samples=3, base_model=True),
    "generate": lambda client, _: client.generate(**ASKED),
    "stream_answer": lambda client, _: client.stream_answer(**ASKED),
    "get_info": lambda client, _: client.get_info(),
    "get_health": lambda client, _: client.get_health(),
    "get_state": lambda client, _: client.get_state(at=3),
    "list_events": lambda client, _: client.list_events(after=3, limit=5, stream=[JOB, "models"], type="ModelDeleted"),
    "stream_events": lambda client, _: client.stream_events(after=3, job_id=JOB),
    "verify_log": lambda client, _: client.verify_log(),
    "get_machine": lambda client, _: client.get_machine(),
    "examine_machine": lambda client, _: client.examine_machine(),
    "get_session": lambda client, _: client.get_session(),
    "list_tokens": lambda client, _: client.list_tokens(),
    "create_token": lambda client, _: client.create_token(name="a", scope="read", expires_at="2099-01-31T12:00:00Z"),
    "revoke_token": lambda client, _: client.revoke_token("a"),
    "make_login_link": lambda client, _: client.make_login_link(),
}
"""Every method, with everything that it takes."""


def route_of(name: str) -> Route:
    """The route that a method asks, by the name of its operation."""
    wanted = OTHERWISE_NAMED.get(name, name)
    (route,) = [route for route in ROUTES if route.handler.__name__ == wanted]
    return route


class Listener:
    """A server that says of each route what it said once, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Route, web.Request, bytes]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        route = next(route for route in _BY_LENGTH if route.method == request.method and _has(route, request))
        body = await request.read() if route.form is None else json.dumps(await _parts(request)).encode()
        self.asked.append((route, request, body))
        if route.is_socket:
            return await self._tell(request)
        if route.media == (EVENT_STREAM,):
            return await _events(request, [("id: 1", STORED["Events"]["events"][0])])
        if route.answer is None:
            return web.Response(body=b"said", headers={"X-Next-Offset": "11"})
        example = STORED[route.answer.__name__]
        if route.streams and json.loads(body).get("stream"):
            return await _events(request, [("event: token", {"text": "A "}), ("event: done", example)])
        return web.json_response(example, status=route.status)

    async def _tell(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        job = STORED["JobDetails"]
        record = STORED["Events"]["events"][0]
        message = {**STORED["TrainingStatus"], "position": job["position"], "type": "a", "at": 1, "record": record}
        await socket.send_str(json.dumps(message))
        await socket.receive()
        return socket


_BY_LENGTH = sorted(ROUTES, key=lambda route: route.path.count("{"))


def _has(route: Route, request: web.Request) -> bool:
    return re.fullmatch(re.sub(r"{\w+}", "[^/]+", route.path), request.rel_url.raw_path) is not None


async def _parts(request: web.Request) -> dict[str, str]:
    parts = {}
    async for part in await request.multipart():
        assert isinstance(part, aiohttp.BodyPartReader)
        parts[part.name or ""] = (await part.read()).decode()
    return parts


async def _events(request: web.Request, events: list[tuple[str, Any]]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM})
    await response.prepare(request)
    for named, data in events:
        await response.write(f"{named}\ndata: {json.dumps(data)}\n\n".encode())
    return response


@pytest.fixture
async def listener() -> AsyncIterator[tuple[Listener, AsyncClient]]:
    listener = Listener()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", listener.answer)
    async with TestServer(app) as server, AsyncClient(f"http://127.0.0.1:{server.port}") as client:
        yield listener, client


def fits(value: object, schema: dict[str, Any]) -> None:
    """Check a value against a schema of the document; a ValidationError if it does not fit."""
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


async def said_by(call: Any) -> list[Any]:
    """Whatever comes of a call: what it is awaited for, or the first of what it goes on with."""
    if inspect.isasyncgen(call):
        said = []
        async for one in call:
            said.append(one)
            if isinstance(one, LoggedRecord):
                break
        await call.aclose()
        return said
    return [await call]


@pytest.mark.parametrize("name", CALLS)
async def test_a_method_asks_what_the_document_allows_and_reads_what_it_promises(
    name: str, listener: tuple[Listener, AsyncClient], tmp_path: Path
) -> None:
    heard, client = listener
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"{}\n")
    said = await said_by(CALLS[name](client, file))
    route = route_of(name)
    (request, body) = next((request, body) for asked, request, body in heard.asked if asked is route)
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    parameters = {(one["in"], one["name"]): one["schema"] for one in operation["parameters"]}

    names = re.fullmatch(re.sub(r"{(\w+)}", r"(?P<\1>.+)", route.path), request.path)
    assert names is not None
    for given, text in names.groupdict().items():
        schema = parameters["path", given]
        fits(int(text) if schema.get("type") == "integer" else text, schema)
    assert {given for place, given in parameters if place == "query"} == set(request.query)
    for given in request.query:
        schema, texts = parameters["query", given], request.query.getall(given)
        values = [int(text) if "minimum" in json.dumps(schema) else text for text in texts]
        fits(values if schema.get("type") == "array" else values[0], schema)

    if route.form is not None:
        fits(json.loads(body), operation["requestBody"]["content"]["multipart/form-data"]["schema"])
        assert set(json.loads(body)) == set(route.form.__struct_fields__)
    elif route.method == "POST":
        assert request.content_type == "application/json"
        fits(json.loads(body), operation["requestBody"]["content"]["application/json"]["schema"])
        assert route.body is not None or json.loads(body) == {}
    else:
        assert body == b""

    told = get_type_hints(getattr(AsyncClient, name))["return"]
    match name:
        case "get_logs":
            assert said == [LogPart(b"said", 11)]
        case "download_dataset":
            assert file.read_bytes() == b"said"
        case "follow_job":
            assert [one.type for one in said] == ["a"]
            assert get_args(told)[0] is StatusMessage
        case "stream_events" | "stream_answer":
            promised = set(get_args(get_args(told)[0])) or {get_args(told)[0]}
            streamed = {one.data for one in route.streams if one.event not in {"error", "goodbye"}}
            assert promised == streamed == {type(one) for one in said}
        case _:
            assert told is route.answer
            assert type(said[0]) is told
            assert msgspec.json.decode(msgspec.json.encode(said[0])) == STORED[told.__name__]


@pytest.mark.parametrize("name", CALLS)
def test_the_fields_of_an_answer_are_those_of_its_schema(name: str) -> None:
    kind = route_of(name).answer
    kinds: list[type[Struct]] = [] if kind is None else [kind]
    for one in (*kinds, *(streamed.data for streamed in route_of(name).streams)):
        schema = DOCUMENT["components"]["schemas"][one.__name__]
        assert list(schema["properties"]) == list(one.__struct_encode_fields__)
        required = [field.encode_name for field in msgspec.structs.fields(one) if field.required]
        assert schema["required"] == required or one is Problem


def test_every_method_is_tried_and_every_route_has_one_or_a_reason() -> None:
    public = {name for name, _ in inspect.getmembers(AsyncClient, inspect.isfunction) if not name.startswith("_")}
    assert public - NO_ROUTE == set(CALLS)
    reached = {f"{route.method} {route.path}" for route in map(route_of, CALLS)}
    routes = {f"{route.method} {route.path}" for route in ROUTES if route.path.startswith(("/api/", "/ws/"))}
    assert routes - reached == set(NOT_REACHED)


async def test_a_key_goes_with_what_changes_something(listener: tuple[Listener, AsyncClient], tmp_path: Path) -> None:
    heard, client = listener
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"{}\n")
    keyed = client.with_idempotency_key("once")
    await keyed.start_training(**TRAINING)
    await keyed.upload_dataset(file)
    await keyed.delete_model(1)
    await keyed.get_job(JOB)
    await client.stop_training()
    keys = [request.headers.get("Idempotency-Key") for _, request, _ in heard.asked]
    # a file, which cannot be sent twice, is sent once somebody has answered
    assert keys == ["once", None, "once", "once", None, None]
