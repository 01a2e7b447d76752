"""How fast things become durable, beside SQLite alone: `python benchmarks/append.py`.

Ours is the command handler as the server has it: decided, redacted, encoded, digested, written, folded into state and
read models, and only then answered. The yardsticks are programs that do nothing but write the same messages, the JSON
of each in a row of a table of its own: `sqlite3` in one thread, WAL, synchronous=FULL, so many rows a transaction; and
`aiosqlite` with a transaction for each row, for 64 callers at once. No trainer and no HTTP is in any of them.

The ingest is what follows a trainer: the lines of its spool are read, checked, and written as batch records.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import aiosqlite
import msgspec
import uvloop
from figures import Figure, Program, Rounds
from support.running_log import RunningLog, running_log
from support.scenario import lines, spawned, start, started

from modelforge.domain.job import MetricsLogged
from modelforge.domain.messages import encode
from modelforge.domain.scheduling import Machine
from modelforge.supervisor.spool import Spool
from trainer_entry import wire

CALLERS = 64
_TABLE = "CREATE TABLE events (position INTEGER PRIMARY KEY, data TEXT NOT NULL) STRICT"
_INSERT = "INSERT INTO events (data) VALUES (?)"
_PRAGMAS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL")
INGEST = Figure(
    name="Open-loop durable ingest of a trainer's lines / raw sqlite3, 1,000 a transaction",
    unit="lines/s",
    yardstick="raw sqlite3",
    at_least=0.95,
    note="Ours reads a spool that is full of steps, checks each line, and writes them as batch records, durable, "
    "folded into state and read models. Raw has the same lines in memory and writes a row of each.",
)
TOGETHER = Figure(
    name="64 concurrent durable appends / raw sqlite3, 64 a transaction",
    unit="events/s",
    yardstick="raw sqlite3",
    at_least=0.7,
    note="64 callers that each submit a report of one step, of a job of its own, and wait until it is durable; raw has "
    "the same events encoded in memory.",
)
EACH = Figure(
    name="The same / one a transaction by aiosqlite",
    unit="events/s",
    yardstick="aiosqlite",
    at_least=20,
    note="64 callers that each insert an event in a transaction of its own, by one connection of aiosqlite.",
)


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


def ingest(spool: Path, count: int) -> Callable[[Path], float]:
    """Lines a second from the file to the log."""

    async def read(folder: Path) -> float:
        async with AsyncExitStack() as ends:
            log, (job_id,) = await with_jobs(ends, folder, 1)
            began = time.perf_counter()
            reader = Spool(spool, 0)
            while (batch := await reader.next()) is not None:
                report = lines(batch.offset, *batch.messages, quarantined=batch.quarantined, job_id=job_id)
                await log.submit(report, actor="trainer")
            seconds = time.perf_counter() - began
            if log.state.jobs[job_id].seq != count + 1:
                raise AssertionError("lines are missing")
        return count / seconds

    return in_loop(read, "ours")


def submissions(count: int) -> Callable[[Path], float]:
    """Events a second of callers that each wait for theirs."""

    async def submit(folder: Path) -> float:
        async with AsyncExitStack() as ends:
            log, job_ids = await with_jobs(ends, folder, CALLERS)
            for job_id in job_ids:
                await log.submit(lines(10, started(1, total_steps=count), job_id=job_id), actor="trainer")

            async def caller(job_id: str) -> None:
                for seq in range(2, count // CALLERS + 2):
                    await log.submit(lines(10 * seq, step(seq), job_id=job_id), actor="trainer")

            began = time.perf_counter()
            await asyncio.gather(*map(caller, job_ids))
            return count / (time.perf_counter() - began)

    return in_loop(submit, "ours")


def raw(events: list[str], each: int) -> Callable[[Path], float]:
    """Rows a second of `sqlite3`, so many a transaction."""

    def raw_sqlite3(folder: Path) -> float:
        with closing(sqlite3.connect(folder / "raw.db", isolation_level=None)) as connection:
            for statement in (*_PRAGMAS, _TABLE):
                connection.execute(statement)
            began = time.perf_counter()
            for first in range(0, len(events), each):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(_INSERT, [(data,) for data in events[first : first + each]])
                connection.execute("COMMIT")
            return len(events) / (time.perf_counter() - began)

    return raw_sqlite3


def one_a_transaction(events: list[str]) -> Callable[[Path], float]:
    """Rows a second of `aiosqlite`, one a transaction, for all callers at once."""

    async def write(folder: Path) -> float:
        async with aiosqlite.connect(folder / "one.db", isolation_level=None) as connection:
            for statement in (*_PRAGMAS, _TABLE):
                await connection.execute(statement)

            async def caller(own: Iterable[str]) -> None:
                for data in own:
                    await connection.execute_insert(_INSERT, (data,))

            began = time.perf_counter()
            await asyncio.gather(*(caller(events[number::CALLERS]) for number in range(CALLERS)))
            return len(events) / (time.perf_counter() - began)

    return in_loop(write, "aiosqlite")


def in_loop(side: Callable[[Path], Coroutine[Any, Any, float]], name: str) -> Callable[[Path], float]:
    """A side that runs in a loop of the server's kind."""

    def run(folder: Path) -> float:
        return uvloop.run(side(folder))

    run.__name__ = name
    return run


def measure(rounds: Rounds) -> None:
    """Both, each beside its own yardsticks."""
    count = 20_000 if rounds.quick else 200_000
    spool = rounds.folder() / "stdout.jsonl"
    said = write_spool(spool, count)
    rounds.compare(INGEST, ingest(spool, count), raw(said, 1000), warm=True)
    count = 64 * (50 if rounds.quick else 400)
    events = [
        encode(MetricsLogged(job_id="train_000001", attempt=1, seq=seq, offset=10 * seq, steps=(step(seq),))).decode()
        for seq in range(2, count + 2)
    ]
    ours, together, each = rounds.interleave(
        submissions(count), raw(events, CALLERS), one_a_transaction(events[: count // 4]), warm=True
    )
    rounds.tell(TOGETHER, ours, together)
    rounds.tell(EACH, ours, each)


PROGRAM = Program(__doc__, measure, INGEST, TOGETHER, EACH)

if __name__ == "__main__":
    PROGRAM.main()
