"""What a log costs that grows: `python benchmarks/growth.py [--quick]`; `--quick` in half a minute, all of it in some.

A rebuild of a million records; a server that starts on them without a snapshot, as after an upgrade, and on a log of
the first schema; the longest wait of an event loop on which a snapshot of many jobs is written; what a server holds in
memory with many jobs.
"""

import asyncio
import gc
import shutil
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import msgspec
import requests
from figures import Figure, Program, Rounds
from server_process import resident_mib, served

from modelforge.domain import job, model
from modelforge.domain.messages import GENESIS, Event, decode, digest_of, encode, first_digest_of, stream_of, tag_of
from modelforge.event_log.log_schema import PAGE_BYTES, SCHEMA, log_schema
from modelforge.event_log.packing import packed, unpacked
from modelforge.event_log.sqlite import LogReader
from modelforge.projections.snapshots import Snapshots, rebuild
from trainer_entry import wire

BEGAN = 1_750_000_000_000_000
STEPS = 990
ASLEEP_FLAG = "--asleep"
RECORDS, FEW, MANY = 1_000_000, 5_000, 100_000
RECORDS_QUICKLY, FEW_QUICKLY, MANY_QUICKLY = 50_000, 500, 5_000
_NOTE = (
    "Processor time; a million records of a step each are read, kind and data, and decoded by the union of all types. "
)
SINGLE = Figure(
    name="Rebuild of a million records / scan and decode",
    unit="s",
    yardstick="scan and decode",
    at_most=2,
    note=f"{_NOTE}Ours leads to state and read models.",
)
BATCH = Figure(
    name="Rebuild of the same steps, a hundred a record / scan and decode of single ones",
    unit="s",
    yardstick="scan and decode",
    at_most=0.75,
    note=f"{_NOTE}Ours leads to state and read models.",
)
_START = "A server on a million records and no snapshot, from the start of its process until "
_OLD = "The same on a log of schema 1, as the first release wrote it, which is upgraded before it is read: until "
HEALTH = Figure(name="Start after an upgrade: health", unit="s", at_most=1, note=f"{_START}`/api/health` answers.")
ALL = Figure(name="Start after an upgrade: everything", unit="s", at_most=5, note=f"{_START}`/api/jobs` answers.")
UPGRADE_HEALTH = Figure(
    name="Start on a log of schema 1: health", unit="s", at_most=1, note=f"{_OLD}`/api/health` answers."
)
UPGRADE = Figure(name="Start on a log of schema 1: everything", unit="s", at_most=5, note=f"{_OLD}`/api/jobs` answers.")
AGAIN = Figure(
    name="Start on a million records with a snapshot", unit="s", note=f"{_START}`/api/jobs` answers, with a snapshot."
)
STALL = Figure(
    name="Loop stalled by a snapshot of 100,000 jobs",
    unit="ms",
    at_most=20,
    note="The longest that a task which sleeps a millisecond waits beyond it while all is written.",
)
ASLEEP = Figure(
    name="The same of a process that only sleeps",
    unit="ms",
    note="At the same time, with a loop of its own: what the machine itself makes late.",
)
MOST_WAITS = Figure(
    name="999 of 1,000 waits of that loop / of the one that only sleeps",
    unit="ms",
    yardstick="only sleeps",
    note="The 99.9th percentile of the waits, of both at the same time.",
)
RESIDENT_FEW = Figure(
    name="Memory of a server with 5,000 jobs", unit="MiB", at_most=80, note="Each left a model; from its snapshot."
)
RESIDENT_MANY = Figure(
    name="Memory of a server with 100,000 jobs", unit="MiB", at_most=300, note="Each left a model; from its snapshot."
)
REBUILT_MANY = Figure(
    name="Memory of a server with 100,000 jobs after a rebuild", unit="MiB", at_most=300, note="The same without one."
)
FIRST_PAGE = Figure(
    name="A page of 50 of 100,000 jobs", unit="ms", note="The best of three, by a client in another process."
)
NO_PAGE = Figure(
    name="The jobs of 100,000 that failed, none", unit="ms", note="The best of three, by a client in another process."
)


def measure(rounds: Rounds) -> None:
    """Make the logs, and measure one after the other."""
    records, few, many = (RECORDS_QUICKLY, FEW_QUICKLY, MANY_QUICKLY) if rounds.quick else (RECORDS, FEW, MANY)
    singles, batches = rounds.folder() / "events.sqlite", rounds.folder() / "events.sqlite"
    write(singles, islice(lives(1, STEPS), records))
    write(batches, lives(100, STEPS * 10, jobs=max(records // (STEPS * 10), 1)))
    measure_rebuild(rounds, singles, batches)
    measure_start(rounds, singles.parent)
    measure_upgrade(rounds, islice(lives(1, STEPS), records))
    for jobs, figure in ((few, RESIDENT_FEW), (many, RESIDENT_MANY)):
        folder = rounds.folder()
        write(folder / "events.sqlite", lives(1, 2, jobs=jobs))
        measure_memory(rounds, folder, figure)
        if figure is RESIDENT_MANY:
            asyncio.run(measure_stall(rounds, folder))


def lives(steps_at_once: int, steps: int, jobs: int | None = None) -> Iterator[Event]:
    """The events of jobs that complete, one after the other: so many steps each, so many of them a record."""
    number = 0
    while jobs is None or number < jobs:
        number += 1
        job_id = f"train_{number:06d}"
        parameters = wire.TrainingParameters(num_train_epochs=3.0, learning_rate=1e-5 * number, seed=number)
        spec = wire.JobSpec(
            job_id=job_id,
            task="text-generation",
            strategy="sft",
            provider="huggingface",
            model_name="smollm2-135m-instruct",
            model_path="/home/somebody/.cache/modelforge/smollm2-135m-instruct",
            dataset=wire.DatasetFile(
                filename=f"answers_{number % 40}.jsonl",
                path=f"/srv/forge/datasets/{number % 40:064x}.jsonl",
                sha256=f"{number % 40:064x}",
                format="input_output",
                num_examples=1500,
                revision=1,
            ),
            parameters=parameters,
            output_name=f"support-answers-{number}",
            output_dir=f"/srv/forge/models/{job_id}",
            checkpoint_dir=f"/srv/forge/jobs/{job_id}/checkpoints",
        )
        saved = wire.SavedModel(
            path=spec.output_dir,
            kind="adapter",
            size_bytes=9_700_000 + number,
            metrics={"final_loss": 1.0 + 1 / number, "eval_loss": 1.25 + 1 / number, "train_runtime": 360.5 + number},
        )
        process = job.LocalProcess(
            pid=4000 + number, start_time=90_000 + number, boot_id=f"{7:032x}", token=f"{number:032x}"
        )
        yield job.TrainingRequested(job_id=job_id, spec=spec, queued=False)
        yield job.AttemptLaunching(job_id=job_id, attempt=1)
        yield job.AttemptSpawned(job_id=job_id, attempt=1, reference=process)
        yield job.TrainingStarted(job_id=job_id, attempt=1, seq=1, offset=4000, report=started(parameters, steps))
        seq = 1
        for _ in range(0, steps, steps_at_once):
            some = tuple(step(seq + 1 + at, steps) for at in range(steps_at_once))
            seq += steps_at_once
            yield job.MetricsLogged(job_id=job_id, attempt=1, seq=seq, offset=4000 + 300 * seq, steps=some)
        word = wire.TrainerFinished(attempt=1, seq=seq + 1, step=steps, messages=seq + 1, model=saved)
        yield job.TrainerEnded(job_id=job_id, attempt=1, seq=seq + 1, offset=4000 + 301 * seq, report=word)
        yield job.AttemptExited(job_id=job_id, attempt=1, exit=None)
        yield job.TrainingCompleted(job_id=job_id, model=saved, step=steps)
        yield model.ModelRegistered(
            model_id=number, name=spec.output_name, spec=spec, parameters=parameters, model=saved
        )


def started(parameters: wire.TrainingParameters, steps: int) -> wire.TrainerStarted:
    """What a trainer says once it begins."""
    return wire.TrainerStarted(
        attempt=1,
        seq=1,
        parameters=parameters,
        trainer_arguments={"seed": parameters.seed, "target_modules": ["q_proj", "v_proj"]},
        environment=wire.Environment(
            python="3.11.7", platform="Linux", device="cpu", versions={"torch": "2.10.0", "transformers": "5.24.0"}
        ),
        total_steps=steps,
        total_epochs=3,
        train_examples=1500,
        eval_examples=0,
        trainable_parameters=460_800,
        all_parameters=134_975_808,
        dataset_sha256=f"{1:064x}",
        base_revision=f"{2:040x}",
        chat_template=True,
    )


def step(seq: int, steps: int) -> wire.StepLogged:
    """The figures of a step, with as many digits as a trainer gives."""
    return wire.StepLogged(
        attempt=1,
        seq=seq,
        step=seq - 1,
        total_steps=steps,
        epoch=3 * seq / steps,
        elapsed_seconds=seq * 1.213,
        eta_seconds=(steps - seq) * 1.213,
        loss=2.5 / seq,
        learning_rate=1e-4 / seq,
        memory_mb=1512.31,
    )


def write(path: Path, events: Iterator[Event]) -> None:
    """Write a log as the server would have, with every digest."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.executescript(f"PRAGMA synchronous = OFF; {log_schema()} PRAGMA user_version = {SCHEMA}; BEGIN;")
        connection.executemany(
            "INSERT INTO records (position, stream, version, kind, type, at, actor, data, packed, digest) "
            "VALUES (?, ?, ?, 'event', ?, ?, 'trainer', ?, ?, ?)",
            rows(events),
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")


def write_first(path: Path, events: Iterator[Event]) -> None:
    """Write a log of schema 1 as its release did: plain rows, with digests of the first version."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(f"PRAGMA synchronous = OFF; {log_schema(1)} PRAGMA user_version = 1; BEGIN;")
        connection.executemany(
            "INSERT INTO records (position, stream, version, kind, type, at, actor, data, digest) "
            "VALUES (?, ?, ?, 'event', ?, ?, 'trainer', ?, ?)",
            first_rows(events),
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")


def first_rows(events: Iterator[Event]) -> Iterator[tuple[int, str, int, str, int, str, str]]:
    """The columns of each that differ, in a log of schema 1."""
    digest, versions = GENESIS, dict[str, int]()
    for position, event in enumerate(events, 1):
        stream, tag, at, data = stream_of(event), tag_of(event), BEGAN + position * 1000, encode(event)
        versions[stream] = version = versions.get(stream, 0) + 1
        digest = first_digest_of(digest, position, stream, version, "event", tag, at, None, "trainer", data)
        yield position, stream, version, tag, at, data.decode(), digest


def rows(events: Iterator[Event]) -> Iterator[tuple[int, str, int, str, int, str, bytes | None, str]]:
    """The columns of each that differ."""
    digest, versions = GENESIS, dict[str, int]()
    for position, event in enumerate(events, 1):
        stream, tag, at, data = stream_of(event), tag_of(event), BEGAN + position * 1000, encode(event)
        versions[stream] = version = versions.get(stream, 0) + 1
        digest = digest_of(digest, position, stream, version, "event", tag, at, None, "trainer", data)
        small = packed(data)
        yield position, stream, version, tag, at, data.decode() if small is None else "", small, digest


def processor_time(path: Path, work: Callable[[LogReader], object]) -> float:
    """Seconds of it that some work on a log takes."""
    gc.collect()
    with closing(LogReader(path)) as reader:
        began = time.process_time()
        work(reader)
        return time.process_time() - began


def scan(reader: LogReader) -> None:
    """Read and decode every record, and do nothing with it."""
    select = "SELECT kind, coalesce(packed, data) FROM records ORDER BY position"
    cursor = reader._connection.execute(select)  # noqa: SLF001
    while some := cursor.fetchmany(1000):
        for kind, data in some:
            decode(kind, data if isinstance(data, str) else unpacked(data))


def measure_rebuild(rounds: Rounds, singles: Path, batches: Path) -> None:
    """Rebuild both logs, and scan the one of single steps, in turn."""

    def scan_and_decode(_folder: Path) -> float:
        return processor_time(singles, scan)

    def rebuild_singles(_folder: Path) -> float:
        return processor_time(singles, rebuild)

    def rebuild_batches(_folder: Path) -> float:
        return processor_time(batches, rebuild)

    scanned, single, batch = rounds.interleave(scan_and_decode, rebuild_singles, rebuild_batches)
    rounds.tell(SINGLE, single, scanned)
    rounds.tell(BATCH, batch, scanned)


def measure_start(rounds: Rounds, folder: Path) -> None:
    """Start a server without a snapshot, so often as there are rounds, and one with it."""
    first, again = list[tuple[float, float]](), list[tuple[float, float]]()
    for _ in range(rounds.count):
        (folder / "snapshot.sqlite").unlink(missing_ok=True)
        first.append(seconds_to_start(folder))
        again.append(seconds_to_start(folder))
    rounds.tell(HEALTH, [well for well, _ in first])
    rounds.tell(ALL, [whole for _, whole in first])
    rounds.tell(AGAIN, [whole for _, whole in again])


def measure_upgrade(rounds: Rounds, events: Iterator[Event]) -> None:
    """Start a server on a copy of a log of schema 1, so often as there are rounds."""
    written = rounds.folder() / "events.sqlite"
    write_first(written, events)
    taken = list[tuple[float, float]]()
    for _ in range(rounds.count):
        folder = rounds.folder()
        shutil.copy(written, folder)
        taken.append(seconds_to_start(folder))
        (folder / "events.sqlite").unlink()
    rounds.tell(UPGRADE_HEALTH, [well for well, _ in taken])
    rounds.tell(UPGRADE, [whole for _, whole in taken])


def seconds_to_start(folder: Path) -> tuple[float, float]:
    """From the start of a server until it answers of its health, and until it answers everything."""
    began = time.perf_counter()
    with served(folder, waits=False) as server:
        requests.get(f"{server.url}/api/health", timeout=60).raise_for_status()
        well = time.perf_counter() - began
        while not requests.get(f"{server.url}/api/jobs?limit=1", timeout=60).ok:
            time.sleep(0.02)
        return well, time.perf_counter() - began


def measure_memory(rounds: Rounds, folder: Path, figure: Figure) -> None:
    """What a server holds that read all records, and the next one, that began with its snapshot."""
    with served(folder) as server:
        rebuilt = resident_mib(server.pid)
    with served(folder) as server:
        requests.get(f"{server.url}/api/jobs", timeout=60).raise_for_status()
        rounds.tell(figure, [resident_mib(server.pid)])
        if figure is RESIDENT_MANY:
            rounds.tell(REBUILT_MANY, [rebuilt])
            rounds.tell(FIRST_PAGE, [milliseconds(f"{server.url}/api/jobs")])
            rounds.tell(NO_PAGE, [milliseconds(f"{server.url}/api/jobs?status=failed")])


def milliseconds(url: str) -> float:
    """Until an answer is there; the best of three."""
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        requests.get(url, timeout=60).raise_for_status()
        taken.append(1000 * (time.perf_counter() - began))
    return min(taken)


async def measure_stall(rounds: Rounds, folder: Path) -> None:
    """Write a snapshot of everything, beside a task that looks at the clock."""
    with closing(LogReader(folder / "events.sqlite")) as reader:
        rebuilt = rebuild(reader)
    snapshots = Snapshots(folder / "another.sqlite", rebuilt)
    gc.collect()
    command = [sys.executable, __file__, ASLEEP_FLAG]
    control = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1)
    if control.stdout is None:
        raise AssertionError("it has one")
    await control.stdout.readline()  # it sleeps
    stalled = await waits_while(snapshots.write(rebuilt.digest))
    asleep = msgspec.json.decode((await control.communicate(b""))[0], type=list[float])  # its end of input ends it
    await snapshots.close(None)
    rounds.tell(ASLEEP, [max(asleep)])
    rounds.tell(STALL, [max(stalled)])
    rounds.tell(MOST_WAITS, [statistics.quantiles(stalled, n=1000)[-1]], [statistics.quantiles(asleep, n=1000)[-1]])


async def waits_while(work: Coroutine[None, None, None]) -> list[float]:
    """What a task that sleeps a millisecond waits beyond it, each time, while some work is done, in milliseconds."""
    task, waits = asyncio.create_task(work), []
    while not task.done():
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        waits.append(1000 * (time.perf_counter() - began - 0.001))
    await task
    return waits


def only_sleep() -> None:
    """Sleep until the input ends, and write the waits."""
    sys.stdout.write("\n")
    sys.stdout.flush()
    waits = asyncio.run(waits_while(asyncio.to_thread(sys.stdin.read)))  # type: ignore[arg-type] # what it read is of no use
    sys.stdout.write(msgspec.json.encode(waits).decode())


PROGRAM = Program(
    __doc__,
    measure,
    *(SINGLE, BATCH, HEALTH, ALL, AGAIN, UPGRADE_HEALTH, UPGRADE, STALL, ASLEEP, MOST_WAITS),
    *(RESIDENT_FEW, RESIDENT_MANY, REBUILT_MANY, FIRST_PAGE, NO_PAGE),
)

if __name__ == "__main__":
    if sys.argv[1:] == [ASLEEP_FLAG]:
        only_sleep()
    else:
        PROGRAM.main()
