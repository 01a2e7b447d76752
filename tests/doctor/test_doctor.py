"""Real data directories, with a fault that is made for real: what is found, what is to be done, and nothing changed."""

import fcntl
import hashlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path

import msgspec
import pytest
from support.attempt_files import model_in, processes_of, shim_of, training, until_step
from support.changed_snapshot import change_snapshot
from support.running_log import write
from support.running_server import RECORDS, RunningServer, modelforge, scripted_server
from support.scenario import SLURM_JOB, attempt_submitted, launching, records_of, requested, uploaded
from support.scenario import start as start_training

from modelforge.doctor import directory
from modelforge.doctor.directory import filesystem_finding
from modelforge.doctor.examination import directory_findings, examine
from modelforge.doctor.finding import Finding, lines
from modelforge.layout import Layout
from trainer_entry import wire

Start = Callable[..., str]
Serve = Callable[..., RunningServer]
_HASHED_BYTES = 100_000_000
_NOBODY = 65_534
_AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder to another user, or act as one")


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """Every name below a folder, with its content (of a huge file: its times), mode and owner."""
    found = {}
    for path in [root, *root.rglob("*")]:
        stat = path.lstat()
        small = path.is_file() and stat.st_size < _HASHED_BYTES
        content = hashlib.sha256(path.read_bytes()).hexdigest() if small else ""
        found[str(path)] = (content, stat.st_size, stat.st_mode, stat.st_uid, stat.st_mtime_ns, stat.st_ino)
    return found


def examined(data_dir: Path) -> list[Finding]:
    """What the doctor finds of the data directory; it must leave every byte as it was."""
    before = tree(data_dir)
    findings = directory_findings(Layout(data_dir))
    assert tree(data_dir) == before
    assert all(bool(finding.remedy) == (finding.level != "ok") for finding in findings)
    return findings


def wrong(data_dir: Path) -> list[Finding]:
    """What is not ok; the disk of the tests may be any."""
    return [found for found in examined(data_dir) if found.level != "ok" and found.subject != "file system"]


def told(data_dir: Path, subject: str) -> Finding:
    """The one finding on a subject."""
    (finding,) = [finding for finding in examined(data_dir) if finding.subject == subject]
    return finding


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder, and beside it what a server left in `data` there, who trained a model."""
    folder = tmp_path_factory.mktemp("place")
    server = scripted_server(folder / "data")
    server.upload(RECORDS).raise_for_status()
    answer = server.post("/api/start_training", training(model_in(folder), "completes"))
    server.wait_for(answer.json()["job_id"])
    server.end()
    kept = tmp_path_factory.mktemp("kept") / "data"
    (folder / "data").rename(kept)
    return folder, kept


@pytest.fixture
def past(once: tuple[Path, Path]) -> Iterator[Path]:
    """The data directory of a server that trained a model, and ended: for each test as it was, where it was."""
    folder, kept = once
    yield Path(shutil.copytree(kept, folder / "data"))
    for left in folder.iterdir():
        if left.is_symlink():
            left.unlink()
        elif left.name != "base":
            shutil.rmtree(left)


def job_of(data_dir: Path) -> str:
    (folder,) = (data_dir / "jobs").iterdir()
    return folder.name


# ---- healthy, and not there ----


def test_a_healthy_directory_has_no_fault_beside_a_server_and_without_one(
    server: RunningServer, start: Start, data_dir: Path
) -> None:
    job_id = start(server, "waits", max_steps=100_000)
    until_step(server, job_id, 2)
    findings = {finding.subject: finding for finding in directory_findings(Layout(data_dir))}
    assert findings["server"].found == f"process {server.process.pid} answers at {server.url}"
    assert f"{job_id} attempt 1 is training, process {shim_of(data_dir, job_id)['pid']}" in findings["job"].found
    server.post("/api/stop_training")
    server.wait_for(start(server, "completes"))
    assert wrong(data_dir) == []
    server.end()
    assert wrong(data_dir) == []
    assert told(data_dir, "server").found == "none has the directory"
    assert "records" in told(data_dir, "log").found


def test_the_command_says_it_a_line_a_finding_with_a_summary_and_an_exit_code(past: Path) -> None:
    before = tree(past)
    ended = modelforge("doctor", "--data-dir", str(past))
    assert ended.returncode == 0, ended.stdout
    *said, last = ended.stdout.splitlines()
    assert re.fullmatch(r"\d+ ok, \d+ warnings?, 0 problems\.", last)
    assert [line for line in said if not line.startswith(("ok       ", "warning  ", " "))] == []
    assert len({line.index(str(past)) for line in said if " data directory " in line}) == 1
    (past / "datasets" / next(iter(os.listdir(past / "datasets")))).unlink()  # noqa: PTH208 - a name is all
    after = tree(past)
    ended = modelforge("doctor", "--data-dir", str(past))
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1].endswith("1 problem.")
    assert tree(past) == after != before


def test_nothing_is_wrong_while_a_server_trains_deletes_ends_and_starts_anew(
    serve: Serve, start: Start, data_dir: Path
) -> None:
    server = serve()
    done = threading.Event()

    def look() -> list[list[Finding]]:
        rounds = []
        while not done.is_set():
            rounds.append([found for found in directory_findings(Layout(data_dir)) if found.level != "ok"])
        return rounds

    with ThreadPoolExecutor() as threads:
        looking = threads.submit(look)
        try:
            for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
                job = server.wait_for(start(server, "completes"))
                server.delete(f"/api/models/{job['model_id']}").raise_for_status()
                server.end(number)
                server.start()
        finally:
            done.set()
        rounds = looking.result()
    assert len(rounds) > 1
    assert [found for found in chain.from_iterable(rounds) if found.subject != "file system"] == []


def test_a_killed_server_s_log_is_read_with_its_wal_and_left_so(serve: Serve, start: Start, data_dir: Path) -> None:
    server = serve()
    server.wait_for(start(server, "completes"))
    server.end(signal.SIGKILL)
    assert (data_dir / "events.sqlite-wal").stat().st_size > 0
    assert wrong(data_dir) == []
    assert f"process {server.process.pid} was killed" in told(data_dir, "server").found
    (data_dir / "events.sqlite-shm").unlink()  # as in a copy
    assert wrong(data_dir) == []
    assert "1, each with its weights" in told(data_dir, "models").found


def test_a_directory_that_nothing_happened_in_is_healthy(server: RunningServer, data_dir: Path) -> None:
    assert wrong(data_dir) == []
    server.end()
    assert wrong(data_dir) == []
    (data_dir / "events.sqlite").unlink()
    assert "does not exist yet" in told(data_dir, "log").found


def test_a_directory_that_is_not_there_is_said_and_not_made(tmp_path: Path) -> None:
    ended = modelforge("doctor", "--data-dir", str(tmp_path / "none"))
    assert (ended.returncode, list(tmp_path.iterdir())) == (0, [])
    assert "the first start makes it" in ended.stdout
    assert "memory" in ended.stdout
    (tmp_path / "file").touch()
    (finding,) = examined(tmp_path / "file")
    assert (finding.level, "is no folder" in finding.found) == ("problem", True)


def test_a_server_that_encrypts_or_listens_at_a_socket_answers_too(
    serve: Serve, data_dir: Path, tmp_path: Path
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    made += ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert), "-days", "2"]
    subprocess.run(made, check=True, capture_output=True)
    for variables in (
        {"MODELFORGE_TLS_CERT": str(cert), "MODELFORGE_TLS_KEY": str(key)},
        {"MODELFORGE_UNIX_SOCKET": str(tmp_path / "socket")},
    ):
        server = serve(**variables)
        finding = told(data_dir, "server")
        server.end()
        assert (finding.level, server.url in finding.found) == ("ok", True), finding


# ---- the folder and its disk ----


def test_a_directory_that_others_may_read_is_told(past: Path) -> None:
    past.chmod(0o755)
    (finding,) = wrong(past)
    assert (finding.level, finding.subject, finding.remedy) == ("warning", "data directory", f"chmod 700 {past}")
    assert "open to others (mode 755)" in finding.found
    past.chmod(0o700)
    assert wrong(past) == []


@_AS_ROOT
def test_what_another_user_owns_is_told(past: Path) -> None:
    os.chown(past / "events.sqlite", _NOBODY, _NOBODY)
    (finding,) = wrong(past)
    assert (finding.level, finding.subject) == ("warning", "data directory")
    assert re.search(r"events.sqlite is owned by \w+, not by this user", finding.found)
    assert "chown -R" in finding.remedy


@_AS_ROOT
def test_a_directory_that_this_user_may_not_read_write_or_make_is_told(past: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        Path(folder).chmod(0o755)
        copy = Path(shutil.copytree(past, Path(folder) / "data"))
        (unread,) = as_nobody(copy)
        (unmade,) = as_nobody(Path(folder) / "none" / "data")
        for path in [copy, *copy.rglob("*")]:
            os.chown(path, _NOBODY, _NOBODY)
        copy.chmod(0o500)
        (unwritten,) = as_nobody(copy)
    assert {finding.level for finding in (unread, unmade, unwritten)} == {"problem"}
    assert unread.found == f"{copy} cannot be read by this user"
    assert "Run this as root" in unread.remedy
    assert unmade.found.endswith(f"does not exist, and cannot be made in {folder}")
    assert "--data-dir" in unmade.remedy
    assert unwritten.found == f"{copy} cannot be written by this user"
    assert "chown -R" in unwritten.remedy


def as_nobody(data_dir: Path) -> list[Finding]:
    """What a user finds of the folder who has no right to it."""
    os.seteuid(_NOBODY)
    try:
        return directory.folder_findings(Layout(data_dir))
    finally:
        os.seteuid(0)


def test_too_little_space_for_two_checkpoints_or_the_log_is_told(past: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = checkpoint_in(past, 5)
    disk = os.statvfs(past)
    with (checkpoint / "model.safetensors").open("r+b") as file:
        file.truncate(disk.f_bavail * disk.f_frsize)  # sparse: it takes nothing
    disk_finding = told(past, "disk")
    assert (disk_finding.level, "does not fit twice" in disk_finding.found) == ("warning", True)
    assert "save_total_limit" in disk_finding.remedy
    monkeypatch.setattr(directory, "LOG_NEEDS", 1 << 62)
    disk_finding = told(past, "disk")
    assert (disk_finding.level, "the log cannot be written soon" in disk_finding.remedy) == ("problem", True)


@pytest.mark.parametrize(
    ("kind", "at", "level"),
    [
        ("nfs4", "", "problem"),
        ("cifs", "", "problem"),
        ("9p", "", "problem"),
        ("tmpfs", "", "warning"),
        ("overlay", "", "warning"),
        ("ext4", "", "ok"),
        ("nfs4", "/beside", "ok"),
    ],
)
def test_a_file_system_on_which_locks_or_files_do_not_last_is_told(
    tmp_path: Path, kind: str, at: str, level: str
) -> None:
    data_dir = tmp_path / "a name" / "data"
    point = str(data_dir.parent).replace(" ", "\\040") + at
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"31 27 0:28 / {point} rw,nosuid shared:7 - {kind} server:/home rw\n"
        f"32 27 0:29 / {data_dir.parent}-other rw - nfs4 server:/other rw\n"
        "27 1 254:0 / / rw,relatime - xfs /dev/vda rw\n"
    )
    finding = filesystem_finding(Layout(data_dir), mounts)
    assert (finding.level, finding.subject) == (level, "file system")
    assert finding.found.startswith("xfs, mounted at /" if at else f"{kind}, mounted at {data_dir.parent}")
    assert ("--data-dir" in finding.remedy) == (level != "ok")


# ---- the server ----


def test_a_server_that_does_not_answer_is_told_with_its_process(server: RunningServer, data_dir: Path) -> None:
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        (finding,) = wrong(data_dir)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert (finding.level, finding.subject) == ("problem", "server")
    assert f"process {server.process.pid} at {server.url}" in finding.found
    assert f"kill {server.process.pid}" in finding.remedy


def test_a_server_that_has_not_said_its_name_is_told_and_keeps_the_lock(past: Path) -> None:
    with (past / "lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (finding,) = wrong(past)
    assert (finding.level, finding.subject) == ("warning", "server")
    assert f"process {os.getpid()} has the directory" in finding.found
    assert f"kill {os.getpid()}" in finding.remedy


def test_a_server_that_is_seen_only_at_its_address_is_told(past: Path, serve: Serve) -> None:
    other = serve()
    (past / "lock").write_text(f'{{"pid": 999999999, "url": "{other.url}"}}')
    (finding,) = wrong(past)
    assert (finding.level, finding.subject) == ("warning", "server")
    assert f"a server answers at {other.url}" in finding.found


# ---- the log ----


def change(data_dir: Path, statement: str) -> None:
    with closing(sqlite3.connect(data_dir / "events.sqlite")) as connection:
        connection.execute(statement)
        connection.commit()


def test_a_flipped_byte_in_the_log_is_found_with_its_position(past: Path) -> None:
    change(past, "UPDATE records SET data = replace(data, 'data.jsonl', 'Data.jsonl') WHERE position = 2")
    first, contents = wrong(past)
    assert (first.level, first.subject) == ("problem", "log")
    assert first.found.startswith("position 2: ")
    assert "backup" in first.remedy
    assert (contents.level, "not compared" in contents.found) == ("warning", True)
    assert modelforge("doctor", "--data-dir", str(past)).returncode == 1


def test_a_log_with_many_faults_names_the_first_and_says_how_to_see_all(past: Path) -> None:
    change(past, "UPDATE records SET digest = upper(digest)")
    *named, more, _ = [found for found in wrong(past) if found.level == "problem" or found.subject == "contents"]
    assert [found.found.partition(":")[0] for found in named] == [f"position {n}" for n in range(1, 11)]
    assert re.fullmatch(r"\d+ more faults", more.found)
    assert "modelforge verify" in more.remedy


def test_a_changed_snapshot_is_found_and_the_remedy_mends_it(past: Path) -> None:
    change_snapshot(Layout(past))
    finding, _ = wrong(past)
    assert (finding.level, "snapshot" in finding.found) == ("problem", True)
    named = re.search(r"remove (\S+):", finding.remedy)
    assert named
    Path(named[1]).unlink()
    assert wrong(past) == []


@pytest.mark.parametrize(
    ("make", "says", "remedy"),
    [
        ("PRAGMA user_version = 99", "schema 99", "newer release"),
        (b"no database" * 1000, "cannot be read", "backup"),
        ("CREATE TABLE songs (title)", "another program's", "Move"),
    ],
)
def test_a_log_that_this_release_cannot_read_is_told(past: Path, make: str | bytes, says: str, remedy: str) -> None:
    log = past / "events.sqlite"
    if isinstance(make, bytes):
        log.write_bytes(make)
    else:
        if make.startswith("CREATE"):
            log.unlink()
        change(past, make)
    finding, contents = wrong(past)
    assert (finding.level, finding.subject, contents.subject) == ("problem", "log", "contents")
    assert says in finding.found
    assert remedy in finding.remedy


# ---- attempts and their processes ----


@contextmanager
def bearing(token: object, *arguments: str) -> Iterator[int]:
    """A process that carries a token, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); import time; time.sleep(600)", *arguments],
        env={**os.environ, "MODELFORGE_TOKEN": str(token)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()
            process.wait()


def test_a_trainer_without_a_server_goes_on_and_one_that_is_gone_is_concluded(
    serve: Serve, start: Start, data_dir: Path
) -> None:
    server = serve()
    job_id = start(server, "waits", max_steps=100_000)
    until_step(server, job_id, 2)
    shim = shim_of(data_dir, job_id)
    server.end(signal.SIGKILL)
    # the trainer writes meanwhile: what lies there changes, but not by the doctor
    (job,) = [found for found in directory_findings(Layout(data_dir)) if found.subject == "job"]
    assert job.level == "ok"
    assert job.found.startswith(f"{job_id} attempt 1 is training, process {shim['pid']}: no server follows it")
    os.kill(int(str(shim["pid"])), signal.SIGKILL)
    while processes_of(shim["token"]):
        time.sleep(0.02)
    (finding,) = wrong(data_dir)
    assert (finding.level, finding.subject) == ("warning", "job")
    assert finding.found.startswith(f"{job_id} attempt 1 is training in the log, but no process of it is left")
    assert "concluded at the next start" in finding.remedy
    with bearing(shim["token"]) as pid:
        (finding,) = wrong(data_dir)
    assert (finding.level, finding.subject) == ("warning", "job")
    assert f"its shim is gone, but not process {pid}" in finding.found
    server = serve()
    assert server.wait_for(job_id)["status"] == "failed"
    assert wrong(data_dir) == []


def test_an_attempt_that_was_recorded_and_never_spawned_is_told(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.make_folders()
    layout.root.chmod(0o700)
    write(layout.log, records_of(start_training(), requested(), launching()))
    (finding,) = wrong(layout.root)
    assert (finding.level, finding.subject) == ("warning", "job")
    assert "attempt 1 is starting in the log and was never spawned" in finding.found
    assert "launched by the next server" in finding.remedy


def test_an_attempt_of_a_cluster_is_named_by_its_job_there(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.make_folders()
    write(layout.log, records_of(start_training(), requested(), launching(), attempt_submitted()))
    (finding,) = [one for one in examine(layout) if one.subject == "job"]
    assert finding.level == "ok"
    assert finding.found.startswith(f"train_000001 attempt 1 is queued, job 42 ({SLURM_JOB.name}) of lab: no server")


def test_a_process_that_is_left_behind_is_named_and_no_other(past: Path) -> None:
    job_id = job_of(past)
    with bearing(shim_of(past, job_id)["token"]) as pid, bearing("0" * 32), bearing("0" * 32, str(past / "jobs")):
        (finding,) = wrong(past)
    assert (finding.level, finding.subject) == ("problem", "process")
    assert finding.found.startswith(f"{pid} (")
    assert f"of {job_id} attempt 1, which is not active in the log" in finding.found
    assert f"`kill {pid}`" in finding.remedy
    assert wrong(past) == []


def test_a_process_of_an_attempt_whose_folder_is_gone_is_known_by_its_arguments(past: Path) -> None:
    folder = past / "jobs" / job_of(past) / "attempt-7"
    with bearing("0" * 32, str(folder)) as pid:
        (finding,) = wrong(past)
    assert finding.found.startswith(f"{pid} (")
    assert f"{job_of(past)} attempt 7" in finding.found


# ---- what lies there ----


def test_a_dataset_that_is_gone_or_changed_is_told_until_it_is_uploaded_again(
    serve: Serve, start: Start, data_dir: Path
) -> None:
    server = serve()
    server.upload(RECORDS * 2).raise_for_status()
    server.upload(RECORDS).raise_for_status()
    older, newer = (data_dir / "datasets" / f"{hashlib.sha256(RECORDS * n).hexdigest()}.jsonl" for n in (2, 1))
    assert "2 files" in told(data_dir, "datasets").found
    older.unlink()
    with newer.open("r+b") as file:
        file.write(b"X")
    first, second = wrong(data_dir)
    assert {(found.level, found.subject) for found in (first, second)} == {("problem", "dataset")}
    assert first.found == f"data.jsonl revision 1: {older} is missing"
    assert second.found.startswith(f"data.jsonl revision 2: {newer} has other content")
    assert "Upload the same data.jsonl again" in second.remedy
    server.upload(RECORDS).raise_for_status()
    assert wrong(data_dir) == [first]


def test_an_upload_and_the_records_that_were_made_of_it_are_both_looked_at(data_dir: Path) -> None:
    layout = Layout(data_dir)
    layout.make_folders()
    sha256, records_sha256 = hashlib.sha256(b"csv").hexdigest(), hashlib.sha256(b"made").hexdigest()
    event = msgspec.structs.replace(uploaded(sha256=sha256), filename="q.csv", records_sha256=records_sha256)
    write(layout.log, records_of(event))
    upload, records = layout.upload(sha256), layout.dataset(records_sha256)
    upload.write_bytes(b"csv")
    (finding,) = wrong(data_dir)
    assert finding.found == f"q.csv revision 1: {records} is missing"
    assert "0 of uploads and removals" in told(data_dir, "leftovers").found
    records.write_bytes(b"made")
    assert "2 files" in told(data_dir, "datasets").found
    assert wrong(data_dir) == []
    upload.unlink()
    assert [found.found for found in wrong(data_dir)] == [f"q.csv revision 1: {upload} is missing"]
    layout.upload("0" * 64).touch()
    assert "1 of uploads and removals" in told(data_dir, "leftovers").found


def test_files_of_a_deleted_dataset_that_could_not_be_removed_are_told(server: RunningServer, data_dir: Path) -> None:
    server.upload(RECORDS).raise_for_status()
    (data_dir / "trash").rmdir()
    assert server.delete("/api/datasets/data.jsonl").status_code == 500
    (finding,) = wrong(data_dir)
    assert (finding.level, finding.subject) == ("warning", "dataset")
    assert "data.jsonl was deleted, but its files could not be removed" in finding.found
    assert "each start tries again" in finding.remedy
    (data_dir / "trash").mkdir(mode=0o700)
    server.upload(RECORDS).raise_for_status()
    assert wrong(data_dir) == []


def test_a_model_without_weights_or_folder_is_told(past: Path) -> None:
    folder = past / "models" / job_of(past)
    (folder / "adapter_model.safetensors").write_bytes(b"")
    (finding,) = wrong(past)
    assert (finding.level, finding.subject) == ("problem", "model")
    assert finding.found == f"model 1, completes: {folder} has no weights"
    shutil.rmtree(folder)
    (finding,) = wrong(past)
    assert finding.found == f"model 1, completes: {folder} is missing"
    assert "DELETE /api/models/1" in finding.remedy


def test_a_directory_that_was_moved_is_told_by_its_models(past: Path) -> None:
    there = past.rename(past.parent / "elsewhere")
    (finding,) = wrong(there)
    assert (finding.level, finding.subject) == ("problem", "model")
    assert f"the folder is {there / 'models' / job_of(there)} now" in finding.found
    past.symlink_to(there)
    assert wrong(there) == []


def checkpoint_in(data_dir: Path, step: int) -> Path:
    """A whole checkpoint of the one job, as its trainer would have left it."""
    folder = data_dir / "jobs" / job_of(data_dir) / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "model.safetensors").write_bytes(b"w" * 2_500_000)
    manifest = wire.CheckpointManifest(step=step, sizes={"model.safetensors": 2_500_000})
    (folder / wire.CHECKPOINT_MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return folder


def test_a_torn_checkpoint_is_named_with_its_size(past: Path) -> None:
    checkpoint_in(past, 5)
    checkpoint = checkpoint_in(past, 10)
    assert told(past, "checkpoints").found == "2, each one whole"
    with (checkpoint / "model.safetensors").open("r+b") as file:
        file.truncate(1_500_000)
    (finding,) = wrong(past)
    assert (finding.level, finding.subject) == ("warning", "checkpoint")
    assert finding.found == f"{checkpoint} (1.5 MB) is torn"
    assert f"rm -r {checkpoint}" in finding.remedy


def test_what_the_log_does_not_know_is_told_however_it_is_called(past: Path) -> None:
    (past / "models" / "mine").mkdir()
    (past / "jobs" / "two\nlines").mkdir()
    os.mkdir(os.fsencode(past / "jobs") + b"/no\xfftext")  # noqa: PTH102 - no text
    findings = wrong(past)
    assert {(found.level, found.subject) for found in findings} == {("warning", "unknown")}
    assert [Path(found.found.removesuffix(" is not in the log")).name for found in findings] == [
        "no\udcfftext",
        "two\nlines",
        "mine",
    ]
    ended = modelforge("doctor", "--data-dir", str(past))
    assert ended.returncode == 0
    assert "two\\x0alines is not in the log" in ended.stdout
    assert "no\\udcfftext is not in the log" in ended.stdout


def test_leftovers_are_swept_by_the_next_start_or_told_beside_a_server(serve: Serve, past: Path) -> None:
    left = [past / "tmp" / "half", past / "trash" / "gone", past / "datasets" / f"{'0' * 64}.jsonl"]
    for path in left:
        path.touch()
    assert wrong(past) == []
    assert told(past, "leftovers").found == "3 of uploads and removals: the next start sweeps them away"
    serve(past)
    assert told(past, "leftovers").found == "0 of uploads and removals, under way"
    for path in left:
        path.touch()
    assert wrong(past) == []
    os.utime(left[0], (time.time(), time.time() - 4000))
    (finding,) = wrong(past)
    assert (finding.level, finding.subject) == ("warning", "leftover")
    assert finding.found.startswith(f"{left[0]} is older than an hour")


def test_files_of_a_deleted_model_that_could_not_be_removed_are_told(
    server: RunningServer, start: Start, data_dir: Path
) -> None:
    job = server.wait_for(start(server, "completes"))
    (data_dir / "trash").rmdir()
    assert server.delete(f"/api/models/{job['model_id']}").status_code >= 500
    (finding,) = wrong(data_dir)
    assert (finding.level, finding.subject) == ("warning", "model")
    assert "model 1 was deleted, but its files could not be removed" in finding.found
    assert "each start tries again" in finding.remedy


# ---- on the screen ----


def test_lines_are_aligned_and_a_remedy_stands_below_what_it_is_for() -> None:
    findings = [Finding("disk", "ok", "much"), Finding("a long subject", "problem", "lost\x1b[2J", "find it")]
    assert list(lines(findings)) == [
        "ok       disk            much",
        "problem  a long subject  lost\\x1b[2J",
        "                         find it",
        "1 ok, 0 warnings, 1 problem.",
    ]
