"""The client of Python against a real server: what it asks, what it is told, and what it does when things break."""

import asyncio
import inspect
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.attempt_files import model_in, order
from support.running_server import RECORDS, RunningServer, environment, scripted_server

from modelforge import connection
from modelforge.client import AsyncClient, Client, RequestRefused
from modelforge.client.blocking import _Loop
from modelforge.connection import Connection
from modelforge.errors import BadInput
from modelforge.http.playground import Answer, Piece
from modelforge.projections.status_messages import LoggedRecord, StatusMessage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("client")


@pytest.fixture(scope="module")
def forge(folder: Path) -> Iterator[RunningServer]:
    server = scripted_server(folder / "data", "--scripted-answers")
    server.upload(RECORDS).raise_for_status()
    yield server
    server.end()


@pytest.fixture(scope="module")
def model(folder: Path) -> str:
    return str(model_in(folder))


@pytest.fixture
def client(forge: RunningServer) -> Iterator[Client]:
    with Client(forge.url) as client:
        yield client


def started(client: Client, model: str, behaviour: str) -> str:
    """The id of a job whose scripted trainer behaves as named."""
    return client.start_training(
        task="text-generation",
        model_name=model,
        dataset="data.jsonl",
        output_name=behaviour,
        max_steps=3,
        queue=True,
    ).job_id


def test_each_method_is_there_to_be_awaited_and_not() -> None:
    methods = {name for name, _ in inspect.getmembers(AsyncClient, inspect.isfunction) if not name.startswith("_")}
    assert methods == {name for name in vars(Client) if not name.startswith("_")} - {"is_closed"}
    for name in methods:
        one, other = getattr(AsyncClient, name), getattr(Client, name)
        assert one.__doc__
        assert inspect.signature(one).parameters == inspect.signature(other).parameters
        assert inspect.iscoroutinefunction(other) is False


def test_a_training_from_the_file_to_the_model(client: Client, folder: Path, model: str) -> None:
    file = folder / "pairs.jsonl"
    file.write_bytes(RECORDS)
    sent: list[int] = []
    uploaded = client.upload_dataset(file, task="text-generation", on_sent=sent.append)
    assert (uploaded.filename, uploaded.num_examples, sum(sent)) == ("pairs.jsonl", 20, len(RECORDS))
    asked = client.preflight(task="text-generation", model_name=model, dataset="pairs.jsonl", max_steps=3)
    assert asked.ok, asked.problems
    job_id = client.start_training(
        task="text-generation", model_name=model, dataset="pairs.jsonl", max_steps=3, output_name="completes"
    ).job_id
    messages = [*client.follow_job(job_id)]
    assert [message.current_step for message in messages if message.type == "MetricsLogged"][-1] == 3
    assert messages[-1].status == "completed"
    job = client.get_job(job_id)
    assert job.position == messages[-1].position
    assert [metric.step for metric in client.get_metrics(job_id).metrics] == [1, 2, 3]
    assert client.get_logs(job_id).data == b""
    assert job.model_id is not None
    assert client.get_model(job.model_id).job_id == job_id
    assert client.delete_model(job.model_id).status == "deleted"
    assert job.model_id not in {one.id for one in client.list_models().models}
    copy = folder / "copy.jsonl"
    client.download_dataset("pairs.jsonl", copy)
    assert copy.read_bytes() == RECORDS
    assert [one.line for one in client.preview_dataset("pairs.jsonl", limit=2).records] == [1, 2]
    assert client.delete_dataset("pairs.jsonl").status == "deleted"


async def test_the_same_is_awaited_and_works_beside_a_loop_that_runs(
    forge: RunningServer, client: Client, model: str
) -> None:
    async with AsyncClient(forge.url) as awaited:
        started = await awaited.start_training(
            task="text-generation", model_name=model, dataset="data.jsonl", max_steps=2, output_name="completes"
        )
        messages = [message async for message in awaited.follow_job(started.job_id)]
        assert messages == [*client.follow_job(started.job_id)]
        assert await awaited.get_job(started.job_id) == client.get_job(started.job_id)
        middle = messages[2].position
        assert [one async for one in awaited.follow_job(started.job_id, after=middle)] == messages[3:]
        assert [one async for one in awaited.follow_job(started.job_id, after=messages[-1].position)] == []


def test_what_is_refused_says_which_field_and_what_would_work(client: Client, folder: Path, model: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        client.start_training(task="text-generation", model_name=model, dataset="data.jsonl", lora_r=0)
    assert (refused.value.status, refused.value.field) == (400, "lora_r")
    assert refused.value.detail
    with pytest.raises(RequestRefused, match="No such job"):
        next(client.follow_job("train_999999"))
    with pytest.raises(RequestRefused, match="beyond the last"):
        next(client.stream_events(after=10**9))
    job_id = started(client, model, "completes")
    list(client.follow_job(job_id))
    bad = folder / "bad.jsonl"
    bad.write_bytes(b'{"input": "a"}\n')
    with pytest.raises(RequestRefused) as refused:
        client.upload_dataset(bad)
    assert refused.value.validation is not None
    assert refused.value.validation.errors[0].line == 1
    with pytest.raises(TypeError):
        client.start_training(task="text-generation", model_name=model, dataset="data.jsonl", lora_rank=8)  # type: ignore[call-arg]


def test_a_position_that_the_log_does_not_have_is_refused_at_once(client: Client, model: str) -> None:
    job_id = started(client, model, "obeys")
    with pytest.raises(RequestRefused, match="beyond the last"):
        next(client.follow_job(job_id, after=10**9))
    client.stop_job(job_id)
    assert [*client.follow_job(job_id)][-1].status == "stopped"


def test_a_job_that_goes_on_is_followed_to_its_last_end(client: Client, model: str, folder: Path) -> None:
    job_id = started(client, model, "obeys")
    client.stop_job(job_id)
    list(client.follow_job(job_id))
    assert client.resume_job(job_id).attempt == 2
    seen: list[str] = []
    goes_on = False
    for message in client.follow_job(job_id):
        seen.append(message.status)
        if message.status == "training" and "stopped" in seen and not goes_on:
            order(folder / "data", job_id, "finish", attempt=2)
            goes_on = True
    assert "stopped" in seen
    assert seen[-1] == "completed"


def test_an_answer_comes_whole_or_in_pieces(client: Client, model: str) -> None:
    script = '{"say": ["one ", "two"]}'
    whole = client.generate(prompt=script, base_model=model)
    *pieces, last = client.stream_answer(prompt=script, base_model=model)
    assert pieces == [Piece(text="one "), Piece(text="two")]
    assert isinstance(last, Answer)
    assert last.generated_text == whole.generated_text == "one two"
    with pytest.raises(BadInput, match="pieces"):
        client.generate(prompt=script, base_model=model, stream=True)
    with pytest.raises(RequestRefused):
        list(client.stream_answer(prompt='{"say": ["a"], "fail": "PromptTooLong"}', base_model=model))


def test_what_is_asked_twice_with_a_key_is_done_once(client: Client, model: str) -> None:
    keyed = client.with_idempotency_key("once")
    first, again = (started(keyed, model, "completes") for _ in range(2))
    assert first == again
    other = started(client, model, "completes")
    assert other != first
    for job_id in (first, other):
        list(client.follow_job(job_id))


def test_the_records_of_the_log_are_those_that_are_listed(client: Client, model: str) -> None:
    job_id = started(client, model, "completes")
    statuses = [*client.follow_job(job_id, records=True)]
    assert all(isinstance(message.record, LoggedRecord) for message in statuses)
    listed = client.list_events(stream=[job_id], limit=1000).events
    records = client.stream_events(job_id=job_id)
    assert [next(records) for _ in listed] == listed
    only = client.list_events(stream=job_id, type=["TrainingRequested", "TrainingCompleted"]).events
    assert [record.type for record in only] == ["TrainingRequested", "TrainingCompleted"]
    assert client.get_state(at=only[0].position).status.job_id == job_id


class Relay:
    """A port that leads to a server; `cut` ends all that is open."""

    def __init__(self, server: RunningServer) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self._to = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.count = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._listening.accept()
            except OSError:
                return
            theirs = socket.create_connection(self._to)
            self.count += 1
            self._open += [ours, theirs]
            for one, other in ((ours, theirs), (theirs, ours)):
                threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    def _copy(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(1 << 16):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def cut(self) -> None:
        for one in self._open:
            with closing(one):
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
        self._open.clear()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()


@pytest.fixture
def relay(forge: RunningServer) -> Iterator[Relay]:
    relay = Relay(forge)
    yield relay
    relay.close()


def test_a_connection_that_is_cut_costs_no_message_and_doubles_none(
    client: Client, relay: Relay, model: str, folder: Path
) -> None:
    job_id = started(client, model, "obeys")
    seen: list[StatusMessage] = []
    with Client(relay.url) as behind:
        for message in behind.follow_job(job_id, records=True):
            seen.append(message)
            if message.type == "TrainingStarted":
                relay.cut()
                order(folder / "data", job_id, "finish")
        assert relay.count > 1
        assert seen == [*client.follow_job(job_id, records=True)]
        last = client.list_events(stream=job_id, limit=1000).events[-1]
        records: list[LoggedRecord] = []
        for record in behind.stream_events(job_id=job_id):
            records.append(record)
            if len(records) == 2:
                relay.cut()
            if record == last:
                break
        assert records == client.list_events(stream=job_id, limit=1000).events


async def test_a_server_that_says_nothing_any_more_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(connection, "_SILENT_SECONDS", 0.1)
    monkeypatch.setattr(connection, "_AGAIN_SECONDS", 0)
    asked: list[str] = []
    ended = asyncio.Event()

    async def follow(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        asked.append(request.query["after"])
        await socket.send_json({"position": len(asked)})
        await ended.wait()  # and nobody hears the client's pings
        return socket

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        asked.append(request.query["after"])
        await response.write(b'data: {"position": %d}\n\n' % len(asked))
        await ended.wait()
        return response

    app = web.Application()
    app.router.add_get("/ws/training", follow)
    app.router.add_get("/api/events/stream", stream)
    async with TestServer(app) as server, Connection(f"http://127.0.0.1:{server.port}") as lost:
        for following in (lost.follow(0, connection._Position), lost.follow_records(0, connection._Position)):  # noqa: SLF001 - of any kind
            async with aclosing(following) as messages:
                assert [(await anext(messages)).position for _ in range(2)] == [1, 2]
            assert asked == ["0", "1"]
            asked.clear()
        ended.set()


def test_who_interrupts_it_gets_on_at_once_and_the_client_goes_on(client: Client, model: str) -> None:
    job_id = started(client, model, "obeys")
    main = threading.main_thread().ident or 0

    def interrupt() -> None:
        while sys._current_frames()[main].f_code.co_name != "wait":  # noqa: SLF001 - until it waits, and for nothing else
            pass
        signal.pthread_kill(main, signal.SIGINT)

    def follow() -> None:
        for message in client.follow_job(job_id):
            if message.current_step == 3:
                threading.Thread(target=interrupt).start()

    with pytest.raises(KeyboardInterrupt):
        follow()
    assert client.stop_job(job_id).status in {"stopping", "stopped"}
    assert [*client.follow_job(job_id)][-1].status == "stopped"


def test_a_closed_client_says_so_and_one_that_is_dropped_leaves_nothing(forge: RunningServer) -> None:
    client = Client(forge.url)
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.get_info()
    script = (
        "from modelforge.client import Client\nkeyed = Client().with_idempotency_key('a')\nprint(keyed.get_health())"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(MODELFORGE_URL=forge.url),
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "healthy" in ended.stdout


def test_an_iterator_that_is_collected_as_garbage_in_the_client_s_own_thread_stops_nothing(
    forge: RunningServer,
) -> None:
    with Client(forge.url) as client:
        records = client.stream_events()
        next(records)
        held = [records]
        del records

        async def let_go() -> None:
            held.clear()

        client._loop.run(let_go())  # noqa: SLF001 - as the collector would, which runs in any thread
        assert client.get_health().status == "healthy"


def test_who_asks_while_another_thread_closes_the_client_is_answered_or_told(
    forge: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(forge.url)
    goes, may_go = threading.Event(), threading.Event()
    begin = _Loop._begin  # noqa: SLF001 - the instant between what was looked at and what is done

    def late(loop: _Loop, work: Any) -> Any:
        goes.set()
        may_go.wait()
        return begin(loop, work)

    monkeypatch.setattr(_Loop, "_begin", late)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.get_health)
        goes.wait()
        client.close()
        may_go.set()
        with pytest.raises(RuntimeError, match="closed"):
            asked.result(timeout=20)


def test_a_server_that_is_not_there_is_named() -> None:
    with (
        Client("http://127.0.0.1:1") as client,
        pytest.raises(RequestRefused, match=r"cannot be reached.*127\.0\.0\.1"),
    ):
        client.get_info()


def test_a_token_is_shown_from_the_environment(
    tmp_path: Path, forge: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = forge.as_owner()["Authorization"].removeprefix("Bearer ")
    with Client(forge.url, token=owner) as admin:
        made = admin.create_token(name="reader", scope="read")
        monkeypatch.setenv("MODELFORGE_API_TOKEN", made.token)
        monkeypatch.setenv("MODELFORGE_URL", forge.url)
        try:
            with Client() as reader:
                assert reader.list_jobs(limit=1).has_more in {True, False}
                with pytest.raises(RequestRefused) as refused:
                    reader.stop_training()
                assert refused.value.status == 403
        finally:
            assert admin.revoke_token("reader").status == "revoked"


def test_it_loads_no_training_library_and_the_terminal_does_not_load_it() -> None:
    script = (
        "import sys, {}\n"
        "print([name for name in ('torch', 'transformers', 'modelforge.client', 'modelforge.http.routes') "
        "if name in sys.modules])"
    )
    loaded = [
        subprocess.run(
            [sys.executable, "-c", script.format(module)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ},
        ).stdout.strip()
        for module in ("modelforge.client", "modelforge.cli.job_commands")
    ]
    assert loaded == ["['modelforge.client']", "[]"]


def test_many_threads_ask_one_client(client: Client) -> None:
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(client.get_health().status)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["healthy"] * 8
    assert asyncio.run(asyncio.to_thread(client.get_health)).status == "healthy"
