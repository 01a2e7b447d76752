"""What a dataset is, its bytes, and its end, over HTTP."""

import asyncio
import hashlib
import random
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
import requests
from support.attempt_files import training
from support.running_log import running_log
from support.running_server import RECORDS, RunningServer
from torture.promises import broken_promises

from modelforge.domain import dataset, job
from modelforge.domain.messages import Command
from modelforge.layout import Layout
from trainer_entry import wire

Start = Callable[..., str]
Serve = Callable[..., RunningServer]
MORE = b'{"input": "one more question", "output": "one more answer"}\n'
CSV = b"Question,Answer\none,1\ntwo,2\n"
MADE = b'{"input": "one", "output": "1"}\n{"input": "two", "output": "2"}\n'


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def path_of(name: str, verb: str = "") -> str:
    return f"/api/datasets/{quote(name, safe='')}{verb}"


def download(server: RunningServer, name: str = "data.jsonl", query: str = "", **headers: str) -> requests.Response:
    return server.get(path_of(name, f"/download{query}"), headers=headers)


def files_in(data_dir: Path) -> set[str]:
    return {path.name for folder in ("datasets", "tmp", "trash") for path in (data_dir / folder).iterdir()}


def record(data_dir: Path, *commands: Command) -> None:
    """Write commands, and what they lead to, into the log of a directory that nobody serves."""

    async def write() -> None:
        async with running_log(Layout(data_dir).log) as running:
            for command in commands:
                await running.submit(command)

    Layout(data_dir).make_folders()
    asyncio.run(write())


@pytest.fixture(scope="module")
def stocked(module_server: RunningServer) -> RunningServer:
    """A server with one dataset, for tests that leave it as it is."""
    module_server.upload(RECORDS).raise_for_status()
    return module_server


# ---- what it is ----


def test_a_dataset_tells_what_it_is_and_what_it_was(server: RunningServer, start: Start) -> None:
    server.upload(RECORDS).raise_for_status()
    job_id = start(server, "completes")
    server.wait_for(job_id)
    server.upload(RECORDS + MORE).raise_for_status()
    now = server.get("/api/datasets/data.jsonl").json()
    assert (now["revision"], now["num_examples"], now["sha256"]) == (2, 21, sha(RECORDS + MORE))
    assert (now["format"], now["container"], now["compression"]) == ("input_output", "jsonl", None)
    assert (now["records_sha256"], now["warnings"], now["warning_count"]) == (None, [], 0)
    assert now["columns"] == {"used": ["input", "output"], "ignored": [], "mapping": None}
    assert (now["size_bytes"], now["jobs"]) == (len(RECORDS + MORE), [job_id])
    assert (now["tasks"], now["strategies"]) == (["text-generation", "summarization"], ["sft", "qlora", "rlhf"])
    [summary] = server.get("/api/datasets").json()["datasets"]
    assert {name: now[name] for name in summary} == summary
    first = server.get("/api/datasets/data.jsonl?revision=1").json()
    assert (first["revision"], first["sha256"], first["revisions"]) == (1, sha(RECORDS), now["revisions"])
    assert [(one["revision"], one["num_examples"]) for one in now["revisions"]] == [(1, 20), (2, 21)]
    used = server.get(f"/api/jobs/{job_id}").json()["dataset"]
    assert (used["revision"], used["sha256"], used["deleted_at"]) == (1, sha(RECORDS), None)


@pytest.mark.parametrize("verb", ["", "/download"])
def test_what_is_not_there_is_not_found(stocked: RunningServer, verb: str) -> None:
    for path, status in (
        (f"/api/datasets/other.jsonl{verb}", 404),
        (f"/api/datasets/data.jsonl{verb}?revision=2", 404),
        (f"/api/datasets/data.jsonl{verb}?revision=0", 400),
        (f"/api/datasets/data.jsonl{verb}?revision=last", 400),
    ):
        answer = stocked.get(path)
        assert (answer.status_code, answer.json()["status_code"]) == (status, status)
    assert stocked.delete("/api/datasets/other.jsonl").status_code == 404


# ---- its bytes ----


def test_the_bytes_come_back_as_they_were(server: RunningServer) -> None:
    server.upload(RECORDS).raise_for_status()
    server.upload(RECORDS * 5_000).raise_for_status()
    whole = download(server)
    assert whole.content == RECORDS * 5_000
    assert whole.headers["ETag"] == f'"{sha(whole.content)}"'
    assert whole.headers["Content-Type"] == "application/x-ndjson"
    assert int(whole.headers["Content-Length"]) == len(whole.content)
    first = download(server, query="?revision=1")
    assert (first.content, first.headers["ETag"]) == (RECORDS, f'"{sha(RECORDS)}"')


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=7-99", 7, 100),
        ("bytes=100-", 100, None),
        ("bytes=-5", -5, None),
        ("bytes=900-99999999", 900, None),
        ("bytes=-99999999", 0, None),
    ],
)
def test_a_part_is_sent_for_a_range(stocked: RunningServer, asked: str, begin: int, end: int | None) -> None:
    part = download(stocked, Range=asked)
    wanted = RECORDS[begin:end]
    first = RECORDS.index(wanted) if begin < 0 else begin
    assert (part.status_code, part.content) == (206, wanted)
    assert part.headers["Content-Range"] == f"bytes {first}-{first + len(wanted) - 1}/{len(RECORDS)}"
    if_same = download(stocked, **{"Range": asked, "If-Range": part.headers["ETag"]})
    assert (if_same.status_code, if_same.content) == (206, wanted)
    changed = download(stocked, **{"Range": asked, "If-Range": '"another"'})
    assert (changed.status_code, changed.content) == (200, RECORDS)


@pytest.mark.parametrize("asked", [f"bytes={len(RECORDS)}-", "bytes=99999999-", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(stocked: RunningServer, asked: str) -> None:
    refused = download(stocked, Range=asked)
    assert (refused.status_code, refused.json()["status_code"]) == (416, 416)
    assert refused.headers["Content-Range"] == f"bytes */{len(RECORDS)}"


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=-", "lines=1-2", "bytes=0-1,5-6", "bytes=" + "9" * 5000 + "-"])
def test_a_range_that_cannot_be_read_is_passed_over(stocked: RunningServer, asked: str) -> None:
    whole = download(stocked, Range=asked)
    assert (whole.status_code, whole.content) == (200, RECORDS)


def test_who_has_the_bytes_is_not_sent_them(stocked: RunningServer) -> None:
    for had in (f'"{sha(RECORDS)}"', f'"x", W/"{sha(RECORDS)}"', "*"):
        answer = download(stocked, **{"If-None-Match": had})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", f'"{sha(RECORDS)}"')
    assert download(stocked, **{"If-None-Match": '"another"'}).content == RECORDS


@pytest.mark.parametrize(
    "name",
    [
        "two words.jsonl",
        "数据 ünï — 👍.jsonl",
        "100%.jsonl",
        "a%2Fb%252F.jsonl",
        "{braces}.jsonl",
        "a?b=c#d;e&f+g.jsonl",
        "it's (one) 'or' two\"s.jsonl",
        "...",
        "preview",
    ],
)
def test_a_name_may_be_anything(stocked: RunningServer, name: str) -> None:
    shown = stocked.upload(RECORDS, filename=name).json()["filename"]  # as the client's form has it
    assert stocked.get(path_of(shown)).json()["filename"] == shown
    answer = download(stocked, shown)
    assert answer.content == RECORDS
    disposition = answer.headers["Content-Disposition"]
    match = re.fullmatch(r"attachment; filename=\"([ -!#-\[\]-~]*)\"; filename\*=UTF-8''([\w.~%-]+)", disposition)
    assert match is not None, disposition
    assert unquote(match[2]) == shown
    assert stocked.delete(path_of(shown)).status_code == 200
    assert stocked.get(path_of(shown)).status_code == 404


def test_a_file_that_is_missing_is_said(server: RunningServer, data_dir: Path) -> None:
    server.upload(RECORDS).raise_for_status()
    (data_dir / "datasets" / f"{sha(RECORDS)}.jsonl").unlink()
    gone = download(server)
    assert (gone.status_code, "upload the same bytes again" in gone.json()["detail"]) == (404, True)
    server.upload(RECORDS).raise_for_status()
    assert download(server).content == RECORDS


# ---- its end ----


def test_a_deleted_dataset_is_gone_with_its_files(server: RunningServer, data_dir: Path) -> None:
    server.upload(RECORDS).raise_for_status()
    server.upload(RECORDS + MORE).raise_for_status()
    answer = server.delete("/api/datasets/data.jsonl")
    assert answer.status_code == 200
    assert answer.json() == {"status": "deleted", "message": "Dataset deleted successfully"}
    assert files_in(data_dir) == set()
    assert server.get("/api/datasets").json() == {"datasets": []}
    for path in ("", "/download", "?revision=1"):
        assert server.get(f"/api/datasets/data.jsonl{path}").status_code == 404
    assert server.delete("/api/datasets/data.jsonl").status_code == 404
    again = server.upload(RECORDS).json()
    assert again["revision"] == 3
    assert [one["revision"] for one in server.get("/api/datasets/data.jsonl").json()["revisions"]] == [3]
    assert server.get("/api/datasets/data.jsonl?revision=1").status_code == 404


def test_what_another_dataset_has_too_stays(server: RunningServer, data_dir: Path) -> None:
    for name in ("data.jsonl", "other.jsonl"):
        server.upload(RECORDS, filename=name).raise_for_status()
    server.upload(RECORDS + MORE).raise_for_status()
    server.delete("/api/datasets/data.jsonl").raise_for_status()
    assert files_in(data_dir) == {f"{sha(RECORDS)}.jsonl"}
    assert download(server, "other.jsonl").content == RECORDS
    server.delete("/api/datasets/other.jsonl").raise_for_status()
    assert files_in(data_dir) == set()


def test_a_dataset_that_a_job_uses_is_not_deleted(server: RunningServer, start: Start, data_dir: Path) -> None:
    running = start(server, "waits", max_steps=100_000)
    server.upload(MORE * 3, filename="next.jsonl").raise_for_status()
    body = training(data_dir.parent / "base", "completes", dataset="next.jsonl", queue=True)
    waiting = server.post("/api/start_training", body).json()["job_id"]
    server.upload(RECORDS + MORE).raise_for_status()  # the job stays with the revision that it was started with
    for name, job_id in (("data.jsonl", running), ("next.jsonl", waiting)):
        refused = server.delete(f"/api/datasets/{name}")
        assert (refused.status_code, job_id in refused.json()["detail"]) == (409, True)
    server.post(f"/api/jobs/{waiting}/cancel").raise_for_status()
    assert server.delete("/api/datasets/next.jsonl").status_code == 200
    assert server.post(f"/api/jobs/{waiting}/resume").status_code == 404
    server.post("/api/stop_training").raise_for_status()
    assert server.delete("/api/datasets/data.jsonl").status_code == 200
    refused = server.post(f"/api/jobs/{running}/resume")
    assert (refused.status_code, "was deleted" in refused.json()["error"]) == (404, True)
    assert files_in(data_dir) == set()


def test_a_job_says_that_its_dataset_was_deleted_and_is_not_started_again(server: RunningServer, start: Start) -> None:
    job_id = start(server, "completes")
    model_id = server.wait_for(job_id)["model_id"]
    before = server.get(f"/api/models/{model_id}").json()["dataset"]
    server.delete("/api/datasets/data.jsonl").raise_for_status()
    told = [server.get(f"/api/jobs/{job_id}").json(), server.get(f"/api/models/{model_id}").json()]
    told += [server.get("/api/jobs").json()["jobs"][0], server.get("/api/state").json()["models"][0]]
    for one in told:
        assert re.fullmatch(r"20..-..-..T..:..:..Z", one["dataset"]["deleted_at"])
        assert {**one["dataset"], "deleted_at": None} == before
    assert (before["filename"], before["sha256"]) == ("data.jsonl", sha(RECORDS))
    refused = server.post(f"/api/jobs/{job_id}/rerun")
    assert (refused.status_code, refused.json()["error"]) == (404, "The dataset was deleted")
    assert told[0]["dataset"]["deleted_at"] in refused.json()["detail"]
    # the same bytes are as good, under whatever name
    server.upload(RECORDS, filename="again.jsonl").raise_for_status()
    assert server.get(f"/api/jobs/{job_id}").json()["dataset"] == before
    assert server.wait_for(server.post(f"/api/jobs/{job_id}/rerun").json()["job_id"])["status"] == "completed"


def test_what_a_finished_job_used_stays_whatever_is_uploaded_since(
    server: RunningServer, start: Start, serve: Serve, data_dir: Path
) -> None:
    job_id = start(server, "completes")
    server.wait_for(job_id)
    server.upload(RECORDS + MORE).raise_for_status()
    server.end()
    server = serve()
    assert server.get(f"/api/jobs/{job_id}").json()["dataset"]["deleted_at"] is None
    assert server.wait_for(server.post(f"/api/jobs/{job_id}/rerun").json()["job_id"])["status"] == "completed"
    assert server.get("/api/datasets/data.jsonl?revision=1").json()["sha256"] == sha(RECORDS)


def test_files_that_cannot_be_removed_are_said_and_removed_by_the_next_start(
    server: RunningServer, serve: Serve, data_dir: Path
) -> None:
    server.upload(RECORDS).raise_for_status()
    (data_dir / "trash").rmdir()
    kept = server.delete("/api/datasets/data.jsonl")
    assert (kept.status_code, "still there" in kept.json()["error"]) == (500, True)
    assert server.get("/api/datasets").json() == {"datasets": []}
    server.end()
    assert f"{sha(RECORDS)}.jsonl" in {path.name for path in (data_dir / "datasets").iterdir()}
    server = serve()
    until_removed(server)
    assert files_in(data_dir) == set()


def until_removed(server: RunningServer) -> dict[str, Any]:
    while not (events := server.get("/api/events?type=DatasetFilesRemoved").json()["events"]):
        pass
    removed: dict[str, Any] = events[-1]["data"]
    return removed


def test_a_deletion_that_was_only_recorded_is_carried_out_by_the_next_start(
    server: RunningServer, serve: Serve, data_dir: Path
) -> None:
    server.upload(RECORDS).raise_for_status()
    server.upload(MORE, filename="other.jsonl").raise_for_status()
    server.end(signal.SIGKILL)
    record(data_dir, dataset.DeleteDataset(filename="data.jsonl"))
    assert f"{sha(RECORDS)}.jsonl" in files_in(data_dir)
    server = serve()
    assert until_removed(server)["files"] == [f"{sha(RECORDS)}.jsonl"]
    assert files_in(data_dir) == {f"{sha(MORE)}.jsonl"}
    assert [one["filename"] for one in server.get("/api/datasets").json()["datasets"]] == ["other.jsonl"]


# ---- uploads that records were made from ----

CONVERTED = dataset.RegisterDataset(
    filename="questions.csv",
    sha256=sha(CSV),
    format="input_output",
    num_examples=2,
    size_bytes=len(CSV),
    container="csv",
    columns={"input": "Question", "output": "Answer"},
    records_sha256=sha(MADE),
    records_bytes=len(MADE),
)


def keep_converted(data_dir: Path) -> set[str]:
    """Record an upload that is no JSON lines, and put its files in their places."""
    layout = Layout(data_dir)
    record(data_dir, CONVERTED)
    layout.upload(sha(CSV)).write_bytes(CSV)
    layout.dataset(sha(MADE)).write_bytes(MADE)
    return {f"{sha(CSV)}.upload", f"{sha(MADE)}.jsonl"}


def test_an_upload_comes_back_as_it_was_and_what_was_made_of_it_is_trained_on(
    serve: Serve, data_dir: Path, model_folder: Path
) -> None:
    files = keep_converted(data_dir)
    server = serve()
    assert files_in(data_dir) == files
    shown = server.get("/api/datasets/questions.csv").json()
    assert (shown["container"], shown["columns"]["mapping"]) == ("csv", {"input": "Question", "output": "Answer"})
    assert (shown["sha256"], shown["records_sha256"]) == (sha(CSV), sha(MADE))
    answer = download(server, "questions.csv")
    assert (answer.content, answer.headers["Content-Type"]) == (CSV, "text/csv")
    body = training(model_folder, "completes", dataset="questions.csv")
    job_id = server.post("/api/start_training", body).json()["job_id"]
    assert server.wait_for(job_id)["status"] == "completed"
    used = server.get(f"/api/jobs/{job_id}").json()["dataset"]
    assert used["path"] == str(Layout(data_dir).dataset(sha(MADE)))
    assert (used["sha256"], used["records_sha256"]) == (sha(CSV), sha(MADE))
    again = server.post(f"/api/jobs/{job_id}/rerun")
    assert server.wait_for(again.json()["job_id"])["status"] == "completed"
    server.delete("/api/datasets/questions.csv").raise_for_status()
    assert files_in(data_dir) == set()
    assert server.post(f"/api/jobs/{job_id}/rerun").status_code == 404


def test_records_that_were_made_for_one_job_stay_as_long_as_its_record(
    serve: Serve, data_dir: Path, model_folder: Path
) -> None:
    made = wire.DatasetFile(
        filename="mine.csv",
        path=str(Layout(data_dir).dataset(sha(MADE))),
        sha256=sha(CSV),
        format="input_output",
        num_examples=2,
        records_sha256=sha(MADE),
    )
    asked = job.StartTraining(
        spec=wire.JobSpec(
            job_id="",
            task="text-generation",
            strategy="sft",
            provider="huggingface",
            model_name="base",
            model_path=str(model_folder),
            dataset=made,
            parameters=wire.TrainingParameters(),
            output_name="completes",
            output_dir=str(Layout(data_dir).models),
            checkpoint_dir=str(Layout(data_dir).jobs),
        )
    )
    keep_converted(data_dir)
    record(data_dir, asked)
    server = serve()
    [job_id] = [one["job_id"] for one in server.get("/api/jobs").json()["jobs"]]
    assert server.wait_for(job_id)["status"] == "completed"
    server.delete("/api/datasets/questions.csv").raise_for_status()
    assert files_in(data_dir) == {f"{sha(MADE)}.jsonl"}
    server.end()
    server = serve()
    assert files_in(data_dir) == {f"{sha(MADE)}.jsonl"}
    assert server.get(f"/api/jobs/{job_id}").json()["dataset"]["deleted_at"] is None
    again = server.post(f"/api/jobs/{job_id}/rerun")
    assert server.wait_for(again.json()["job_id"])["status"] == "completed"


# ---- many at once ----


@pytest.mark.slow
def test_whatever_is_uploaded_and_deleted_at_once_what_is_listed_is_there(
    server: RunningServer, data_dir: Path
) -> None:
    contents = [RECORDS, RECORDS + MORE]
    faults: list[str] = []

    def change(number: int) -> None:
        """Two of them have each name, and all of them the same two contents."""
        chance, name = random.Random(number), f"{number % 2}.jsonl"  # noqa: S311 - no secret
        for _ in range(12):
            if chance.random() < 0.5:
                answer = server.upload(chance.choice(contents), filename=name)
                faults.extend([answer.text] * (answer.status_code != 200))
            else:
                answer = server.delete(path_of(name))
                faults.extend([answer.text] * (answer.status_code not in {200, 404}))

    threads = [threading.Thread(target=change, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert broken_promises(server, data_dir, random.Random(1), still=True) == []  # noqa: S311 - no secret
