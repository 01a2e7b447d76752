"""Snapshots are a short cut, and are believed only where they are whole and the log says the same."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.running_log import RunningLog, running_log, snapshot_file, sqlite, standing_of
from support.scenario import JOB, finished, gone, lines, register_dataset, spawned, start, started, step
from torture.rebuilding import rebuild_and_compare

from modelforge.domain import dataset, job
from modelforge.event_log.sqlite import LogReader
from modelforge.projections import folding, snapshots
from modelforge.projections.kept import Change
from modelforge.projections.snapshot_file import Head, SnapshotFile
from modelforge.projections.snapshots import load, rebuild


async def train(running: RunningLog, job_id: str) -> None:
    """A job from its request to a model."""
    await running.submit(start())
    await running.submit(spawned(job_id))
    await running.submit(lines(100, started(1), step(2), finished(3), job_id=job_id))
    await running.submit(gone(job_id))


def is_loaded(path: Path) -> bool:
    with closing(LogReader(path)) as reader:
        return rebuild(reader, snapshot_file(path)).loaded > 0


def parts(path: Path) -> dict[tuple[str, Any], bytes]:
    with closing(sqlite3.connect(snapshot_file(path))) as connection:
        return {(name, key): data for name, key, data in connection.execute("SELECT mapping, key, data FROM parts")}


async def test_a_rebuild_starts_at_the_snapshot(path: Path) -> None:
    async with running_log(path) as running:
        await running.submit(register_dataset())
        await running.save()
        await running.submit(register_dataset("00" * 32))
        live = running.standing()
    sqlite(path, "UPDATE records SET data = 'not read' WHERE position <= 2")
    assert standing_of(path, from_snapshot=True) == live
    with pytest.raises(msgspec.DecodeError):
        standing_of(path)


async def test_who_waits_for_a_start_is_told_of_the_snapshot_and_of_what_comes_after_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_log(path) as running:
        await running.submit(register_dataset())
        await running.save()
        await running.submit(register_dataset("00" * 32))
    told = list[tuple[str, int]]()
    watch = folding.FoldWatch(lambda count: told.append((watch.stage, count)))
    with closing(LogReader(path)) as reader:
        rebuild(reader, snapshot_file(path), watch=watch)
        assert told == [("loading", len(parts(path))), ("rebuilding", 2)]
        monkeypatch.setattr(snapshots, "_LOADED_AT_ONCE", 1)
        watch.is_ended.set()
        with pytest.raises(folding.FoldStopped):
            rebuild(reader, snapshot_file(path), watch=watch)


async def saved(path: Path) -> bytes:
    """How things stand in a log that has a snapshot of its last record."""
    async with running_log(path) as running:
        await running.submit(register_dataset())
        await train(running, "train_000003")
        await running.save()
        return running.standing()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE head SET digest = 'another'",
        "UPDATE head SET position = position + 1",
        "UPDATE head SET rest = CAST(replace(CAST(rest AS TEXT), 'train', 'brain') AS BLOB)",
        "UPDATE head SET checksum = checksum + 1",
        "DELETE FROM head",
        "UPDATE parts SET data = CAST(x'00' || substr(data, 2) AS BLOB) WHERE mapping = 'ReadModels.jobs'",
        "DELETE FROM parts WHERE mapping = 'State.versions' AND key = 'train_000003'",
        "DROP TABLE parts",
    ],
)
async def test_a_snapshot_that_is_not_what_was_written_is_passed_over(path: Path, damage: str) -> None:
    live = await saved(path)
    assert is_loaded(path)
    sqlite(snapshot_file(path), damage)
    assert not is_loaded(path)
    async with running_log(path) as running:
        assert running.standing() == live
        await running.save()  # and another is written in its place
    assert standing_of(path, from_snapshot=True) == live


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"no database, and longer than the head of one" * 99])
async def test_a_file_that_is_no_snapshot_is_passed_over_and_replaced(path: Path, content: bytes) -> None:
    live = await saved(path)
    snapshot_file(path).write_bytes(content)
    assert not is_loaded(path)
    async with running_log(path) as running:
        await running.save()
    assert standing_of(path, from_snapshot=True) == live


async def test_a_file_that_breaks_while_a_server_runs_is_written_anew(path: Path) -> None:
    await saved(path)
    async with running_log(path) as running:
        assert running.rebuilt.loaded
        snapshot_file(path).write_bytes(b"no database, and longer than the head of one" * 99)
        await running.save()
        assert not is_loaded(path)
        await running.save()
        assert standing_of(path, from_snapshot=True) == running.standing()


async def test_a_snapshot_of_another_log_is_not_used(path: Path) -> None:
    await saved(path)
    path.replace(path.with_name("another"))  # noqa: ASYNC240 - a test waits for nobody
    async with running_log(path, from_snapshot=False) as running:
        for number in range(20):
            await running.submit(register_dataset(filename=f"{number}.jsonl"))
        live = running.standing()
    assert not is_loaded(path)
    assert standing_of(path) == live


async def test_a_snapshot_of_another_fold_is_not_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = await saved(path)
    monkeypatch.setattr(snapshots, "FOLD", folding.FOLD + 1)
    assert not is_loaded(path)
    async with running_log(path) as running:
        await running.save()
    assert is_loaded(path)
    assert standing_of(path, from_snapshot=True) == live


async def test_a_snapshot_beyond_what_a_view_of_the_log_has_is_not_used(path: Path) -> None:
    async with running_log(path) as running:
        await running.submit(register_dataset())
        with closing(LogReader(path)) as reader:
            reader.head()  # from now on this is what it sees
            await running.submit(register_dataset("00" * 32))
            await running.save()
            assert load(snapshot_file(path), reader) is None
            assert rebuild(reader, snapshot_file(path)).state.position == 2


async def test_only_what_changed_is_written(path: Path) -> None:
    async with running_log(path) as running:
        await train(running, JOB)
        await running.save()
        sqlite(snapshot_file(path), "UPDATE parts SET data = x'00'")  # what is written next is told by this
        await running.submit(register_dataset())
        await running.save()
    written = {(name, key) for (name, key), data in parts(path).items() if data != b"\0"}
    assert written == {
        ("State.versions", "dataset:three_lines.jsonl"),
        ("State.references", f"{'3f' * 32}.jsonl"),
        ("State.datasets", "three_lines.jsonl"),
        ("ReadModels.datasets", "three_lines.jsonl"),
    }


async def test_what_comes_while_a_snapshot_is_written_is_not_in_it_and_in_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_AT_ONCE", 1)
    async with running_log(path) as running:
        for number in range(5):
            await running.submit(register_dataset(filename=f"{number}.jsonl"))
        await train(running, "train_000011")
        before, position = running.standing(), running.state.position
        digest = running.handler.digest
        steps = running.snapshots._steps(digest)  # noqa: SLF001 - between two of them others come
        with running.snapshots._settled():  # noqa: SLF001
            for number, one in enumerate(steps):
                one()
                if number == 2:
                    deleted = await running.submit(dataset.DeleteDataset(filename="4.jsonl"))
                    assert deleted.events
                    await running.submit(register_dataset("00" * 32, filename="3.jsonl"))
                    await running.submit(register_dataset("11" * 32, filename="4.jsonl"))
                    await running.submit(start())
        with closing(LogReader(path)) as reader:
            kept = load(snapshot_file(path), reader)
        assert kept is not None
        assert kept.state.position == position
        assert b"\n".join(snapshots.pieces_of(kept)) == before
        live = running.standing()
        assert standing_of(path, from_snapshot=True) == live
        await running.save()
        with closing(LogReader(path)) as reader:
            kept = load(snapshot_file(path), reader)
        assert kept is not None
        assert b"\n".join(snapshots.pieces_of(kept)) == live


async def test_a_snapshot_and_the_records_give_the_same_at_every_position(path: Path) -> None:
    async with running_log(path) as running:
        for message in (register_dataset(), start(), job.StopTraining(), register_dataset("00" * 32)):
            await running.submit(message)
            await running.save()
            with closing(LogReader(path)) as reader:
                assert rebuild(reader, snapshot_file(path)).read_models == running.read_models
            assert standing_of(path, from_snapshot=True) == standing_of(path) == running.standing()


async def test_what_a_full_disk_has_no_room_for_is_in_the_next_snapshot(path: Path) -> None:
    async with running_log(path) as running:
        await running.submit(register_dataset())
        await running.save()
        before = running.state.position
        file = running.snapshots._file._connection  # noqa: SLF001 - the limit is one of this connection
        assert file is not None
        ((pages,),) = file.execute("PRAGMA page_count").fetchall()
        file.execute(f"PRAGMA max_page_count = {pages}")
        await running.submit(register_dataset(filename="x" * 100_000))
        await train(running, "train_000005")
        await running.save()
        with closing(LogReader(path)) as reader:
            kept = load(snapshot_file(path), reader)
        assert kept is not None
        assert kept.state.position == before
        assert standing_of(path, from_snapshot=True) == running.standing()
        file.execute("PRAGMA max_page_count = 1000000")
        await running.save()
        assert standing_of(path, from_snapshot=True) == running.standing()
        assert parts(path)["State.datasets", "x" * 100_000]


async def test_what_cannot_be_written_is_tried_again_only_when_the_next_snapshot_is_due(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "SNAPSHOT_EVERY", 3)
    async with running_log(path) as running:
        snapshot_file(path).mkdir()
        begun: list[object] = []
        for number in range(9):
            await running.submit(register_dataset(filename=f"{number}.jsonl"))
            running.snapshots.follow(running.state.position, running.handler.digest, begun.append)
            if running.snapshots._writing is not None:  # noqa: SLF001 - it is over before the next record
                await running.snapshots._writing  # noqa: SLF001
        assert 0 < len(begun) <= running.state.position // 3
        snapshot_file(path).rmdir()
        await running.save()
        assert standing_of(path, from_snapshot=True) == running.standing()


async def test_a_snapshot_that_ends_by_an_error_of_ours_is_written_the_next_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("of ours")

    async with running_log(path) as running:
        await running.submit(register_dataset())
        with monkeypatch.context() as patched:
            patched.setattr(SnapshotFile, "seal", fails)
            with pytest.raises(RuntimeError, match="of ours"):
                await running.save()
        await running.submit(register_dataset("00" * 32))
        await running.save()
        assert standing_of(path, from_snapshot=True) == running.standing()


def test_an_error_that_is_not_sqlite_s_own_is_none_that_passes() -> None:
    assert not snapshots._is_passing(sqlite3.ProgrammingError("Cannot operate on a closed database."))  # noqa: SLF001


def test_the_sum_of_checksums_is_a_whole_number_however_many_there_are(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.sqlite"
    file = SnapshotFile(path)
    file.begin(anew=True)
    file.put("State.datasets", [Change(key="one", data=b"1", placed=True), Change(key="two", data=b"2", placed=True)])
    connection = file._connection  # noqa: SLF001 - so many parts would take a minute
    assert connection is not None
    connection.execute("UPDATE parts SET checksum = iif(key = 'one', 9007199254740992, 1)")
    file.seal(Head(fold=1, position=1, digest="0" * 64, rest=b""))
    file.close()
    with closing(sqlite3.connect(path)) as reading:
        assert reading.execute("SELECT checksum FROM head").fetchall() == [(2**53 + 1,)]


async def test_ten_thousand_records_of_many_jobs_are_rebuilt_to_the_byte(tmp_path: Path) -> None:
    assert await rebuild_and_compare(tmp_path, 10_000) == []
