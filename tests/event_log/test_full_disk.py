"""The disk is full, or fails."""

import functools
import os
import subprocess
import sys
from hashlib import shake_256
from pathlib import Path

import pytest
from support.running_log import environment_of_tests, first_break, records_in, rows_of, running_log, standing_of
from support.scenario import register_dataset
from support.warm_process import WarmProcess, start_process

from modelforge.domain.dataset import DatasetUploaded
from modelforge.errors import StorageFull


async def test_a_full_disk_changes_nothing_and_writing_goes_on_once_there_is_room(path: Path) -> None:
    async with running_log(path) as running:
        first = await running.submit(register_dataset(filename="first.jsonl"))
        before = running.standing()
        writer = running.log._writer  # noqa: SLF001 - the limit is one of this connection
        async with writer.execute("PRAGMA page_count") as cursor:
            ((pages,),) = await cursor.fetchall()
        await (await writer.execute(f"PRAGMA max_page_count = {pages}")).close()
        large = register_dataset(filename=shake_256(b"").hexdigest(50_000))
        with pytest.raises(StorageFull):
            await running.submit(large)
        assert running.standing() == before == standing_of(path)
        assert len(running.batches) == 1
        await (await writer.execute("PRAGMA max_page_count = 1000000")).close()
        later = await running.submit(large)
        assert later.position == first.position + 2
        assert running.standing() == standing_of(path)
    assert first_break(rows_of(path)) is None


STEP = 4
"""A sweep over every call is as many tests, each of every fourth call from its first to the last."""


@functools.cache
def warm_writer() -> WarmProcess:
    """The process that the programs are forked from: what fails is a call of theirs after they were started."""
    return WarmProcess(("support.running_log", "support.scenario"), environment_of_tests())


def write_six(path: Path, call: str, error: str, nth: int) -> list[str]:
    """What a program says that records six datasets while the nth `call` of its log fails with `error`."""
    heard, says = os.pipe()
    begun, begins = os.pipe()
    with open(heard) as said:  # noqa: PTH123 - a descriptor
        program = start_process(
            [sys.executable, "-m", "support.six_datasets", str(path)],
            environment_of_tests(),
            warm=warm_writer,
            stdin=begun,
            stdout=says,
            stderr=2,
        )
        os.close(says)
        os.close(begun)
        inject = ("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={nth}")
        with subprocess.Popen(
            ["strace", "-f", "-o", "/dev/null", *inject, "-p", str(program.pid)],  # noqa: S607 - as it is installed
            stderr=subprocess.PIPE,
            text=True,
        ) as strace:
            assert strace.stderr is not None
            assert "attached" in strace.stderr.readline()
            os.write(begins, b"\n")
            os.close(begins)
            words = said.read().split()
        program.wait(timeout=60)
    return words


def has_all_that_was_answered(path: Path, said: list[str]) -> None:
    """The log on the disk is whole, and has what was acknowledged; what was refused as full is not in it."""
    names = [event.filename for record in records_in(path) if isinstance(event := record.message, DatasetUploaded)]
    answered = [f"{word}.jsonl" for word in said if word.isdigit()]
    assert set(answered) <= set(names)
    assert first_break(rows_of(path)) is None
    refused = {f"{number}.jsonl" for number, word in enumerate(said) if word == "full"}
    assert not refused & set(names)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, STEP + 1))
def test_a_disk_that_is_full_at_any_write_refuses_that_one_and_goes_on(first: int, tmp_path: Path) -> None:
    refused = 0
    for nth in range(first, 200, STEP):
        path = tmp_path / f"{nth}.sqlite"
        said = write_six(path, "pwrite64", "ENOSPC", nth)
        if said[:1] == ["open"]:
            assert "unusable" not in said
            assert len(said) == 7
            has_all_that_was_answered(path, said[1:])
            refused += "full" in said
            if "full" not in said and refused:
                return
    raise AssertionError("there was no end of writes")


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, STEP + 1))
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_a_disk_that_fails_at_any_call_stops_the_writer_and_loses_nothing_that_was_answered(
    call: str, first: int, tmp_path: Path
) -> None:
    stopped = 0
    for nth in range(first, 200, STEP):
        path = tmp_path / f"{nth}.sqlite"
        said = write_six(path, call, "EIO", nth)
        if said[:1] == ["open"]:
            if "unusable" in said:  # nothing is tried again: only opening it anew shows what is on the disk
                assert set(said[said.index("unusable") :]) == {"unusable"}
                stopped += 1
            has_all_that_was_answered(path, said[1:])
            if "unusable" not in said and stopped:
                return
    raise AssertionError("there was no end of calls")


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from support.running_log import running_log
from support.scenario import register_dataset
from modelforge.errors import StorageFull

async def main():
    async with running_log(Path(sys.argv[1])) as running:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        for number in range(1000):
            try:
                await running.submit(register_dataset(filename=f"{number}.jsonl"))
                print(number, flush=True)
            except StorageFull:
                print("full", flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await running.submit(register_dataset(filename="later.jsonl"))

asyncio.run(main())
"""


def test_a_limit_on_the_size_of_files_is_a_full_disk(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, path], env=environment_of_tests(), check=True, capture_output=True, text=True
    )
    said = done.stdout.split()
    assert said[0] == "0"
    assert said[-1] == "full"
    has_all_that_was_answered(path, said)
    assert "later.jsonl" in {
        event.filename for r in records_in(path) if isinstance(event := r.message, DatasetUploaded)
    }
