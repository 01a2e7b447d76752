"""Snapshots are a short cut, and are believed only where the log says the same."""

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from support.running_log import running_log, snapshot_of, sqlite
from support.scenario import SHA256, register_dataset, start
from torture.rebuilding import rebuild_and_compare

from modelforge import domain, projections
from modelforge.domain import job
from modelforge.event_log.sqlite import LogReader, StoredSnapshot
from modelforge.projections.snapshots import RELEASE, folding_sources, rebuild
from trainer_entry import wire


async def test_a_rebuild_starts_at_the_newest_snapshot(path: Path) -> None:
    async with running_log(path) as running:
        await running.submit(register_dataset())
        await running.log.save_snapshot(running.snapshot(), RELEASE)
        await running.submit(register_dataset("00" * 32))
        live = running.snapshot()
    sqlite(path, "UPDATE records SET data = 'not read' WHERE position <= 2")
    assert snapshot_of(path, from_snapshot=True) == live
    with pytest.raises(msgspec.DecodeError):
        snapshot_of(path, from_snapshot=False)


async def with_poisoned_snapshot(path: Path, release: str = RELEASE) -> StoredSnapshot:
    """A log, and a snapshot that says something else than the log."""
    async with running_log(path) as running:
        await running.submit(register_dataset())
        snapshot = running.snapshot()
        poisoned = snapshot.data.replace(SHA256.encode(), b"00" * 32)
        assert poisoned != snapshot.data
        stored = StoredSnapshot(position=snapshot.position, digest=snapshot.digest, data=poisoned)
        await running.log.save_snapshot(stored, release)
    return snapshot


async def test_a_snapshot_is_believed_only_if_its_record_is_still_the_one_in_the_log(path: Path) -> None:
    snapshot = await with_poisoned_snapshot(path)
    assert snapshot_of(path, from_snapshot=True) != snapshot
    sqlite(path, "UPDATE snapshots SET digest = 'another'")
    assert snapshot_of(path, from_snapshot=True) == snapshot


async def test_a_snapshot_beyond_the_end_of_the_log_is_not_used(path: Path) -> None:
    snapshot = await with_poisoned_snapshot(path)
    sqlite(path, "UPDATE snapshots SET position = 3")
    assert snapshot_of(path, from_snapshot=True) == snapshot


async def test_a_snapshot_of_another_release_is_not_used(path: Path) -> None:
    snapshot = await with_poisoned_snapshot(path, "0.0.0")
    assert snapshot_of(path, from_snapshot=True) == snapshot


@pytest.mark.parametrize("data", ["", "{}", "null", '{"state":'])
async def test_a_snapshot_that_cannot_be_read_is_passed_over(path: Path, data: str) -> None:
    snapshot = await with_poisoned_snapshot(path)
    sqlite(path, f"UPDATE snapshots SET data = CAST('{data}' AS BLOB)")  # noqa: S608 - constants
    assert snapshot_of(path, from_snapshot=True) == snapshot


async def test_two_snapshots_are_kept(path: Path) -> None:
    async with running_log(path) as running:
        for number in range(4):
            await running.submit(register_dataset(filename=f"{number}.jsonl"))
            await running.log.save_snapshot(running.snapshot(), RELEASE)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT position FROM snapshots ORDER BY 1").fetchall() == [(6,), (8,)]


async def test_a_snapshot_and_the_records_give_the_same_at_every_position(path: Path) -> None:
    async with running_log(path) as running:
        for message in (register_dataset(), start(), job.StopTraining(), register_dataset("00" * 32)):
            await running.submit(message)
            await running.log.save_snapshot(running.snapshot(), RELEASE)
            with closing(LogReader(path)) as reader:
                assert rebuild(reader).read_models == running.read_models
            assert snapshot_of(path, from_snapshot=True) == snapshot_of(path) == running.snapshot()


async def test_ten_thousand_records_of_many_jobs_are_rebuilt_to_the_byte(tmp_path: Path) -> None:
    assert await rebuild_and_compare(tmp_path, 10_000) == []


def test_other_code_that_folds_is_another_release() -> None:
    folders = [Path(package.__file__ or "").parent for package in (domain, projections, wire)]
    written = {source for folder in folders for source in folder.rglob("*.py")}
    assert written - set(folding_sources()) == {Path(wire.__file__).with_name("formats.py")}
    assert Path(job.__file__ or "").with_name("state.py") in written
