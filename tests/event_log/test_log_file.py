"""What lies on the disk: durable, in order, readable, and never touched where it is not ours."""

import asyncio
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import msgspec
import pytest
from support.running_log import environment_of_tests, first_break, records_in, rows_of, sqlite, write
from support.scenario import launching, records_of, register_dataset, requested, start, uploaded

from modelforge.errors import LogUnusable
from modelforge.event_log.log_schema import PAGE_BYTES, SCHEMA, log_schema
from modelforge.event_log.sqlite import EventLog, LogReader

PAST = records_of(start(), requested(), launching(), register_dataset(), uploaded())


# ---- appending and reading ----


async def test_what_was_appended_is_there_for_another_connection_at_once(path: Path) -> None:
    log = await EventLog.open(path)
    try:
        await log.append(PAST)
        assert [row[0] for row in rows_of(path)] == [1, 2, 3, 4, 5]
        assert records_in(path) == PAST
    finally:
        await log.close()


def test_what_was_appended_is_there_after_the_writer_was_killed(path: Path) -> None:
    program = """
import asyncio, os, sys
from pathlib import Path
from support.scenario import launching, records_of, requested, start
from modelforge.event_log.sqlite import EventLog

async def main():
    log = await EventLog.open(Path(sys.argv[1]))
    await log.append(records_of(start(), requested(), launching()))
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""
    killed = subprocess.run([sys.executable, "-c", program, path], env=environment_of_tests(), check=False)
    assert killed.returncode == -9
    assert records_in(path) == PAST[:3]
    write(path, PAST[3:])
    assert records_in(path) == PAST


async def test_one_bad_record_takes_its_whole_transaction_with_it(path: Path) -> None:
    log = await EventLog.open(path)
    try:
        await log.append(PAST[:2])
        with pytest.raises(LogUnusable):
            await log.append([*PAST[2:4], PAST[3]])
        assert records_in(path) == PAST[:2]
        await log.append(PAST[2:])
    finally:
        await log.close()
    assert records_in(path) == PAST


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 127, 200])
def test_as_many_as_there_are_are_written_in_one_transaction_or_none_is(path: Path, count: int) -> None:
    records = records_of(*(register_dataset(filename=f"{number}.jsonl") for number in range(count)))
    twice = [*records[:-1], msgspec.structs.replace(records[-1], stream="x", version=1), records[-1]]
    with pytest.raises(LogUnusable, match="UNIQUE constraint failed"):
        write(path, twice)
    assert records_in(path) == []
    write(path, records)
    assert records_in(path) == records


def test_readers_take_a_range_some_streams_and_some_types(path: Path) -> None:
    write(path, PAST)
    with closing(LogReader(path)) as reader:
        assert list(reader.records(after=2)) == PAST[2:]
        assert list(reader.records(after=1, until=3)) == PAST[1:3]
        assert list(reader.records(limit=2)) == PAST[:2]
        assert list(reader.records(streams=("dataset:three_lines.jsonl",))) == PAST[3:]
        assert list(reader.records(types=("TrainingRequested", "DatasetUploaded"))) == [PAST[1], PAST[4]]
        assert (
            list(reader.records(after=1, until=4, streams=("train_000001",), types=("AttemptLaunching",), limit=1))
            == PAST[2:3]
        )
        assert reader.head() == (5, PAST[-1].digest)


async def test_a_reader_sees_one_moment_however_long_it_reads(path: Path) -> None:
    log = await EventLog.open(path)
    try:
        await log.append(PAST[:2])

        with closing(LogReader(path)) as reader:
            records = reader.records()
            assert next(records) == PAST[0]
            await log.append(PAST[2:])
            assert list(records) == PAST[1:2]
            assert reader.head()[0] == 2
    finally:
        await log.close()


def test_an_empty_log_has_no_head(path: Path) -> None:
    write(path, [])
    with closing(LogReader(path)) as reader:
        assert reader.head() == (0, "0" * 64)
        assert list(reader.records()) == []


def test_text_of_every_kind_comes_back_as_it_was(path: Path) -> None:
    names = ["ünïcode", "a\0b", 'quote"', "new\nline", "😀", "\u2028", "' OR 1=1; --"]
    records = records_of(*(register_dataset(filename=name) for name in names))
    write(path, records)
    assert records_in(path) == records
    assert first_break(rows_of(path)) is None


# ---- what is not ours ----


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm")}


def test_a_newer_schema_is_refused_and_left_as_it_was(path: Path) -> None:
    write(path, PAST)
    sqlite(path, "PRAGMA user_version = 99")
    before = files(path)
    with pytest.raises(LogUnusable, match=r"schema 99.*Install the newer release"):
        write(path, [])
    assert files(path) == before


def test_a_newer_schema_that_only_the_wal_tells_is_refused_and_left_as_it_was(path: Path) -> None:
    write(path, PAST)
    program = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('PRAGMA user_version = 99'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program, path], check=True)
    before = files(path)
    assert "events.db-wal" in before
    with pytest.raises(LogUnusable, match="schema 99"):
        write(path, [])
    assert files(path) == before


@pytest.mark.parametrize("content", [b"x", b"SQLite format 2\0" + bytes(100), b'{"a":1}\n' * 100])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(LogUnusable, match="no SQLite file"):
        write(path, [])
    assert files(path) == {path.name: content}


def test_a_database_of_another_program_is_refused_and_left_as_it_was(path: Path) -> None:
    sqlite(path, "CREATE TABLE songs (title TEXT)")
    before = files(path)
    with pytest.raises(LogUnusable, match="songs"):
        write(path, [])
    assert files(path) == before


def test_a_damaged_database_is_refused(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"\x10\x00\x01\x01\x00" + bytes(100))
    with pytest.raises(LogUnusable):
        write(path, [])


def test_an_empty_file_becomes_a_log(path: Path) -> None:
    path.touch()
    write(path, PAST)
    assert records_in(path) == PAST
    assert path.read_bytes()[60:64] == SCHEMA.to_bytes(4, "big")
    assert int.from_bytes(path.read_bytes()[16:18], "big") == PAGE_BYTES


def test_a_log_of_an_older_release_keeps_its_pages(path: Path) -> None:
    log_of_schema(1, path)
    write(path, [])
    assert schema_of(path)[0] == SCHEMA
    assert int.from_bytes(path.read_bytes()[16:18], "big") == 4096


def log_of_schema(number: int, path: Path) -> None:
    """A log as the release of a schema made it, with PAST in it."""
    new = path.with_name("new.db")
    write(new, PAST)
    with closing(connect(path)) as older:
        older.executescript(f"{log_schema(number)} PRAGMA user_version = {number}; PRAGMA journal_mode = WAL")
    columns = "position, stream, version, kind, type, at, cause, actor, data, digest"
    copied = f"INSERT INTO records ({columns}) SELECT {columns} FROM new.records"  # noqa: S608 - constants
    sqlite(path, f"ATTACH '{new}' AS new", copied)


def schema_of(path: Path) -> tuple[int, set[str]]:
    with closing(connect(path)) as found:
        names = found.execute("SELECT name FROM sqlite_schema WHERE sql IS NOT NULL")
        return found.execute("PRAGMA user_version").fetchone()[0], {row[0] for row in names}


@pytest.mark.parametrize("number", range(1, SCHEMA))
def test_a_log_of_an_older_schema_is_read_as_it_is_and_becomes_one_of_this_when_it_is_opened(
    path: Path, number: int
) -> None:
    log_of_schema(number, path)
    assert records_in(path) == PAST
    assert schema_of(path)[0] == number

    write(path, [])

    new = path.with_name("new.db")
    assert schema_of(path) == schema_of(new)
    assert rows_of(path) == rows_of(new)
    assert records_in(path) == PAST


def test_a_log_that_cannot_become_one_of_this_schema_stays_as_it_was(path: Path) -> None:
    log_of_schema(1, path)
    sqlite(path, "CREATE TABLE facts (already TEXT)")
    with pytest.raises(LogUnusable, match="already"):
        write(path, [])
    assert schema_of(path) == (1, {"records", "snapshots", "facts"})
    assert records_in(path) == PAST


UPGRADE = """
import asyncio, os, sys
from pathlib import Path
from modelforge.event_log import log_schema, sqlite

log_schema._ASKED_EVERY = 1
asked, last = 0, int(sys.argv[2])

def is_given_up():
    global asked
    asked += 1
    if asked == last:
        os.kill(os.getpid(), 9)
    return False

async def main():
    log = await sqlite.EventLog.open(Path(sys.argv[1]), is_given_up=is_given_up)
    await log.close()
    print(asked)

asyncio.run(main())
"""


def upgrade(path: Path, killed_at: int = 0) -> "subprocess.CompletedProcess[str]":
    """Open a log in another process, which is killed at so many instructions of SQLite's machine, or says how many."""
    command = [sys.executable, "-c", UPGRADE, str(path), str(killed_at)]
    return subprocess.run(command, env=environment_of_tests(), check=False, capture_output=True, text=True)


def test_a_server_that_is_killed_while_it_upgrades_its_log_leaves_it_to_the_next_one(path: Path) -> None:
    whole = path.with_name("whole.db")
    log_of_schema(1, whole)
    path.with_name("new.db").unlink()
    instructions = int(upgrade(whole).stdout)
    log_of_schema(1, path)
    for part in (0.25, 0.5, 0.95):
        assert upgrade(path, int(instructions * part)).returncode == -9
        assert records_in(path) == PAST
        assert schema_of(path)[0] == 1
    write(path, [])
    assert schema_of(path) == schema_of(whole)
    assert records_in(path) == PAST


def test_an_upgrade_that_nobody_waits_for_leaves_the_log_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelforge.event_log.log_schema._ASKED_EVERY", 1)
    log_of_schema(1, path)
    told = list[int]()

    async def opened(*, is_given_up: bool) -> None:
        await (await EventLog.open(path, told.append, lambda: is_given_up)).close()

    with pytest.raises(LogUnusable, match="interrupted"):
        asyncio.run(opened(is_given_up=True))
    assert (schema_of(path)[0], told) == (1, [len(PAST)])
    asyncio.run(opened(is_given_up=False))
    asyncio.run(opened(is_given_up=False))
    assert (schema_of(path)[0], told) == (SCHEMA, [len(PAST)] * 2)


async def test_the_log_is_made_to_outlast_a_power_loss(path: Path) -> None:
    log = await EventLog.open(path)
    try:
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2)):
            async with log._writer.execute(f"PRAGMA {pragma}") as cursor:  # noqa: SLF001 - settings of this connection
                assert list(await cursor.fetchall()) == [(value,)]
    finally:
        await log.close()
