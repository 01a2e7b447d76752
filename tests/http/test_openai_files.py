"""Files, models and errors as OpenAI's own client sees them."""

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
import requests
from support.running_server import RECORDS, RunningServer

OTHER = b'{"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]}\n' * 3


def client_of(server: RunningServer, key: str = "sk-none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def client(module_server: RunningServer) -> Iterator[openai.OpenAI]:
    with client_of(module_server) as client:
        yield client


def test_a_file_is_uploaded_found_read_and_deleted(client: openai.OpenAI, module_server: RunningServer) -> None:
    made = client.files.create(file=("a.jsonl", RECORDS), purpose="fine-tune")
    assert (made.filename, made.bytes, made.purpose, made.status) == ("a.jsonl", len(RECORDS), "fine-tune", "processed")
    assert client.files.retrieve(made.id) == made
    assert client.files.wait_for_processing(made.id) == made
    assert client.files.content(made.id).read() == RECORDS
    assert "a.jsonl" in {one["filename"] for one in module_server.get("/api/datasets").json()["datasets"]}
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)


def test_the_same_name_with_another_content_is_another_file(client: openai.OpenAI) -> None:
    one = client.files.create(file=("train.jsonl", RECORDS), purpose="fine-tune")
    other = client.files.create(file=("train.jsonl", OTHER), purpose="fine-tune")
    again = client.files.create(file=("train.jsonl", OTHER), purpose="fine-tune")
    assert other.id == again.id != one.id
    assert other.filename.startswith("train-")
    assert client.files.content(one.id).read() == RECORDS
    assert client.files.content(other.id).read() == OTHER


def test_an_id_stands_for_no_other_content_though_its_name_does(
    client: openai.OpenAI, module_server: RunningServer
) -> None:
    made = client.files.create(file=("again.jsonl", RECORDS), purpose="fine-tune")
    module_server.upload(OTHER, "again.jsonl").raise_for_status()
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)


def test_files_of_one_name_that_come_at_once_are_each_their_own(
    client: openai.OpenAI, module_server: RunningServer, module_data_dir: Path
) -> None:
    # given uploads whose checks end while the server does not look, so that it hears of all ends at once
    contents = [RECORDS + b'{"input": "%d", "output": "b"}\n' % number for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(client.files.create, file=("at-once.jsonl", one), purpose="fine-tune") for one in contents]
        while len([*(module_data_dir / "tmp").glob("check-*")]) < len(contents) and not any(
            one.done() for one in asked
        ):
            time.sleep(0.002)
        module_server.process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        # when
        module_server.process.send_signal(signal.SIGCONT)
        made = [one.result() for one in asked]
    # then
    assert [client.files.content(one.id).read() for one in made] == contents


def test_a_key_whose_file_was_deleted_is_told_so(client: openai.OpenAI) -> None:
    ask: Any = {"file": ("once.jsonl", RECORDS), "purpose": "fine-tune", "extra_headers": {"Idempotency-Key": "once"}}
    made = client.files.create(**ask)
    assert client.files.create(**ask) == made
    client.files.delete(made.id)
    with pytest.raises(openai.ConflictError, match="deleted"):
        client.with_options(timeout=20).files.create(**ask)


def test_pages_of_files_have_each_once(client: openai.OpenAI) -> None:
    for number in range(5):
        client.files.create(file=(f"page{number}.jsonl", RECORDS), purpose="fine-tune")
    everything = [one.id for one in client.files.list()]
    assert [one.id for one in client.files.list(limit=2)] == everything
    assert [one.id for one in client.files.list(limit=2, order="asc")] == everything[::-1]
    assert client.files.list(limit=2).has_more
    assert list(client.files.list(purpose="batch")) == []
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.list(after="file-none")
    assert refused.value.param == "after"


def test_records_that_are_none_are_refused_with_their_line_and_field(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("bad.jsonl", b'{"input": "a", "outptu": "b"}\n'), purpose="fine-tune")
    assert refused.value.param == "file"
    assert "Line 1" in refused.value.message or "line 1" in refused.value.message
    assert "outptu" in refused.value.message


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"purpose": "assistants"}, "purpose"),
        ({"purpose": "fine-tune", "extra_body": {"colour": "blue"}}, "colour"),
        ({"purpose": "fine-tune", "expires_after": {"anchor": "created_at", "seconds": 3600}}, "expires_after[anchor]"),
    ],
)
def test_what_a_form_cannot_have_is_refused_by_its_name(
    client: openai.OpenAI, form: dict[str, object], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("a.jsonl", RECORDS), **form)  # type: ignore[arg-type]
    assert refused.value.param == param


def test_a_form_without_a_purpose_is_refused(module_server: RunningServer) -> None:
    answer = requests.post(f"{module_server.url}/v1/files", files={"file": ("a.jsonl", RECORDS)}, timeout=60)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "purpose")


def test_a_form_is_taken_however_the_network_divides_it(module_server: RunningServer) -> None:
    # given a form as the client writes it, piece by piece: little of a part comes, and then much with the next
    purpose = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune'
    file = b'--b\r\nContent-Disposition: form-data; name="file"; filename="pieces.jsonl"\r\n\r\n'
    pieces = [purpose, b"\r\n", file + RECORDS + b"\r\n--b--\r\n"]
    head = (
        b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n" % sum(map(len, pieces))
    )
    address = urlsplit(module_server.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # when
        for piece in (head, *pieces):
            connection.sendall(piece)
            time.sleep(0.2)
        # then
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_models_are_listed_retrieved_and_deleted(
    serve: Callable[..., RunningServer], start: Callable[..., str], model_folder: Path
) -> None:
    server = serve()
    job = start(server, "completes")
    server.wait_for(job, "completed")
    with client_of(server) as client:
        trained, *bases = client.models.list()
        assert {trained.owned_by, *(base.owned_by for base in bases)} == {"modelforge", "base"}
        assert "/" in trained.id  # of the base's path: it is percent-encoded in that of the request
        assert client.models.retrieve(trained.id) == trained
        assert client.models.retrieve(str(model_folder)).owned_by == "base"
        with pytest.raises(openai.BadRequestError) as refused:
            client.models.delete(str(model_folder))
        assert refused.value.param == "model"
        assert client.models.delete(trained.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(trained.id)
        # and what is refused for good is not asked again
        used = start(server, "waits")
        (file,) = client.files.list()
        with pytest.raises(openai.ConflictError) as conflict:
            client.with_options(max_retries=2).files.delete(file.id)
        assert conflict.value.response.headers["x-should-retry"] == "false"
        assert conflict.value.response.request.headers["x-stainless-retry-count"] == "0"
        server.post(f"/api/jobs/{used}/stop")
        server.wait_for(used, "stopped")


def test_a_key_that_is_no_token_is_refused_once_there_are_tokens(serve: Callable[..., RunningServer]) -> None:
    server = serve()
    with client_of(server) as client:
        assert list(client.files.list()) == []
        server.shown = server.as_owner()
        token = server.post("/api/tokens", {"name": "sdk", "scope": "read"}).json()["token"]
        with pytest.raises(openai.AuthenticationError) as refused:
            client.files.list()
        assert refused.value.code == "invalid_api_key"
    with client_of(server, token) as client:
        assert list(client.files.list()) == []
        with pytest.raises(openai.PermissionDeniedError):
            client.files.create(file=("a.jsonl", RECORDS), purpose="fine-tune")


def test_a_path_that_is_none_is_told_in_the_same_shape(module_server: RunningServer) -> None:
    answer = module_server.get("/v1/nowhere")
    assert answer.status_code == 404
    assert set(json.loads(answer.text)["error"]) == {"message", "type", "param", "code"}
