"""How fast things become durable, beside SQLite alone: `python benchmarks/append.py`.

Ours is the command handler as the server has it: decided, redacted, encoded, digested, written, folded into state and
read models, and only then answered. The yardsticks are programs that do nothing but write: `sqlite3` in one thread,
WAL, synchronous=FULL, so many rows a transaction; and `aiosqlite` with a transaction for each row, for 64 callers at
once. No trainer and no HTTP is in any of them.

The ingest is what follows a trainer: the lines of its spool are read, checked, and written as batch records. Raw writes
the same lines, a row each. The submissions are of one event each, and raw writes the very rows that come of them.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import aiosqlite
import msgspec
import uvloop
from figures import Figure, Program, Rounds
from support.running_log import RunningLog, records_in, running_log
from support.scenario import lines, spawned, start, started

from modelforge.domain.messages import Record
from modelforge.domain.scheduling import Machine
from modelforge.event_log.sqlite import EventLog
from modelforge.supervisor.spool import Spool
from trainer_entry import wire

CALLERS = 64
_TABLE = "CREATE TABLE events (position INTEGER PRIMARY KEY, data TEXT NOT NULL) STRICT"
_INSERT = "INSERT INTO events (data) VALUES (?)"
_INSERT_ROW = (
    "INSERT INTO records (position, stream, version, kind, type, at, cause, actor, data, digest) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_PRAGMAS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL")
INGEST = Figure(
    name="Open-loop durable ingest of a trainer's lines / raw sqlite3, 1,000 a transaction",
    unit="lines/s",
    yardstick="raw sqlite3",
    at_least=0.95,
    note="Ours reads a spool that is full of steps, checks each line, and writes them as batch records, durable, "
    "folded into state and read models. Raw has the same lines in memory and writes a row of each, of nothing else.",
)
INGEST_PROCESSOR = Figure(
    name="The same, processor time",
    unit="us a line",
    yardstick="raw sqlite3",
    note="Of all threads of the process. What a busy machine does to waiting is not in it.",
)
ROWS = Figure(
    name="64 durable appends to the log in a transaction / raw sqlite3, the same rows",
    unit="events/s",
    yardstick="raw sqlite3",
    at_least=0.7,
    note="The log's own append, by its thread, of 64 records at a time that are made already; raw writes the same "
    "rows to the same table, 64 a transaction.",
)
TOGETHER = Figure(
    name="64 concurrent durable submissions / raw sqlite3, 64 a transaction, the same rows",
    unit="events/s",
    yardstick="raw sqlite3",
    at_least=0.7,
    note="64 callers that each submit a report of one step, of a job of its own, and wait until it is decided, "
    "digested, durable and folded; raw writes the rows that came of it.",
)
TOGETHER_PROCESSOR = Figure(
    name="The same submissions, processor time",
    unit="us an event",
    yardstick="raw sqlite3",
    note="Of all threads of the process.",
)
EACH = Figure(
    name="64 concurrent durable submissions / one a transaction by aiosqlite",
    unit="events/s",
    yardstick="aiosqlite",
    at_least=20,
    note="64 callers that each insert one of those rows in a transaction of its own, by one connection of aiosqlite.",
)
CEILING = Figure(
    name="The same rows by raw sqlite3, 64 a transaction / one a transaction by aiosqlite",
    unit="events/s",
    yardstick="aiosqlite",
    note="Nothing of ours: as far as the figure before can come with a program that does nothing but write.",
)
ROW_PROCESSOR = Figure(
    name="A row of the log by raw sqlite3, 64 a transaction / the same data in a table of nothing else",
    unit="us a row",
    yardstick="plain table",
    note="Processor time. What columns, digests and the index of 64 streams cost beside the data; each stream has a "
    "page of the index, which every transaction writes.",
)
Row = tuple[Any, ...]


class Cost(NamedTuple):
    """How many a second, and the microseconds of a processor for each."""

    rate: float
    processor: float


Side = Callable[[Path], Cost]


class Clock:
    """Begins with the block that is measured."""

    def __init__(self) -> None:
        self._began, self._used = time.perf_counter(), time.process_time()

    def of(self, count: int) -> Cost:
        """What so many took."""
        seconds, used = time.perf_counter() - self._began, time.process_time() - self._used
        return Cost(count / seconds, used / count * 1e6)


def step(seq: int) -> wire.StepLogged:
    """A step as a trainer tells it."""
    return wire.StepLogged(
        attempt=1,
        seq=seq,
        step=seq,
        total_steps=1_000_000,
        epoch=seq / 1000,
        elapsed_seconds=seq * 0.731,
        eta_seconds=(1_000_000 - seq) * 0.731,
        loss=2.0 + 1 / seq,
        learning_rate=1e-4,
        grad_norm=0.5 + 1 / seq,
        tokens_per_second=1234.5,
        memory_mb=1726.4,
    )


def write_spool(path: Path, count: int) -> list[str]:
    """A spool of so many steps after the trainer's first word; the lines of the steps."""
    said = [msgspec.json.encode(step(seq)) for seq in range(2, count + 2)]
    path.write_bytes(b"\n".join([msgspec.json.encode(started(1, total_steps=count)), *said]) + b"\n")
    return [line.decode() for line in said]


async def with_jobs(ends: AsyncExitStack, folder: Path, count: int) -> tuple[RunningLog, list[str]]:
    """A log with so many jobs whose processes are there."""
    log = await ends.enter_async_context(running_log(folder / "events.db", machine=Machine(slots=count)))
    job_ids = [(await log.submit(start(queue=True))).stream.removeprefix("job:") for _ in range(count)]
    for job_id in job_ids:
        await log.submit(spawned(job_id), actor="supervisor")
    return log, job_ids


def ingest(spool: Path, count: int) -> Side:
    """Lines a second from the file to the log."""

    async def read(folder: Path) -> Cost:
        async with AsyncExitStack() as ends:
            log, (job_id,) = await with_jobs(ends, folder, 1)
            clock = Clock()
            reader = Spool(spool, 0)
            while (batch := await reader.next()) is not None:
                report = lines(batch.offset, *batch.messages, quarantined=batch.quarantined, job_id=job_id)
                await log.submit(report, actor="trainer")
                log.batches.clear()  # no server keeps what it has written
            cost = clock.of(count)
            if log.state.jobs[job_id].seq != count + 1:
                raise AssertionError("lines are missing")
        return cost

    return in_loop(read, "ours")


def submissions(count: int) -> Side:
    """Events a second of callers that each wait for theirs."""

    async def submit(folder: Path) -> Cost:
        async with AsyncExitStack() as ends:
            log, job_ids = await with_jobs(ends, folder, CALLERS)
            for job_id in job_ids:
                await log.submit(lines(10, started(1, total_steps=count), job_id=job_id), actor="trainer")

            async def caller(job_id: str) -> None:
                for seq in range(2, count // CALLERS + 2):
                    await log.submit(lines(10 * seq, step(seq), job_id=job_id), actor="trainer")
                    log.batches.clear()  # no server keeps what it has written

            clock = Clock()
            await asyncio.gather(*map(caller, job_ids))
            return clock.of(count)

    return in_loop(submit, "ours")


def records_of(folder: Path, count: int) -> list[Record]:
    """The records of such submissions, from a log that they were written to."""

    async def submit() -> None:
        async with AsyncExitStack() as ends:
            log, job_ids = await with_jobs(ends, folder, CALLERS)
            for job_id in job_ids:
                await log.submit(lines(10, started(1, total_steps=count), job_id=job_id), actor="trainer")
            for seq in range(2, count // CALLERS + 2):
                reports = [lines(10 * seq, step(seq), job_id=job_id) for job_id in job_ids]
                await asyncio.gather(*(log.submit(report, actor="trainer") for report in reports))

    uvloop.run(submit())
    return records_in(folder / "events.db")[-count:]


def appended(records: list[Record]) -> Side:
    """Events a second of the log alone."""

    async def append(folder: Path) -> Cost:
        log = await EventLog.open(folder / "events.db")
        try:
            clock = Clock()
            for first in range(0, len(records), CALLERS):
                await log.append(records[first : first + CALLERS])
            return clock.of(len(records))
        finally:
            await log.close()

    return in_loop(append, "the log")


def made_log(folder: Path) -> sqlite3.Connection:
    """The file of an empty log, with its tables."""

    async def make() -> None:
        await (await EventLog.open(folder / "events.db")).close()

    asyncio.run(make())
    return sqlite3.connect(folder / "events.db", isolation_level=None)


def plain_table(folder: Path) -> sqlite3.Connection:
    """A file with a table that has nothing but the lines."""
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    connection.execute(_TABLE)
    return connection


def raw(open_file: Callable[[Path], sqlite3.Connection], insert: str, rows: Sequence[Row], each: int) -> Side:
    """Rows a second of `sqlite3`, so many a transaction."""

    def raw_sqlite3(folder: Path) -> Cost:
        with closing(open_file(folder)) as connection:
            for statement in _PRAGMAS:
                connection.execute(statement)
            clock = Clock()
            for first in range(0, len(rows), each):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(insert, rows[first : first + each])
                connection.execute("COMMIT")
            return clock.of(len(rows))

    return raw_sqlite3


def one_a_transaction(rows: Sequence[Row]) -> Side:
    """Rows a second of `aiosqlite`, one a transaction, for all callers at once."""

    async def write(folder: Path) -> Cost:
        async with aiosqlite.connect(folder / "events.db", isolation_level=None) as connection:
            for statement in _PRAGMAS:
                await connection.execute(statement)

            async def caller(own: Iterable[Row]) -> None:
                for row in own:
                    await connection.execute_insert(_INSERT_ROW, row)

            clock = Clock()
            await asyncio.gather(*(caller(rows[number::CALLERS]) for number in range(CALLERS)))
            return clock.of(len(rows))

    def one_by_aiosqlite(folder: Path) -> Cost:
        made_log(folder).close()
        return uvloop.run(write(folder))

    return one_by_aiosqlite


def in_loop(side: Callable[[Path], Coroutine[Any, Any, Cost]], name: str) -> Side:
    """A side that runs in a loop of the server's kind."""

    def run(folder: Path) -> Cost:
        return uvloop.run(side(folder))

    run.__name__ = name
    return run


def measure(rounds: Rounds) -> None:
    """Both, each beside its own yardsticks."""
    count = 20_000 if rounds.quick else 200_000
    spool = rounds.folder() / "stdout.jsonl"
    said = [(line,) for line in write_spool(spool, count)]
    ours, alone = rounds.interleave(ingest(spool, count), raw(plain_table, _INSERT, said, 1000), warm=True)
    rounds.tell(INGEST, rates(ours), rates(alone))
    rounds.tell(INGEST_PROCESSOR, processor(ours), processor(alone))
    count = CALLERS * (50 if rounds.quick else 300)
    records = records_of(rounds.folder(), count)
    rows = [
        (r.position, r.stream, r.version, r.kind, r.type, r.at, r.cause, r.actor, bytes(r.data).decode(), r.digest)
        for r in records
    ]
    data = [(bytes(record.data).decode(),) for record in records]
    ours, log, together, each, plain = rounds.interleave(
        submissions(count),
        appended(records),
        raw(made_log, _INSERT_ROW, rows, CALLERS),
        one_a_transaction(rows[: count // 4]),
        raw(plain_table, _INSERT, data, CALLERS),
        warm=True,
    )
    rounds.tell(ROWS, rates(log), rates(together))
    rounds.tell(TOGETHER, rates(ours), rates(together))
    rounds.tell(TOGETHER_PROCESSOR, processor(ours), processor(together))
    rounds.tell(EACH, rates(ours), rates(each))
    rounds.tell(CEILING, rates(together), rates(each))
    rounds.tell(ROW_PROCESSOR, processor(together), processor(plain))


def rates(costs: list[Cost]) -> list[float]:
    """How many a second."""
    return [cost.rate for cost in costs]


def processor(costs: list[Cost]) -> list[float]:
    """Microseconds of a processor for each."""
    return [cost.processor for cost in costs]


PROGRAM = Program(
    __doc__,
    measure,
    *(INGEST, INGEST_PROCESSOR, ROWS, TOGETHER, TOGETHER_PROCESSOR, EACH, CEILING, ROW_PROCESSOR),
)

if __name__ == "__main__":
    PROGRAM.main()
