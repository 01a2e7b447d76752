"""A dataset by its path, of any kind: what is made of it stays as long as its job, and goes if there is none."""

import gzip
import hashlib
import json
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.running_server import RECORDS, RunningServer
from test_uploads import files_of

from modelforge.admission.dataset import _open_allowed, allowed_file
from modelforge.errors import BadInput

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
    dataset = server.get(f"/api/jobs/{answer.json()['job_id']}").json()["dataset"]
    assert (dataset["origin"], dataset["columns"], dataset["encoding"]) == (str(path), columns, None)
    server.post("/api/stop_training")
    server.upload(RECORDS).raise_for_status()
    uploaded = server.post("/api/start_training", {**body, "dataset": "data.jsonl", "columns": columns})
    assert (uploaded.status_code, uploaded.json()["field"]) == (400, "columns")


def test_a_file_whose_name_leads_elsewhere_by_now_is_not_read(tmp_path: Path) -> None:
    root, outside = (tmp_path / "root").resolve(), tmp_path / "outside"
    for folder in (root / "folder", outside):
        folder.mkdir(parents=True)
        (folder / "data.jsonl").write_bytes(RECORDS)
    asked = allowed_file(str(root / "folder" / "data.jsonl"), (root,))
    os.close(_open_allowed(asked, (root,)))
    asked.rename(root / "kept")
    asked.symlink_to(outside / "data.jsonl")
    with pytest.raises(BadInput, match="changed"):
        _open_allowed(asked, (root,))
    asked.unlink()
    os.mkfifo(asked)
    with pytest.raises(BadInput, match="changed"):
        _open_allowed(asked, (root,))  # at once, though nobody writes
    asked.unlink()
    asked.parent.rmdir()
    asked.parent.symlink_to(outside)
    with pytest.raises(BadInput, match="changed"):
        _open_allowed(asked, (root,))


def test_a_file_that_is_exchanged_again_and_again_is_never_one_from_outside(
    server: RunningServer, tmp_path: Path, body: dict[str, object]
) -> None:
    outside = tmp_path.parent.parent.parent / f"{tmp_path.name}-outside.jsonl"
    outside.write_bytes(b"".join(RECORDS.splitlines(keepends=True)[:5]))
    foreign = hashlib.sha256(outside.read_bytes()).hexdigest()
    path, ended = tmp_path / "swap.jsonl", threading.Event()

    def exchange() -> None:
        other = tmp_path / "other"
        while not ended.is_set():
            other.write_bytes(RECORDS)
            other.rename(path)
            other.symlink_to(outside)
            other.rename(path)

    path.write_bytes(RECORDS)
    exchanging = threading.Thread(target=exchange)
    exchanging.start()
    try:
        answers = [
            server.post("/api/start_training", {**body, "dataset": str(path), "queue": True, "output_name": "waits"})
            for _ in range(12)
        ]
    finally:
        ended.set()
        exchanging.join()
        outside.unlink()
    assert {answer.status_code for answer in answers} <= {200, 400}, [answer.text for answer in answers]
    jobs = server.get("/api/jobs").json()["jobs"]
    assert all(job["dataset"]["sha256"] != foreign for job in jobs)
    for job in jobs:
        if job["status"] == "queued":
            server.post(f"/api/jobs/{job['job_id']}/cancel")
