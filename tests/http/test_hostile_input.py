"""Input that nobody sends by accident: each gets a 4xx in the one shape, and the server lives on."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from support.running_server import RECORDS, RunningServer, environment

Start = Callable[..., str]


def send(
    server: RunningServer, method: str, path: str, headers: dict[bytes, bytes], body: bytes = b""
) -> tuple[int, dict[str, object]]:
    """A request as bytes, since clients refuse to send these."""
    address = server.url.removeprefix("http://")
    with closing(http.client.HTTPConnection(address, timeout=20)) as connection:
        connection.putrequest(method, path, skip_host=b"Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.decode(), value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        problem: dict[str, object] = json.loads(answer.read())
    assert set(problem) >= {"error", "detail", "status_code"}
    assert problem["status_code"] == answer.status
    return answer.status, problem


JSON = {b"Content-Type": b"application/json"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({**JSON, b"Idempotency-Key": b"\xff"}, 400),
        ({**JSON, b"Idempotency-Key": b"\x7f"}, 400),
        ({**JSON, b"Origin": b"http://["}, 403),
        ({**JSON, b"Origin": b"file://localhost"}, 403),
        ({**JSON, b"Host": b"\xff"}, 421),
        ({**JSON, b"Host": b"evil@localhost"}, 421),
        ({**JSON, b"Host": b"localhost/evil"}, 421),
        ({**JSON, b"Host": b"localhost:abc"}, 421),
        ({**JSON, b"Host": b""}, 421),
        ({b"Content-Type": b"\xff"}, 415),
        ({**JSON, b"Expect": b"miracles"}, 417),
        ({**JSON, b"Content-Encoding": b"gzip"}, 415),
    ],
)
def test_a_hostile_header_is_refused(module_server: RunningServer, headers: dict[bytes, bytes], status: int) -> None:
    assert send(module_server, "POST", "/api/start_training", headers, b"{}")[0] == status
    assert module_server.get("/api/health").status_code == 200


@pytest.mark.parametrize("path", ["/api/models/" + "9" * 5000, "/api/models/٣", "/api/models/-1"])
def test_a_number_that_is_none_is_no_model(module_server: RunningServer, path: str) -> None:
    assert module_server.get(path).status_code == 404


def test_a_number_that_is_absurd_is_refused(module_server: RunningServer) -> None:
    answer = module_server.get("/api/events?after=" + "9" * 5000)
    assert answer.status_code == 400
    assert module_server.get("/api/events?after=900719925474099").json()["last_position"] == 0


@pytest.mark.parametrize(
    "part",
    [
        b'name="file"; filename="\xff"',
        b"name=\"file\"; filename*=unicode_escape''a%5Cud800",
        b'name="\xff"; filename="a.jsonl"',
        b'name="file"; filename="a.jsonl"\r\nX: ' + b"y" * 100_000,
        b'name="file"; filename="a.jsonl"\r\nno header at all',
        b'name="file"; filename="a.jsonl"' + b"\r\nX: y" * 1000,
        b'name="file"; filename=""',
    ],
)
def test_a_hostile_part_is_refused(module_server: RunningServer, part: bytes) -> None:
    body = b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n\r\n" + RECORDS + b"\r\n--b--\r\n"
    head = {b"Content-Type": b"multipart/form-data; boundary=b"}
    assert send(module_server, "POST", "/api/upload_dataset", head, body)[0] == 400
    assert module_server.get("/api/datasets").json() == {"datasets": []}


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("~nosuchuser/x", 400),
        ("/home/\0x", 400),
        ("/" + "a/" * 450, 400),
        ("a" * 900, 400),
        ("gpt2\n", 400),
        ("\ud800", 400),
        ("..", 400),
    ],
)
def test_a_hostile_model_name_is_refused(module_server: RunningServer, name: str, status: int) -> None:
    module_server.upload(RECORDS)
    body = {"task": "text-generation", "dataset": "data.jsonl", "model_name": name}
    answer = module_server.post("/api/start_training", body)
    assert answer.status_code == status, answer.text
    assert module_server.post("/api/playground/generate", {"prompt": "x", "base_model": name}).status_code == status


def test_loops_of_links_and_folders_for_files_are_refused(
    module_server: RunningServer, tmp_path: Path, model_folder: Path
) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    module_server.upload(RECORDS)
    body = {"task": "text-generation", "dataset": "data.jsonl", "model_name": str(model_folder)}
    assert module_server.post("/api/start_training", {**body, "dataset": str(loop)}).status_code == 400
    assert module_server.post("/api/start_training", {**body, "model_name": str(loop)}).status_code == 400
    (model_folder / "config.json").write_text("[" * 100_000)
    assert module_server.post("/api/start_training", body).status_code == 400
    (model_folder / "config.json").unlink()
    (model_folder / "config.json").mkdir()
    assert module_server.post("/api/start_training", body).status_code == 400


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 5000,
        b'{"input": ' + b"[" * 5000,
        b'{"input": 1, oops}',
        b'{"input": "a", "output": "b", "x": "\xc3\xa9t\xc3\xa9 \xff"}',
        b'{"input": "\\ud800", "output": "b"}',
    ],
)
def test_a_hostile_line_is_named(module_server: RunningServer, line: bytes) -> None:
    answer = module_server.upload(b'{"input": "a", "output": "b"}\n' + line + b"\n")
    assert answer.status_code == 400, answer.text
    assert answer.json()["validation"]["errors"][0]["line"] == 2


def test_a_name_with_a_line_break_is_refused(module_server: RunningServer, model_folder: Path) -> None:
    module_server.upload(RECORDS)
    body = {"task": "text-generation", "dataset": "data.jsonl", "model_name": str(model_folder)}
    assert module_server.post("/api/start_training", {**body, "output_name": "completes\n"}).status_code == 400


HIDDEN = (
    "\x00",
    "\x1b",
    "\x7f",
    "\x85",
    "\x9b",
    "\u061c",
    "\u200e",
    "\u200f",
    "\u202e",
    "\u2028",
    "\u2029",
    "\u2066",
    "\n",
)


@pytest.mark.parametrize("letter", HIDDEN, ids=lambda letter: f"U+{ord(letter):04X}")
def test_a_name_that_does_not_show_as_what_it_is_is_refused_with_the_letter_named(
    module_server: RunningServer, model_folder: Path, letter: str
) -> None:
    module_server.upload(RECORDS)
    before = module_server.get("/api/events?limit=1000").json()["last_position"]
    code = f"U+{ord(letter):04X}"
    body = {"task": "text-generation", "dataset": "data.jsonl", "model_name": str(model_folder)}
    for field, value in (
        ("output_name", f"a{letter}b"),
        ("model_name", f"/a{letter}b"),
        ("dataset", f"/a{letter}b.jsonl"),
        ("reward_model", f"/a{letter}b"),
    ):
        answer = module_server.post("/api/start_training", {**body, "strategy": "rlhf", field: value})
        assert answer.status_code == 400, answer.text
        named = {problem["field"]: problem for problem in answer.json().get("problems", [answer.json()])}[field]
        assert code in str(named), (field, named)
    if letter != "\x00":  # which no form can have
        name = quote(f"a{letter}b.jsonl")
        part = f"--b\r\nContent-Disposition: form-data; name=\"file\"; filename*=UTF-8''{name}\r\n\r\n".encode()
        head = {b"Content-Type": b"multipart/form-data; boundary=b"}
        status, problem = send(module_server, "POST", "/api/upload_dataset", head, part + RECORDS + b"\r\n--b--\r\n")
        assert (status, code in str(problem["detail"])) == (400, True), problem
    assert module_server.get("/api/events?limit=1000").json()["last_position"] == before


def test_names_in_every_script_are_taken(module_server: RunningServer) -> None:
    for name in ("Grüße.jsonl", "שלום.jsonl", "مرحبا.jsonl", "नमस्ते.jsonl", "👩‍🚀.jsonl", "می‌خواهم.jsonl"):
        assert module_server.upload(RECORDS, name).json()["filename"] == name


def test_python_files_beside_the_server_are_not_run(tmp_path: Path, data_dir: Path) -> None:
    for name in ("hashlib", "queue", "types", "datasets", "msgspec"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w').close()\n")
    program = Path(sys.executable).with_name("modelforge")
    command = [str(program), "serve", "--port", "0", "--data-dir", str(data_dir)]
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        server = RunningServer(command, environment())
    finally:
        os.chdir(before)
    assert server.upload(RECORDS).status_code == 200
    server.end()
    assert not (tmp_path / "pwned").exists()


def test_files_that_cannot_be_removed_are_said(server: RunningServer, start: Start, data_dir: Path) -> None:
    job = server.wait_for(start(server, "completes"))
    # A folder that is in the way: what is to be removed cannot be moved to the trash.
    (data_dir / "trash").rmdir()
    (data_dir / "trash").write_text("")
    answer = server.delete(f"/api/models/{job['model_id']}")
    assert answer.status_code == 500
    assert "files are still there" in answer.json()["error"]
    assert server.get("/api/models").json() == {"models": []}


def test_a_moved_data_directory_still_deletes(
    serve: Callable[..., RunningServer], start: Start, data_dir: Path, tmp_path: Path
) -> None:
    server = serve()
    job = server.wait_for(start(server, "completes"))
    server.end()
    data_dir.rename(tmp_path / "moved")
    server = serve(tmp_path / "moved")
    assert server.delete(f"/api/models/{job['model_id']}").status_code == 200
    assert list((tmp_path / "moved" / "models").iterdir()) == []


def test_an_upload_s_answer_is_the_first_again_whatever_came_since(server: RunningServer, data_dir: Path) -> None:
    other = b'{"input": "a", "output": "b"}\n'
    url, key = server.url + "/api/upload_dataset", {"Idempotency-Key": "k"}
    first = requests.post(url, files={"file": ("d.jsonl", RECORDS)}, headers=key, timeout=20)
    server.upload(other, "d.jsonl")
    again = requests.post(url, files={"file": ("d.jsonl", RECORDS)}, headers=key, timeout=20)
    assert again.json() == first.json()
    refused = requests.post(url, files={"file": ("d.jsonl", other * 2)}, headers=key, timeout=20)
    assert refused.status_code == 409
    assert len(list((data_dir / "datasets").iterdir())) == 2


def test_what_the_server_keeps_is_for_its_owner_only(server: RunningServer, start: Start, data_dir: Path) -> None:
    server.wait_for(start(server, "completes"))
    assert [path for path in data_dir.rglob("*") if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize("value", ["inf", "nan", "0", "-1"])
def test_a_time_that_is_none_is_refused_at_the_start(value: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "modelforge", "serve", "--port", "0", "--data-dir", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
        env=environment(MODELFORGE_STOP_GRACE_SECONDS=value),
    )
    assert ended.returncode == 1, ended.stdout
    assert "MODELFORGE_STOP_GRACE_SECONDS" in ended.stderr


def test_a_log_has_nothing_beyond_its_end(server: RunningServer, start: Start) -> None:
    job_id = start(server, "completes")
    server.wait_for(job_id)
    for offset in (2**40, 2**53):  # a file system has no such place
        answer = server.get(f"/api/jobs/{job_id}/logs?offset={offset}")
        assert (answer.status_code, answer.content, answer.headers["X-Next-Offset"]) == (200, b"", str(offset))
