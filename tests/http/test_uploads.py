"""Uploads of every kind: whatever is sent is taken whole or refused by a 400, and then nothing of it is left."""

import asyncio
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
import requests
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from support.running_server import RECORDS, RunningServer

GOOD = b'{"input": "a", "output": "b"}\n'
fragments = st.sampled_from(
    [GOOD, b"{", b"}", b"[", b"]", b"\n", b'"', b"\\", b",", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"input,output\n"]
)
anything = st.one_of(
    st.binary(max_size=300),
    st.lists(fragments, max_size=12).map(b"".join),
    st.lists(fragments, max_size=6).map(lambda parts: gzip.compress(b"".join(parts))),
    st.binary(max_size=60).map(lambda tail: b"\x28\xb5\x2f\xfd" + tail),
    st.binary(max_size=60).map(lambda tail: b"PAR1" + tail + b"PAR1"),
)
names = st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz", "a", "a.csv.zst"])


def files_of(data_dir: Path) -> list[str]:
    return sorted(path.name for folder in ("datasets", "tmp", "trash") for path in (data_dir / folder).iterdir())


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=anything, name=names)
@example(content=b"PAR1PAR1", name="a.parquet")
@example(content=b"[" * 5000, name="a.json")
@example(content=b'{"input":' * 5000, name="a.jsonl")
@example(content=b"\x1f\x8b", name="a.gz")
def test_any_bytes_are_taken_or_refused(server: RunningServer, data_dir: Path, content: bytes, name: str) -> None:
    before, listed = files_of(data_dir), server.get("/api/datasets").json()
    answer = server.upload(content, filename=name)
    assert answer.status_code in {200, 400}, answer.text
    if answer.status_code == 400:
        assert files_of(data_dir) == before
        assert server.get("/api/datasets").json() == listed
        assert answer.json()["validation"]["errors"]


def test_records_of_every_kind_of_file_are_the_same_records(server: RunningServer) -> None:
    rows = [json.loads(line) for line in RECORDS.splitlines()]
    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), out)
    table = "".join(f"{row['input']},{row['output']}\r\n" for row in rows)
    for name, content in {
        "a.jsonl": RECORDS,
        "a.jsonl.gz": gzip.compress(RECORDS),
        "a.json": json.dumps(rows, indent=1).encode(),
        "a.csv": b"input,output\r\n" + table.encode(),
        "a.parquet": out.getvalue(),
    }.items():
        answer = server.upload(content, filename=name)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["num_examples"], answer.json()["format"]) == (len(rows), "input_output")
        assert answer.json()["sha256"] == hashlib.sha256(content).hexdigest()


def test_columns_are_named_or_proposed(server: RunningServer, data_dir: Path) -> None:
    content = b'{"inputt": "a", "response": "b"}\n'
    refused = server.upload(content)
    assert refused.status_code == 400
    proposed = 'columns={"input":"inputt","output":"response"}'
    assert proposed in refused.json()["validation"]["errors"][0]["message"]
    taken = server.upload(content, columns=proposed.removeprefix("columns="))
    assert (taken.status_code, taken.json()["format"]) == (200, "input_output")
    kept = files_of(data_dir)
    for columns in (
        "[]",
        "{",
        '{"colour": "question"}',
        '{"input": 1}',
        '{"input": ""}',
        '{"input": []}',
        '{"messages": ["a", "b"]}',
        '{"input": "a", "output": "a"}',
    ):
        answer = server.upload(content, columns=columns)
        assert (answer.status_code, answer.json()["field"]) == (400, "columns"), columns
    assert files_of(data_dir) == kept


def test_columns_that_were_found_are_said_wherever_the_dataset_is_shown(server: RunningServer) -> None:
    taken = server.upload(b'{"question": "a", "response": "b", "id": 7}\n').json()
    mapping = {"input": "question", "output": "response"}
    assert taken["columns"] == {"used": ["question", "response"], "ignored": ["id"], "mapping": mapping}
    assert "The columns are read as" in taken["validation"]["warnings"][0]["message"]
    name = taken["filename"]
    assert server.get(f"/api/datasets/{name}").json()["columns"] == taken["columns"]
    preview = server.get(f"/api/datasets/{name}/preview").json()
    assert preview["columns"] == taken["columns"]
    assert preview["records"][0]["record"] == {"input": "a", "output": "b", "id": 7}
    composed = server.upload(b'{"a": "x", "b": "y", "c": "z"}\n', columns='{"input": "{a}: {b}", "output": "c"}').json()
    assert (composed["format"], composed["columns"]["used"]) == ("input_output", ["a", "b", "c"])


def test_an_encoding_that_is_said_is_read_and_part_of_the_request(server: RunningServer, data_dir: Path) -> None:
    content = '{"input": "Привет", "output": "b"}\n'.encode("koi8_r")
    url, files = server.url + "/api/upload_dataset", {"file": ("data.jsonl", content)}

    def send(encoding: str) -> requests.Response:
        key = {"Idempotency-Key": "one"}
        return requests.post(url, files=files, data={"encoding": encoding}, headers=key, timeout=60)

    taken = send("KOI8-R")
    assert (taken.status_code, taken.json()["validation"]["warnings"]) == (200, [])
    assert send("koi8_r").json() == taken.json()
    assert send("cp1251").status_code == 409
    shown = server.get("/api/datasets/data.jsonl/preview").json()
    assert "Привет" in json.dumps(shown, ensure_ascii=False)
    kept = files_of(data_dir)
    for encoding in ("base64", "klingon", "x" * 500, "utf-16-be", "ascii"):
        answer = server.upload(content, encoding=encoding)
        field = "file" if encoding in {"utf-16-be", "ascii"} else "encoding"
        assert (answer.status_code, answer.json()["field"]) == (400, field), encoding
    assert files_of(data_dir) == kept
    other = server.upload(content, encoding="windows-1251")
    assert (other.status_code, other.json()["revision"]) == (200, 2)


def test_columns_that_come_in_pieces_are_read_whole(server: RunningServer) -> None:
    columns = b'{"input": "question", %s"output": "response"}' % (b" " * 300)
    form = (
        b'--b\r\nContent-Disposition: form-data; name="columns"\r\n\r\n'
        + columns
        + b'\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        + b'{"question": "a", "response": "b"}\n\r\n--b--\r\n'
    )

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(form), 40):
            yield form[begin : begin + 40]
            await asyncio.sleep(0.005)

    async def send() -> tuple[int, str]:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{server.url}/api/upload_dataset", data=pieces(), headers=headers) as answer,
        ):
            return answer.status, await answer.text()

    status, text = asyncio.run(send())
    assert status == 200, text


def test_what_unpacks_to_more_than_may_be_uploaded_is_refused(
    serve: Callable[..., RunningServer], data_dir: Path
) -> None:
    server = serve(MODELFORGE_MAX_UPLOAD_BYTES="100000")
    for content in (gzip.compress(GOOD * 100_000), gzip.compress(b" " * 50_000_000)):
        assert len(content) < 100_000
        answer = server.upload(content, filename="a.jsonl.gz")
        assert answer.status_code == 400
        assert "larger than 100000 bytes" in answer.json()["detail"]
    assert files_of(data_dir) == []


def test_a_large_upload_is_told_about(server: RunningServer) -> None:
    rows = b"".join(b'{"input": "%d", "output": "%s"}\n' % (n, b"word " * 200) for n in range(40_000))
    content = zlib.compress(rows, level=1, wbits=31)

    async def watch() -> list[dict[str, object]]:
        heard: list[dict[str, object]] = []
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/ws/datasets") as ws:
            upload = asyncio.create_task(asyncio.to_thread(server.upload, content, "large.jsonl.gz"))
            async with asyncio.timeout(120):
                async for message in ws:
                    heard.append(json.loads(message.data))
                    if heard[-1]["stage"] in {"taken", "refused"}:
                        break
            assert (await upload).status_code == 200
        return heard

    heard = asyncio.run(watch())
    assert {message["filename"] for message in heard} == {"large.jsonl.gz"}
    assert len({message["upload"] for message in heard}) == 1
    assert heard[-1]["stage"] == "taken"
    assert "unpacking" in {message["stage"] for message in heard}
