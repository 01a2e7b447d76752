"""The disk is full, or fails."""

import subprocess
import sys
from pathlib import Path

import pytest
from running_log import environment_of_tests, first_break, records_in, rows_of, running_log, snapshot_of
from scenario import register_dataset

from modelforge.domain.dataset import DatasetUploaded
from modelforge.errors import StorageFull
from modelforge.event_log import StoredSnapshot
from modelforge.projections.projector import RELEASE


async def test_a_full_disk_changes_nothing_and_writing_goes_on_once_there_is_room(path: Path) -> None:
    async with running_log(path) as running:
        first = await running.submit(register_dataset(filename="first.jsonl"))
        before = running.snapshot()
        writer = running.log._writer  # noqa: SLF001 - the limit is one of this connection
        async with writer.execute("PRAGMA page_count") as cursor:
            ((pages,),) = await cursor.fetchall()
        await (await writer.execute(f"PRAGMA max_page_count = {pages}")).close()
        large = register_dataset(filename="x" * 100_000)
        with pytest.raises(StorageFull):
            await running.submit(large)
        assert running.snapshot() == before == snapshot_of(path)
        assert len(running.batches) == 1
        await (await writer.execute("PRAGMA max_page_count = 1000000")).close()
        later = await running.submit(large)
        assert later.position == first.position + 2
        assert running.snapshot() == snapshot_of(path)
    assert first_break(rows_of(path)) is None


async def test_a_snapshot_for_which_there_is_no_room_leaves_the_log_as_it_was(path: Path) -> None:
    async with running_log(path) as running:
        await running.submit(register_dataset())
        writer = running.log._writer  # noqa: SLF001 - the limit is one of this connection
        async with writer.execute("PRAGMA page_count") as cursor:
            ((pages,),) = await cursor.fetchall()
        await (await writer.execute(f"PRAGMA max_page_count = {pages}")).close()
        with pytest.raises(StorageFull):
            await running.log.save_snapshot(StoredSnapshot(position=2, digest="", data=b"x" * 100_000), RELEASE)
        await running.submit(register_dataset("00" * 32))
        assert running.snapshot() == snapshot_of(path)


def test_a_disk_that_fails_stops_the_writer_and_loses_nothing_that_was_answered(path: Path) -> None:
    program = """
import asyncio, resource, signal, sys
from pathlib import Path
from running_log import running_log
from scenario import register_dataset
from modelforge.errors import LogUnusable

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

async def main():
    async with running_log(Path(sys.argv[1])) as running:
        for number in range(1000):
            try:
                await running.submit(register_dataset(filename=f"{number}.jsonl"))
            except LogUnusable:
                break
            print(number, flush=True)
        try:
            await running.submit(register_dataset())
        except LogUnusable:
            print("refused", flush=True)

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, path], env=environment_of_tests(), check=True, capture_output=True, text=True
    )
    *answered, last = done.stdout.split()
    assert last == "refused"
    assert answered
    names = [event.filename for record in records_in(path) if isinstance(event := record.message, DatasetUploaded)]
    assert names[: len(answered)] == [f"{number}.jsonl" for number in answered]
    assert first_break(rows_of(path)) is None
