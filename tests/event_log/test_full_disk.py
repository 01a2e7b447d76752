"""The disk is full, or fails."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.running_log import environment_of_tests, first_break, records_in, rows_of, running_log, standing_of
from support.scenario import register_dataset

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
        large = register_dataset(filename="x" * 100_000)
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

PROGRAM = """
import asyncio, sys
from pathlib import Path
from support.running_log import running_log
from support.scenario import register_dataset
from modelforge.errors import LogUnusable, StorageFull

async def main():
    async with running_log(Path(sys.argv[1])) as running:
        print("open", flush=True)
        for number in range(6):
            try:
                await running.submit(register_dataset(filename=f"{number}.jsonl"))
                print(number, flush=True)
            except StorageFull:
                print("full", flush=True)
            except LogUnusable:
                print("unusable", flush=True)

asyncio.run(main())
"""


def write_six(path: Path, call: str, error: str, nth: int) -> list[str]:
    """What a program says that records six datasets while the nth `call` of its log fails with `error`."""
    strace = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-o",
        "/dev/null",
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:error={error}:when={nth}",
    ]
    done = subprocess.run(
        [*strace, sys.executable, "-c", PROGRAM, path],
        env=environment_of_tests(),
        check=False,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


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


def test_a_limit_on_the_size_of_files_is_a_full_disk(path: Path) -> None:
    program = (
        PROGRAM.replace("range(6)", "range(1000)")
        .replace("import asyncio, sys", "import asyncio, resource, sys\nunlimited = resource.RLIM_INFINITY")
        .replace('print("open", flush=True)', "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, unlimited))")
        .replace(
            "\nasyncio.run",
            """
        resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
        await running.submit(register_dataset(filename="later.jsonl"))

asyncio.run""",
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], env=environment_of_tests(), check=True, capture_output=True, text=True
    )
    said = done.stdout.split()
    assert said[0] == "0"
    assert said[-1] == "full"
    assert "unusable" not in said
    has_all_that_was_answered(path, said)
    assert "later.jsonl" in {
        event.filename for r in records_in(path) if isinstance(event := r.message, DatasetUploaded)
    }
