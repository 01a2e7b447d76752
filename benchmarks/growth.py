"""What a log costs as it grows: `python benchmarks/growth.py [quick]`; `quick`: in half a minute, all of it in some.

- A rebuild of a million records, of one step each and of a hundred, against reading and decoding them and nothing else.
- A server that starts on them without a snapshot, as after an upgrade: until it says that it is well, and until it
  answers everything.
- The longest wait of an event loop on which a snapshot of many jobs is written, none of which it has yet.
- What a server holds in memory with as many jobs that left models: from its snapshot, and once it has read all records.
"""

import asyncio
import gc
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self

import requests

from modelforge.domain import job, model
from modelforge.domain.messages import GENESIS, Event, decode, digest_of, encode, stream_of, tag_of
from modelforge.event_log.sqlite import SCHEMA, LogReader, log_schema
from modelforge.projections.snapshots import Snapshots, rebuild
from trainer_entry import wire

if TYPE_CHECKING:
    from modelforge.projections.folding import Rebuilt

BEGAN = 1_750_000_000_000_000
STEPS = 990
PORT = 18_767
LONGEST_START_SECONDS = 300


def main() -> None:
    """Measure, and print each figure with what it should be."""
    quick = "quick" in sys.argv[1:]
    records, few, many = (50_000, 500, 5_000) if quick else (1_000_000, 5_000, 100_000)
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        root = Path(folder)
        singles, batches = new_log(root / "singles"), new_log(root / "batches")
        write(singles, islice(lives(1, STEPS), records))
        write(batches, lives(100, STEPS * 10, jobs=max(records // (STEPS * 10), 1)))
        measure_rebuild(singles, batches, 1 if quick else 3)
        measure_start(root / "singles")
        for jobs, most in ((few, 80), (many, 300)):
            place = root / f"{jobs}"
            write(new_log(place), lives(1, 2, jobs=jobs))
            measure_memory(place, jobs, most)
            if jobs == many:
                asyncio.run(measure_stall(place, jobs))


def new_log(folder: Path) -> Path:
    """The path of a log in a data directory that is not there yet."""
    folder.mkdir()
    return folder / "events.sqlite"


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
        shim = wire.ShimReport(
            pid=4000 + number, start_time=90_000 + number, boot_id=f"{7:032x}", token=f"{number:032x}"
        )
        yield job.TrainingRequested(job_id=job_id, spec=spec, queued=False)
        yield job.AttemptLaunching(job_id=job_id, attempt=1)
        yield job.AttemptSpawned(job_id=job_id, attempt=1, shim=shim)
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
        connection.executescript(f"PRAGMA synchronous = OFF; {log_schema()} PRAGMA user_version = {SCHEMA}; BEGIN;")
        connection.executemany(
            "INSERT INTO records VALUES (?, ?, ?, 'event', ?, ?, NULL, 'trainer', ?, ?)", rows(events)
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")


def rows(events: Iterator[Event]) -> Iterator[tuple[int, str, int, str, int, str, str]]:
    """The columns of each that differ."""
    digest, versions = GENESIS, dict[str, int]()
    for position, event in enumerate(events, 1):
        stream, tag, at, data = stream_of(event), tag_of(event), BEGAN + position * 1000, encode(event)
        versions[stream] = version = versions.get(stream, 0) + 1
        digest = digest_of(digest, position, stream, version, "event", tag, at, None, "trainer", data)
        yield position, stream, version, tag, at, data.decode(), digest


def timed(path: Path, work: Callable[[LogReader], object]) -> float:
    """Seconds of processor time that some work on a log takes."""
    gc.collect()
    with closing(LogReader(path)) as reader:
        began = time.process_time()
        work(reader)
        return time.process_time() - began


def scan(reader: LogReader) -> None:
    """Read and decode every record, and do nothing with it."""
    cursor = reader._connection.execute("SELECT kind, data FROM records ORDER BY position")  # noqa: SLF001
    while some := cursor.fetchmany(1000):
        for kind, data in some:
            decode(kind, data)


def measure_rebuild(singles: Path, batches: Path, rounds: int) -> None:
    """Rebuild both logs, and scan the one of single steps, in turn."""
    measured = [(timed(singles, scan), timed(singles, rebuild), timed(batches, rebuild)) for _ in range(rounds)]
    scanned, single, batch = (statistics.median(column) for column in zip(*measured, strict=True))
    with closing(LogReader(singles)) as reader:
        count, _ = reader.head()
    print(f"scan and decode of {count} records of a step: {scanned:6.2f} s, {scanned / count * 1e6:.1f} us a record")
    told("their rebuild / scan and decode", [row[1] / row[0] for row in measured], 2.0)
    told(
        "rebuild of the steps by the hundred / scan and decode of single ones",
        [row[2] / row[0] for row in measured],
        0.75,
    )
    print(f"                                   {single:6.2f} s and {batch:6.2f} s")


def measure_start(folder: Path) -> None:
    """Start a server where there is no snapshot, and another where there is one."""
    for what, well, all_of_it in (("without a snapshot", 1.0, 5.0), ("with one", 1.0, 1.0)):
        with Server(folder) as server:
            seconds = server.until("/api/health"), server.until("/api/jobs?limit=1")
        told(f"start {what}: health after, s", [seconds[0]], well)
        told(f"start {what}: everything after, s", [seconds[1]], all_of_it)


def measure_memory(folder: Path, jobs: int, most: float) -> None:
    """What a server holds that read all records, and the next one, that began with its snapshot."""
    for what in ("after a rebuild", "from its snapshot"):
        with Server(folder) as server:
            server.until(f"/api/jobs/train_{jobs:06d}")
            first = timed_get(server.url + "/api/jobs?limit=50")
            filtered = timed_get(server.url + "/api/jobs?limit=50&status=failed")
            told(f"resident with {jobs} jobs {what}, MiB", [server.resident()], most)
            print(f"    a page of jobs in {first * 1000:.0f} ms; of those that failed, none, {filtered * 1000:.0f} ms")
    print(
        f"    the log {size(folder / 'events.sqlite'):.0f} MB, its snapshot {size(folder / 'snapshot.sqlite'):.0f} MB"
    )


async def measure_stall(folder: Path, jobs: int) -> None:
    """The longest that a loop waits for itself while a snapshot of everything is written on it."""
    with closing(LogReader(folder / "events.sqlite")) as reader:
        rebuilt: Rebuilt = rebuild(reader)
    snapshots = Snapshots(folder / "another.sqlite", rebuilt)
    gc.collect()
    gc.freeze()
    idle = await longest_wait(asyncio.sleep(2))
    began = time.perf_counter()
    busy = await longest_wait(snapshots.write(rebuilt.digest))
    seconds = time.perf_counter() - began
    await snapshots.close(None)
    told(f"loop stalled by a snapshot of {jobs} jobs, ms", [busy * 1000], 20)
    print(f"    {seconds:.1f} s in all; an idle loop waits {idle * 1000:.1f} ms here")


async def longest_wait(work: Coroutine[None, None, None]) -> float:
    """The longest that a task which asks for a millisecond has to wait beyond it while some work is done."""
    task = asyncio.get_running_loop().create_task(work)
    longest = 0.0
    while not task.done():
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - began - 0.001)
    await task
    return longest


class Server:
    """A server on a data directory."""

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{PORT}"
        command = [sys.executable, "-m", "modelforge", "serve", "--port", str(PORT), "--data-dir", str(folder)]
        self._began = time.perf_counter()
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def until(self, path: str) -> float:
        """Seconds from its start until it answers a path."""
        while True:
            try:
                if requests.get(self.url + path, timeout=5).ok:
                    return time.perf_counter() - self._began
            except requests.ConnectionError:
                pass
            if self._process.poll() is not None or time.perf_counter() - self._began > LONGEST_START_SECONDS:
                sys.exit("The server did not answer")
            time.sleep(0.005)

    def resident(self) -> float:
        """MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (kib,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
        return kib / 1024


def timed_get(url: str) -> float:
    """Seconds until an answer is there; the best of three."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        requests.get(url, timeout=60).raise_for_status()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def size(path: Path) -> float:
    """Of a file, in 10^6 bytes."""
    return path.stat().st_size / 1e6


def told(what: str, values: list[float], aim: float) -> None:
    """Print a figure with its aim."""
    middle = statistics.median(values)
    spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    print(f"{what}: {middle:.2f}{spread}; aim {aim:g}{'' if middle <= aim else ': missed'}", flush=True)


if __name__ == "__main__":
    main()
