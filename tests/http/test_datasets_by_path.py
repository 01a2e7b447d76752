"""A dataset by its path, of any kind: what is made of it stays as long as its job, and goes if there is none."""

import gzip
import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.running_server import RECORDS, RunningServer
from test_uploads import files_of

Start = Callable[..., str]


@pytest.fixture
def body(model_folder: Path) -> dict[str, object]:
    return {"task": "text-generation", "model_name": str(model_folder), "provider": "huggingface"}


def test_a_packed_file_is_trained_on_by_the_records_in_it(
    server: RunningServer, data_dir: Path, tmp_path: Path, body: dict[str, object]
) -> None:
    path = tmp_path / "records.jsonl.gz"
    path.write_bytes(gzip.compress(RECORDS))
    answer = server.post("/api/start_training", {**body, "dataset": str(path)})
    assert answer.status_code == 200, answer.text
    records = hashlib.sha256(RECORDS).hexdigest()
    job = server.get(f"/api/jobs/{answer.json()['job_id']}").json()
    assert job["dataset"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert files_of(data_dir) == [f"{records}.jsonl"]
    assert (data_dir / "datasets" / f"{records}.jsonl").read_bytes() == RECORDS
    server.post("/api/stop_training")
    server.end()
    server.start()
    assert files_of(data_dir) == [f"{records}.jsonl"]


def test_a_refused_start_leaves_nothing_of_a_packed_file(
    server: RunningServer, data_dir: Path, tmp_path: Path, body: dict[str, object], start: Start
) -> None:
    path = tmp_path / "records.csv"
    path.write_text("input,output\na,b\nc,d\n")
    assert server.post("/api/preflight", {**body, "dataset": str(path)}).json()["ok"]
    assert files_of(data_dir) == []
    for changed in ({"bf16": True, "fp16": True}, {"strategy": "dpo"}, {"model_name": str(tmp_path)}):
        assert server.post("/api/start_training", {**body, "dataset": str(path), **changed}).status_code == 400
        assert files_of(data_dir) == []
    start(server, "waits")
    before = files_of(data_dir)
    assert server.post("/api/start_training", {**body, "dataset": str(path)}).status_code == 409
    assert files_of(data_dir) == before


def test_the_encoding_of_a_file_by_its_path(
    server: RunningServer, data_dir: Path, tmp_path: Path, body: dict[str, object]
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes('{"input": "Привет", "output": "b"}\n'.encode("koi8_r") * 3)
    start = partial(server.post, "/api/start_training")
    for dataset in (str(path), "hf://owner/name", "data.jsonl"):
        server.upload(RECORDS).raise_for_status()
        refused = start({**body, "dataset": dataset, "encoding": "klingon"})
        assert (refused.status_code, refused.json()["field"]) == (400, "encoding"), dataset
    before = files_of(data_dir)
    answer = start({**body, "dataset": str(path), "encoding": "koi8-r"})
    assert answer.status_code == 200, answer.text
    (name,) = {*files_of(data_dir)} - {*before}
    lines = (data_dir / "datasets" / name).read_bytes().splitlines()
    assert [json.loads(line)["input"] for line in lines] == ["Привет"] * 3


def test_columns_of_a_file_by_its_path(
    server: RunningServer, data_dir: Path, tmp_path: Path, body: dict[str, object]
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"asked": "a", "said": "b"}\n' * 3)
    refused = server.post("/api/start_training", {**body, "dataset": str(path)})
    assert (refused.status_code, refused.json()["field"]) == (400, "dataset")
    columns: dict[str, object] = {"input": ["asked"], "output": "said"}
    answer = server.post("/api/start_training", {**body, "dataset": str(path), "columns": columns})
    assert answer.status_code == 200, answer.text
    (name,) = files_of(data_dir)
    lines = (data_dir / "datasets" / name).read_bytes().splitlines()
    assert [json.loads(line) for line in lines] == [{"input": "a", "output": "b"}] * 3
    server.post("/api/stop_training")
    server.upload(RECORDS).raise_for_status()
    uploaded = server.post("/api/start_training", {**body, "dataset": "data.jsonl", "columns": columns})
    assert (uploaded.status_code, uploaded.json()["field"]) == (400, "columns")
