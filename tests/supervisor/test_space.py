"""A server on a disk that is full: what it refuses, what it still answers, and how it goes on."""

import contextlib
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from support.attempt_files import processes_of, shim_of, steps_of, until_step
from support.running_server import RECORDS, RunningServer, modelforge
from support.small_disk import SmallDisk, small_disk

Start = Callable[..., str]
Serve = Callable[..., RunningServer]
READS = (
    *("/api/health", "/api/training_status", "/api/jobs", "/api/models", "/api/datasets"),
    *("/api/events?limit=1", "/api/state"),
)
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", megabytes=16) as mounted:
        yield mounted


def refuses_and_reads(server: RunningServer, job_id: str) -> None:
    """Nothing more can be written, and everything can be read."""
    # the log's own file may have room for a record or two more
    answers = []
    for n in range(300):
        answers.append(server.upload(RECORDS + b'{"input": "%d", "output": "b"}\n' % n, f"{n}.jsonl"))
        if answers[-1].status_code != 200:
            break
    assert answers[-1].status_code == answers[-1].json()["status_code"] == 507
    assert "space" in answers[-1].json()["error"]
    assert server.post(f"/api/jobs/{job_id}/stop").status_code == 507
    for path in (*READS, f"/api/jobs/{job_id}", f"/api/jobs/{job_id}/metrics", f"/api/jobs/{job_id}/logs"):
        assert server.get(path).status_code == 200, path
    # what was answered with 200 is there, and nothing else is
    names = {entry["filename"] for entry in server.get("/api/datasets").json()["datasets"]}
    accepted = {f"{n}.jsonl" for n, answer in enumerate(answers) if answer.status_code == 200}
    assert names == {*accepted, "data.jsonl"}


def goes_on(server: RunningServer, job_id: str, data_dir: Path) -> None:
    """The job comes to its end as if nothing had been."""
    job = server.wait_for(job_id)
    assert job["status"] == "completed", job["error"]
    assert job["lost_messages"] == 0
    assert steps_of(server, job_id) == list(range(1, 401))
    assert server.upload(RECORDS, "later.jsonl").status_code == 200
    assert list((data_dir / "tmp").iterdir()) == []
    assert not list(data_dir.glob("*-probe"))
    contents = {path.stem for path in (data_dir / "datasets").iterdir()}
    uploads = server.get("/api/events?type=DatasetUploaded&limit=1000").json()["events"]
    assert contents == {event["data"]["sha256"] for event in uploads}
    verified = modelforge("verify", "--data-dir", str(data_dir))
    assert verified.returncode == 0, verified.stdout


def test_a_full_disk_is_said_and_everything_goes_on_once_there_is_space(
    disk: SmallDisk, serve: Serve, start: Start
) -> None:
    data_dir = disk.path / "data"
    server = serve(data_dir)
    job_id = start(server, "waits", max_steps=400)
    until_step(server, job_id, 20)
    disk.fill()
    refuses_and_reads(server, job_id)
    disk.empty()
    goes_on(server, job_id, data_dir)


def test_a_limit_on_the_size_of_files_is_said_as_a_full_disk(
    server: RunningServer, start: Start, data_dir: Path
) -> None:
    job_id = start(server, "waits", max_steps=400)
    until_step(server, job_id, 20)
    size = (data_dir / "events.sqlite-wal").stat().st_size
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    refuses_and_reads(server, job_id)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, UNLIMITED)
    goes_on(server, job_id, data_dir)


def test_a_disk_that_fails_under_the_log_ends_the_server_and_the_next_one_knows_what_is_on_it(
    server: RunningServer, start: Start, data_dir: Path
) -> None:
    job_id = start(server, "waits", max_steps=400)
    until_step(server, job_id, 20)
    before = processes_of(shim_of(data_dir, job_id)["token"])
    inject = "inject=fdatasync:error=EIO:when=4"
    with subprocess.Popen(
        ["strace", "-f", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", inject, "-p", str(server.process.pid)],  # noqa: S607
        stderr=subprocess.PIPE,
        text=True,
    ) as strace:
        assert strace.stderr is not None
        assert "attached" in strace.stderr.readline()
        accepted = []
        with contextlib.suppress(requests.ConnectionError):
            for n in range(100):
                answer = server.upload(RECORDS + b'{"input": "%d", "output": "b"}\n' % n, f"{n}.jsonl")
                if answer.status_code == 200:
                    accepted.append(f"{n}.jsonl")
                else:
                    assert answer.status_code == 500
        assert server.process.wait(timeout=20) == 1
    assert "The event log cannot be used" in server.end()
    # what a supervisor does
    server.start()
    assert processes_of(shim_of(data_dir, job_id)["token"]) == before
    names = {entry["filename"] for entry in server.get("/api/datasets").json()["datasets"]}
    assert names >= {*accepted, "data.jsonl"}
    goes_on(server, job_id, data_dir)


def test_an_upload_that_the_disk_has_no_room_for_leaves_nothing(disk: SmallDisk, serve: Serve) -> None:
    data_dir = disk.path / "data"
    server = serve(data_dir)
    large = RECORDS * 40_000
    for _ in range(3):
        answer = server.upload(large, "large.jsonl")
        assert (answer.status_code, answer.json()["status_code"]) == (507, 507)
    assert list((data_dir / "tmp").iterdir()) == list((data_dir / "datasets").iterdir()) == []
    assert server.get("/api/datasets").json()["datasets"] == []
    assert server.upload(RECORDS).status_code == 200


def test_an_upload_leaves_free_what_the_log_and_the_trainings_need(disk: SmallDisk, serve: Serve) -> None:
    data_dir = disk.path / "data"
    server = serve(data_dir)
    whole = shutil.disk_usage(disk.path).total
    disk.fill(leave=whole // 20 + 300_000)
    assert server.upload(RECORDS, "small.jsonl").status_code == 200
    # a form that says its length is refused before it comes, and one that does not while it comes
    record = b'{"input": "question", "output": "answer"}\n'
    for body in (record * 20_000, (part for part in [record] * 20_000)):
        form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        parts = [form, *([body] if isinstance(body, bytes) else body), b"\r\n--x--\r\n"]
        sent = b"".join(parts) if isinstance(body, bytes) else iter(parts)
        answer = server.post(
            "/api/upload_dataset", data=sent, headers={"Content-Type": "multipart/form-data; boundary=x"}
        )
        assert answer.status_code == 507, answer.text
    assert disk.free() > whole // 20
    assert list((data_dir / "tmp").iterdir()) == []


def test_a_stop_on_a_full_disk_leaves_nobody_and_frees_the_machine(
    disk: SmallDisk, serve: Serve, start: Start, data_dir: Path
) -> None:
    # the log has room, and the folder of the attempts has none: not even for how it ended
    (data_dir / "jobs").parent.mkdir()
    (data_dir / "jobs").symlink_to(disk.path)
    server = serve()
    job_id = start(server, "waits", max_steps=100_000)
    until_step(server, job_id, 5)
    token = shim_of(data_dir, job_id)["token"]
    disk.fill()
    assert server.post("/api/stop_training").json()["status"] == "stopped"
    assert processes_of(token) == []
    disk.empty()
    assert server.wait_for(start(server, "completes"))["status"] == "completed"


def test_an_attempt_that_the_disk_has_no_room_for_fails_for_that_reason(
    disk: SmallDisk, serve: Serve, start: Start, data_dir: Path
) -> None:
    # the log has room, and the folder of the attempts has none
    (data_dir / "jobs").parent.mkdir()
    (data_dir / "jobs").symlink_to(disk.path)
    server = serve()
    disk.fill()
    job = server.wait_for(start(server, "completes"))
    assert job["status"] == "failed"
    assert job["error"]["kind"] == "DiskFull"  # type: ignore[index]
    disk.empty()
    assert server.wait_for(start(server, "completes"))["status"] == "completed"
