"""A data directory is copied beside its server, and put back as it was."""

import contextlib
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from support.attempt_files import kill_trainers, model_in, order, training, until_step
from support.running_server import RECORDS, RunningServer, environment, modelforge, scripted_server
from support.small_disk import small_disk

from modelforge.audit import state_at
from modelforge.backup.manifest import Manifest, data_of
from modelforge.backup.parts import parts_of
from modelforge.backup.restoring import restore_backup
from modelforge.backup.taking import _Taking, take_backup
from modelforge.doctor.examination import directory_findings
from modelforge.errors import BackupUnusable, DirectoryInUse, ForgeError, LogUnusable, StorageFull
from modelforge.layout import Layout
from modelforge.projections.read_models import StateAt

Start = Callable[..., str]
Serve = Callable[..., RunningServer]


def tree(folder: Path) -> dict[str, str | None]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def problems_of(data_dir: Path) -> list[object]:
    found = directory_findings(Layout(data_dir))
    return [finding for finding in found if finding.level == "problem" and finding.subject != "disk"]


def states(data_dir: Path, last: int) -> list[StateAt]:
    return [state_at(Layout(data_dir), str(position)) for position in range(0, last + 1, 1 + last // 30)]


def manifest_of(backup: Path) -> Manifest:
    return msgspec.json.decode((backup / "manifest.json").read_bytes(), type=Manifest)


def rewrite(backup: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Another manifest, with the hash that it should have."""
    manifest: dict[str, object] = msgspec.json.decode((backup / "manifest.json").read_bytes())
    change(manifest)
    encoded = msgspec.json.encode(manifest)
    (backup / "manifest.json").write_bytes(encoded)
    (backup / "manifest.json.sha256").write_text(f"{hashlib.sha256(encoded).hexdigest()}  manifest.json\n")


@contextlib.contextmanager
def repeating(work: Callable[[int], None]) -> Iterator[None]:
    """Do something again and again beside the block."""
    ended, failures = threading.Event(), []

    def run() -> None:
        number = 0
        try:
            while not ended.is_set():
                work(number := number + 1)
        except Exception as error:  # noqa: BLE001 - said by the test
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert failures == []


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder for the tests, and beside it what a server left in `data` there, who trained, exported and failed."""
    folder = tmp_path_factory.mktemp("place")
    server = scripted_server(folder / "data")
    server.upload(RECORDS).raise_for_status()

    def run(behaviour: str, **fields: object) -> dict[str, object]:
        answer = server.post("/api/start_training", training(model, behaviour, **fields))
        return server.wait_for(answer.json()["job_id"])

    model = model_in(folder)
    done = run("dies-once", max_restarts=1)
    assert done["status"] == "completed", done
    export = server.post(f"/api/models/{done['model_id']}/export", {"format": "tar"})
    assert server.wait_for(export.json()["job_id"])["status"] == "completed"
    run("raises")
    server.upload(b'"input","output"\n"a","b"\n', "table.csv").raise_for_status()
    server.end()
    kept = tmp_path_factory.mktemp("kept") / "data"
    (folder / "data").rename(kept)
    return folder, kept


@pytest.fixture
def tmp_path(once: tuple[Path, Path]) -> Path:
    """The same folder for every test, emptied: records name their files by its path."""
    folder, _ = once
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return folder


@pytest.fixture
def past(once: tuple[Path, Path], data_dir: Path) -> Path:
    """The data directory of a server that trained, exported and failed, and ended."""
    _, kept = once
    return Path(shutil.copytree(kept, data_dir))


@pytest.fixture
def backup(past: Path, tmp_path: Path) -> Path:
    take_backup(Layout(past), tmp_path / "backup")
    past.rename(tmp_path / "was")
    return tmp_path / "backup"


def test_a_backup_beside_a_training_and_uploads_is_the_server_as_it_stood(
    serve: Serve, start: Start, data_dir: Path, tmp_path: Path
) -> None:
    server = serve()
    server.wait_for(start(server, "completes"))
    running = start(server, "waits", max_steps=100_000)
    until_step(server, running, 3)
    server.post(f"/api/jobs/{running}/checkpoint").raise_for_status()
    while server.get(f"/api/jobs/{running}").json()["checkpoint"] is None:
        time.sleep(0.02)

    def upload_delete_and_save(number: int) -> None:
        server.upload(RECORDS + b'{"input": "%d", "output": "x"}\n' % number, f"{number}.jsonl").raise_for_status()
        if number % 3 == 0:
            server.delete(f"/api/datasets/{number - 1}.jsonl").raise_for_status()
        server.post(f"/api/jobs/{running}/checkpoint")

    with repeating(upload_delete_and_save):
        time.sleep(0.3)
        ended = modelforge("backup", str(tmp_path / "backup"), "--data-dir", str(data_dir))
    assert (ended.returncode, "missing" in ended.stdout) == (0, False), ended.stdout + ended.stderr
    manifest = manifest_of(tmp_path / "backup")
    assert manifest.digest in ended.stdout
    assert f"Position {manifest.position}" in ended.stdout
    until_step(server, running, 20)  # it goes on
    server.post("/api/stop_training").raise_for_status()
    assert modelforge("verify", "--data-dir", str(data_dir)).returncode == 0
    before, last = states(data_dir, manifest.position), server.get(f"/api/state?at={manifest.position}").json()
    server.end()

    data_dir.rename(tmp_path / "was")
    restored = modelforge("restore", str(tmp_path / "backup"), "--data-dir", str(data_dir))
    assert restored.returncode == 0, restored.stderr
    assert manifest.digest in restored.stdout
    verified = modelforge("verify", "--data-dir", str(data_dir))
    assert (verified.returncode, manifest.digest in verified.stdout) == (0, True)
    assert problems_of(data_dir) == []
    again = serve()
    assert again.get(f"/api/state?at={manifest.position}").json() == last
    assert states(data_dir, manifest.position) == before
    job = again.wait_for(running)  # its processes are gone: it is concluded, and can go on
    assert (job["status"], job["checkpoint"] is not None) == ("failed", True)
    steps = again.get(f"/api/jobs/{running}/metrics?limit=100000").json()["metrics"]
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    assert again.post(f"/api/jobs/{running}/resume").status_code == 202
    assert again.post("/api/stop_training").status_code == 200


def test_a_job_that_ends_between_its_records_and_its_files_is_one_that_goes_on(
    serve: Serve, start: Start, data_dir: Path, tmp_path: Path
) -> None:
    server = serve()
    running = start(server, "obeys", max_steps=9)
    until_step(server, running, 3)
    server.post(f"/api/jobs/{running}/checkpoint").raise_for_status()
    while server.get(f"/api/jobs/{running}").json()["checkpoint"] is None:
        time.sleep(0.02)
    position = server.get("/api/events?limit=1000").json()["last_position"]
    taking = _Taking(Layout(data_dir), data_of(tmp_path / "backup"))
    _, rebuilt = taking._copy_log()  # noqa: SLF001 - what happens now comes between the two by chance only
    assert rebuilt.state.position == position
    order(data_dir, running, "step")
    until_step(server, running, 6)
    server.post(f"/api/jobs/{running}/checkpoint").raise_for_status()
    while not server.get(f"/api/jobs/{running}").json()["checkpoint"].endswith("-6"):
        time.sleep(0.02)
    order(data_dir, running, "finish")
    assert server.wait_for(running)["status"] == "completed"
    taking._copy_parts(parts_of(rebuilt))  # noqa: SLF001
    server.end()

    data_dir.rename(tmp_path / "was")
    data_of(tmp_path / "backup").rename(data_dir)
    assert problems_of(data_dir) == []
    (data_dir / "tmp").mkdir()
    again = serve()
    job = again.wait_for(running)
    assert (job["status"], job["current_step"], job["model_id"]) == ("failed", 3, None)
    assert str(job["checkpoint"]).endswith("checkpoint-3")
    assert [found["step"] for found in again.get(f"/api/jobs/{running}/checkpoints").json()["checkpoints"]] == [3]


def test_of_a_server_that_was_killed_every_record_is_in_the_backup(
    serve: Serve, start: Start, data_dir: Path, tmp_path: Path
) -> None:
    server = serve()
    server.wait_for(start(server, "completes"))
    position = server.get("/api/events?limit=1000").json()["last_position"]
    server.end(signal.SIGKILL)
    assert (data_dir / "events.sqlite-wal").stat().st_size  # where the records are
    before = tree(data_dir)
    taken = take_backup(Layout(data_dir), tmp_path / "backup")
    assert taken.manifest.position == position
    assert tree(data_dir) == before
    data_dir.rename(tmp_path / "was")
    restore_backup(tmp_path / "backup", Layout(data_dir))
    assert problems_of(data_dir) == []


def test_of_datasets_that_come_and_go_each_backup_has_those_that_its_log_names(
    server: RunningServer, data_dir: Path, tmp_path: Path
) -> None:
    def upload_and_delete(number: int) -> None:
        server.upload(b'{"input": "%d", "output": "x"}\n' % number * 2000, "one.jsonl").raise_for_status()
        server.delete("/api/datasets/one.jsonl").raise_for_status()

    server.upload(RECORDS, "kept.jsonl").raise_for_status()
    with repeating(upload_and_delete):
        taken = [take_backup(Layout(data_dir), tmp_path / f"backup-{number}") for number in range(8)]
    for number, one in enumerate(taken):
        assert one.missing == ()
        restore_backup(tmp_path / f"backup-{number}", Layout(tmp_path / f"data-{number}"))  # no job: anywhere
        assert problems_of(tmp_path / f"data-{number}") == []


def test_a_backup_is_put_back_to_the_byte_and_is_its_owner_s_only(
    backup: Path, data_dir: Path, tmp_path: Path, serve: Serve
) -> None:
    assert [path for path in [backup, *backup.rglob("*")] if path.stat().st_mode & 0o077] == []
    restore_backup(backup, Layout(data_dir))
    assert [path for path in [data_dir, *data_dir.rglob("*")] if path.stat().st_mode & 0o077] == []
    was, now = tree(tmp_path / "was"), tree(data_dir)
    own = {"lock", "tmp", "trash", "playground.log", "events.sqlite", "snapshot.sqlite"}
    names = {name for name in was if name.split("/")[0] not in own and not name.endswith("orphan.json")}
    assert {name: was[name] for name in names if was[name]} == {
        name: sha256 for name, sha256 in now.items() if sha256 and name != "events.sqlite"
    }
    assert problems_of(data_dir) == []
    assert {path.name for path in tmp_path.iterdir()} >= {"backup", "data"}
    assert [*tmp_path.glob(".*")] == []
    server = serve()
    models = server.get("/api/models").json()["models"]
    assert [model["name"] for model in models] == ["dies-once"]
    assert server.get("/api/datasets/table.csv/download").content.startswith(b'"input"')


def test_a_backup_leaves_the_directory_as_it_is(past: Path, tmp_path: Path) -> None:
    before = tree(past)
    take_backup(Layout(past), tmp_path / "backup")
    assert tree(past) == before


def test_a_flipped_byte_anywhere_is_found_and_leaves_nothing(backup: Path, data_dir: Path, tmp_path: Path) -> None:
    files = [path for path in backup.rglob("*") if path.is_file() and path.stat().st_size]
    assert {path.name for path in files} >= {"manifest.json", "manifest.json.sha256", "events.sqlite", "stdout.jsonl"}
    for path in files:
        original = path.read_bytes()
        for place in {0, len(original) // 2, len(original) - 1}:
            changed = bytearray(original)
            changed[place] ^= 1
            path.write_bytes(changed)
            with pytest.raises(ForgeError):
                restore_backup(backup, Layout(data_dir))
        path.write_bytes(original)
    for path in files:
        path.rename(path.with_name("away"))
        with pytest.raises(ForgeError):
            restore_backup(backup, Layout(data_dir))
        path.with_name("away").rename(path)
    (data_of(backup) / "events.sqlite-wal").write_bytes(b"more")
    with pytest.raises(BackupUnusable, match="not in the manifest"):
        restore_backup(backup, Layout(data_dir))
    assert {path.name for path in tmp_path.iterdir()} == {"backup", "was"}


FOREIGN = (
    *("../out", "datasets/../../out", "/etc/passwd", "datasets//x", "datasets/./x", "datasets", "", ".", ".."),
    *("tmp/x", "lock", "events.sqlite-wal", "events.sqlite/x", "datasets/a\0b", "datasets/a\nb", "datasets/\u202ex"),
    *("datasets/" + "n" * 256, "jobs/" + "n/" * 1200 + "n", "datasets/", "models/x/..", "~/x", "datasets\\..\\x"),
)


def test_a_name_that_leaves_the_folder_or_is_none_of_ours_is_refused(
    backup: Path, data_dir: Path, tmp_path: Path
) -> None:
    good = {path: path.read_bytes() for path in backup.glob("manifest*")}
    for name in FOREIGN:
        file = {"name": name, "size": 1, "sha256": "0" * 64}
        rewrite(backup, lambda manifest, file=file: manifest["files"].append(file))  # type: ignore[misc, attr-defined]
        with pytest.raises(BackupUnusable, match="names what no backup has"):
            restore_backup(backup, Layout(data_dir))
        assert {path.name for path in tmp_path.iterdir()} == {"backup", "was"}, name
        if name == FOREIGN[-1]:
            ended = modelforge("restore", str(backup), "--data-dir", str(data_dir))
            assert (ended.returncode, "names what no backup has" in ended.stderr) == (1, True)
        for path, content in good.items():
            path.write_bytes(content)


@pytest.mark.parametrize(
    "statement",
    [
        (
            "ALTER TABLE records RENAME TO kept; CREATE VIEW records AS WITH RECURSIVE n(x) AS "
            "(SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS position, '' AS stream FROM n"
        ),
        "CREATE TRIGGER later AFTER INSERT ON records BEGIN DELETE FROM records; END",
        "CREATE TABLE more (x)",
    ],
    ids=["view", "trigger", "table"],
)
def test_a_log_with_anything_but_our_tables_is_refused_unread(backup: Path, data_dir: Path, statement: str) -> None:
    log = data_of(backup) / "events.sqlite"
    with contextlib.closing(sqlite3.connect(log)) as connection:
        connection.executescript(f"PRAGMA legacy_alter_table = ON; {statement}")

    def as_it_is_now(manifest: dict[str, object]) -> None:
        content = log.read_bytes()
        for file in manifest["files"]:  # type: ignore[attr-defined]
            if file["name"] == "events.sqlite":
                file.update(size=len(content), sha256=hashlib.sha256(content).hexdigest())

    rewrite(backup, as_it_is_now)
    with pytest.raises(BackupUnusable, match="none of ours"):
        restore_backup(backup, Layout(data_dir))


def test_a_manifest_that_lies_is_refused(backup: Path, data_dir: Path) -> None:
    good = {path: path.read_bytes() for path in backup.glob("manifest*")}
    lies: list[tuple[Callable[[dict[str, object]], object], str]] = [
        (lambda manifest: manifest.update(position=1), "not that of the manifest"),
        (lambda manifest: manifest.update(digest="0" * 64), "not that of the manifest"),
        (lambda manifest: manifest.update(format=2), "newer release"),
        (lambda manifest: manifest.update(files=[]), "events.sqlite is missing"),
        (lambda manifest: manifest.update(files=manifest["files"] * 2), "named twice"),  # type: ignore[operator]
        (lambda manifest: manifest.update(data_dir="here"), "no path"),
        (lambda manifest: manifest.pop("digest"), "cannot be read"),
    ]
    for change, says in lies:
        rewrite(backup, lambda manifest, change=change: change(manifest))  # type: ignore[misc]
        with pytest.raises(BackupUnusable, match=says):
            restore_backup(backup, Layout(data_dir))
        for path, content in good.items():
            path.write_bytes(content)
    assert not data_dir.exists()
    restore_backup(backup, Layout(data_dir))


def test_links_and_pipes_in_a_backup_are_not_followed(backup: Path, data_dir: Path, tmp_path: Path) -> None:
    data = data_of(backup)
    for path in (next(data.glob("datasets/*")), data / "datasets", data / "events.sqlite"):
        path.rename(tmp_path / "aside")
        path.symlink_to(tmp_path / "aside")  # to the same bytes
        with pytest.raises(ForgeError):
            restore_backup(backup, Layout(data_dir))
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(ForgeError):
            restore_backup(backup, Layout(data_dir))
        path.unlink()
        (tmp_path / "aside").rename(path)
    assert not data_dir.exists()


def test_a_link_in_the_data_directory_is_left_out_and_said(past: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    model = next((past / "models").iterdir())
    (model / "leaks").symlink_to(tmp_path / "secret")
    os.mkfifo(model / "pipe")
    ended = modelforge("backup", str(tmp_path / "backup"), "--data-dir", str(past))
    assert ended.returncode == 0, ended.stderr
    assert f"left out: models/{model.name}/leaks" in ended.stdout
    assert f"left out: models/{model.name}/pipe" in ended.stdout
    assert all(b"secret" not in path.read_bytes() for path in (tmp_path / "backup").rglob("*") if path.is_file())


def test_what_was_lost_or_changed_before_is_said_and_the_rest_is_backed_up(past: Path, tmp_path: Path) -> None:
    dataset, model = next((past / "datasets").glob("*.jsonl")), next((past / "models").iterdir())
    dataset.write_bytes(b"other")
    shutil.rmtree(model)
    ended = modelforge("backup", str(tmp_path / "backup"), "--data-dir", str(past))
    assert ended.returncode == 1
    assert f"missing: {dataset}" in ended.stdout
    assert f"missing: {model}" in ended.stdout
    past.rename(tmp_path / "was")
    restore_backup(tmp_path / "backup", Layout(past))


def test_a_place_that_is_taken_is_left_as_it_is(backup: Path, data_dir: Path, serve: Serve, tmp_path: Path) -> None:
    was = Layout(tmp_path / "was")
    for place in (tmp_path / "was" / "backup", tmp_path / "was" / "models" / "backup", tmp_path / "none" / "backup"):
        with pytest.raises(BackupUnusable):
            take_backup(was, place)
        assert not place.exists()
    for taken in (backup, next(backup.iterdir())):
        before = tree(backup)
        with pytest.raises(BackupUnusable, match="something already"):
            take_backup(was, taken)
        assert tree(backup) == before
    data_dir.mkdir()
    (data_dir / "mine").write_text("mine")
    with pytest.raises(BackupUnusable, match="not empty"):
        restore_backup(backup, Layout(data_dir))
    assert tree(data_dir) == {"mine": hashlib.sha256(b"mine").hexdigest()}
    (data_dir / "mine").unlink()
    server = serve()
    with pytest.raises(DirectoryInUse):
        restore_backup(backup, Layout(data_dir))
    server.end()
    shutil.rmtree(data_dir)
    data_dir.mkdir()
    restore_backup(backup, Layout(data_dir))  # an empty folder is no data directory


def test_records_that_name_files_by_their_path_are_put_back_to_it_and_nowhere_else(
    backup: Path, data_dir: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    ended = modelforge("restore", str(backup), "--data-dir", str(elsewhere))
    assert (ended.returncode, str(data_dir) in ended.stderr, elsewhere.exists()) == (1, True, False)
    data_dir.symlink_to(elsewhere)
    assert modelforge("restore", str(backup), "--data-dir", str(elsewhere)).returncode == 0
    assert problems_of(elsewhere) == []


def test_a_training_that_still_runs_is_not_given_to_another_server(
    serve: Serve, start: Start, data_dir: Path, tmp_path: Path
) -> None:
    server = serve()
    running = start(server, "waits", max_steps=100_000)
    until_step(server, running, 1)
    take_backup(Layout(data_dir), tmp_path / "backup")
    server.end()
    data_dir.rename(tmp_path / "was")
    try:
        with pytest.raises(BackupUnusable, match=running):
            restore_backup(tmp_path / "backup", Layout(data_dir))
    finally:
        kill_trainers(tmp_path / "was")
    restore_backup(tmp_path / "backup", Layout(data_dir))


def test_a_directory_without_a_log_and_a_damaged_log_give_no_backup(past: Path, tmp_path: Path) -> None:
    with pytest.raises(LogUnusable):
        take_backup(Layout(tmp_path / "none"), tmp_path / "backup")
    log = past / "events.sqlite"
    log.write_bytes(log.read_bytes().replace(b"TrainingFailed", b"TrainingFailee"))
    with pytest.raises(BackupUnusable, match="damaged"):
        take_backup(Layout(past), tmp_path / "backup")
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == []


def test_a_full_disk_leaves_nothing_and_is_said(past: Path, tmp_path: Path) -> None:
    model = next((past / "models").iterdir())
    (model / "big.safetensors").write_bytes(bytes(3_000_000))
    take_backup(Layout(past), tmp_path / "backup")
    past.rename(tmp_path / "was")
    with small_disk(tmp_path / "small", 2) as disk:
        with pytest.raises(StorageFull):
            take_backup(Layout(tmp_path / "was"), disk.path / "backup")
        past.symlink_to(disk.path / "data")
        with pytest.raises(StorageFull):
            restore_backup(tmp_path / "backup", Layout(disk.path / "data"))
        assert list(disk.path.iterdir()) == []
        disk.fill()
        with pytest.raises(StorageFull):
            take_backup(Layout(tmp_path / "was"), disk.path / "backup")


def test_a_disk_of_its_own_is_restored_into(backup: Path, data_dir: Path) -> None:
    with small_disk(data_dir, 8) as disk:
        (disk.path / "lost+found").mkdir()
        (disk.path / "lock").touch()  # of a try that was killed
        restore_backup(backup, Layout(data_dir))
        assert problems_of(data_dir) == []
        assert [*data_dir.glob(".*")] == []
        with pytest.raises(BackupUnusable, match="not empty"):
            restore_backup(backup, Layout(data_dir))


def files_in(folder: Path) -> int:
    try:
        return len(os.listdir(folder))  # noqa: PTH208 - it comes and goes meanwhile
    except FileNotFoundError:
        return 0


def test_one_that_is_killed_leaves_nothing_that_looks_like_a_backup_and_the_next_is_whole(
    past: Path, tmp_path: Path
) -> None:
    folder = next((past / "jobs").iterdir())
    for number in range(40):
        (folder / f"file-{number}").write_bytes(os.urandom(500_000))
    backup = tmp_path / "backup"
    command = [sys.executable, "-m", "modelforge", "backup", str(backup), "--data-dir", str(past)]
    partial = tmp_path / ".backup.backup-partial"
    for files in (1, 15, 30):
        with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and files_in(partial / "data" / "jobs" / folder.name) < files:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        if process.returncode == -signal.SIGKILL:
            assert not backup.exists()
            assert not (partial / "manifest.json").exists()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(backup)
    assert subprocess.run(command, env=environment(), check=True, stdout=subprocess.DEVNULL).returncode == 0
    assert not partial.exists()
    past.rename(tmp_path / "was")
    restore_backup(backup, Layout(past))
