"""What a step takes on the disk, and to be read again: `python benchmarks/log_bytes.py [--quick] [--steps 20000]`.

Steps that came singly, ten and a hundred at a time, as this release writes and archives them; beside them the rows of
the release before, and SQLite with a decoder and nothing else on those. What is read is measured in processor time.
"""

import argparse
import asyncio
import math
import random
import sqlite3
import struct
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from figures import Figure, Program, Rounds
from msgspec import Raw
from support.scenario import launching, requested

from modelforge.archive import archive
from modelforge.domain import job
from modelforge.domain.messages import GENESIS, Message, Record, decode, digest_of, encode, tag_of
from modelforge.event_log.log_schema import log_schema
from modelforge.event_log.sqlite import EventLog, LogReader
from modelforge.layout import Layout
from trainer_entry import wire

STREAM = "train_000001"
TOTAL = 100_000
NOON = 1_767_268_800_000_000
STEPS, STEPS_QUICKLY, PAGE = 20_000, 2_000, 100
_MOST_BYTES = 100
_OF = "Figures as a trainer sends them, with all their digits; the log's file and its segments, over the steps in them."


def _size(name: str) -> Figure:
    return Figure(name=f"Bytes on disk a step, {name}", unit="bytes", at_most=_MOST_BYTES, note=_OF)


SIZES = {
    (100, "live"): _size("100 a record"),
    (10, "live"): _size("10 a record"),
    (1, "live"): _size("one a record"),
    (100, "archived"): _size("100 a record, archived"),
    (10, "archived"): _size("10 a record, archived"),
    (1, "archived"): _size("one a record, archived"),
}
READ = Figure(
    name="Reading steps, 100 a record / scan and decode of one a record",
    unit="us",
    yardstick="scan and decode",
    at_most=0.75,
    note="All of a log, read as records; SQLite with a decoder, and nothing else, on the rows of the release before.",
)
READ_ARCHIVED = Figure(
    name="Reading steps, one a record, archived / in the log",
    unit="us",
    yardstick="in the log",
    note="The same of all records, from segments and from the log itself.",
)
READ_PAGE = Figure(
    name="A page of 100 records, archived / in the log",
    unit="ms",
    yardstick="in the log",
    note="The records after the one in the middle: of a segment the blocks that they lie in are read.",
)


def steps(count: int) -> list[wire.StepLogged]:
    """Figures as a trainer sends them: floats with all their digits."""
    dice, made, elapsed = random.Random(7), [], 0.0  # noqa: S311 - the same each time
    for number in range(1, count + 1):
        elapsed += 0.9 + dice.random() / 5
        left = elapsed / number * (TOTAL - number)
        made.append(
            wire.StepLogged(
                attempt=1,
                seq=number + 3,
                step=number,
                total_steps=TOTAL,
                epoch=number / 1250,
                elapsed_seconds=elapsed,
                eta_seconds=left,
                phase_eta_seconds=left,
                loss=_single(2 * math.exp(-number / 500) + 0.3 + dice.gauss(0, 0.1)),
                learning_rate=2e-4 * (1 - number / TOTAL),
                grad_norm=_single(abs(dice.gauss(1, 0.3))),
                tokens_per_second=200 / (0.9 + dice.random() / 5),
                phase_step=number,
                phase_total_steps=TOTAL,
                memory_mb=1347.5 + number // 400 * 0.256,
            )
        )
    return made


def _single(value: float) -> float:
    """A float as torch has it."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def records(made: list[wire.StepLogged], batch: int) -> list[Record]:
    """What reads of a spool lead to that find so many steps each, after the beginning of a job."""
    parts = [tuple(made[first : first + batch]) for first in range(0, len(made), batch)]
    logged = [
        job.MetricsLogged(job_id=STREAM, attempt=1, seq=part[-1].seq, offset=part[-1].seq * 500, steps=part)
        for part in parts
    ]
    found, digest = [], GENESIS
    over = job.TrainingFailed(job_id=STREAM, kind="OutOfMemory", message="")  # or nothing of it could be archived
    messages: list[Message] = [requested(), launching(), *logged, over]
    for position, message in enumerate(messages, start=1):
        data, tag, at = encode(message), tag_of(message), NOON + position * batch * 950_123
        digest = digest_of(digest, position, STREAM, position, "event", tag, at, None, "trainer", data)
        found.append(
            Record(
                position=position,
                stream=STREAM,
                version=position,
                kind="event",
                type=tag,
                at=at,
                cause=None,
                actor="trainer",
                data=Raw(data),
                digest=digest,
                message=message,
            )
        )
    return found


def written(layout: Layout, made: list[Record], kind: str) -> Layout:
    """A log of this release, archived or not."""

    async def run() -> None:
        log = await EventLog.open(layout.log)
        for first in range(0, len(made), 1000):
            await log.append(made[first : first + 1000])
        await log.close()

    layout.make_folders()
    asyncio.run(run())
    if kind == "archived":
        archive(layout, str(len(made) + 1))
    return layout


def written_before(path: Path, made: list[Record]) -> Path:
    """A log as the release before wrote it."""
    with closing(sqlite3.connect(path)) as log:
        log.executescript(log_schema(1))
        rows = (
            (r.position, r.stream, r.version, r.kind, r.type, r.at, r.cause, r.actor, bytes(r.data).decode(), r.digest)
            for r in made
        )
        log.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        log.commit()
    return path


def size(layout: Layout) -> int:
    """The bytes of a log and of what was archived of it."""
    return sum(path.stat().st_size for path in (layout.log, *layout.segments.glob("*")))


def read(layout: Layout, after: int, limit: int, _folder: Path) -> float:
    """Processor seconds to read records, each decoded."""

    def run() -> None:
        with closing(LogReader(layout.log)) as reader:
            for _ in reader.records(after=after, limit=limit):
                pass

    return _seconds(run)


def scan(path: Path, _folder: Path) -> float:
    """Processor seconds of SQLite and a decoder alone."""

    def run() -> None:
        with closing(sqlite3.connect(path)) as log:
            for (data,) in log.execute("SELECT data FROM records ORDER BY position"):
                decode("event", data)

    return _seconds(run)


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(rounds: Rounds) -> None:
    """Write the logs once, and read them in turn."""
    count = rounds.options.steps or (STEPS_QUICKLY if rounds.quick else STEPS)
    made = steps(count)
    before = written_before(rounds.folder() / "before.sqlite", records(made, 1))
    print(f"  The release before, one a record: {before.stat().st_size / count:.0f} bytes a step")
    logs = {}
    for (batch, kind), figure in SIZES.items():
        logs[batch, kind] = layout = written(Layout(rounds.folder() / "data"), records(made, batch), kind)
        rounds.tell(figure, [size(layout) / count])
    whole = [partial(read, logs[name], 2, -1) for name in ((100, "live"), (1, "archived"), (1, "live"))]
    pages = [partial(read, logs[1, kind], count // 2, PAGE) for kind in ("archived", "live")]
    batches, archived, live, scanned, *paged = rounds.interleave(*whole, partial(scan, before), *pages, warm=True)
    for figure, ours, yardstick in ((READ, batches, scanned), (READ_ARCHIVED, archived, live)):
        rounds.tell(figure, *([one / count * 1e6 for one in side] for side in (ours, yardstick)))
    rounds.tell(READ_PAGE, *([one * 1e3 for one in side] for side in paged))


def options(parser: argparse.ArgumentParser) -> None:
    """How many steps."""
    parser.add_argument("--steps", type=int, help=f"{STEPS} by default")


PROGRAM = Program(__doc__, measure, *SIZES.values(), READ, READ_ARCHIVED, READ_PAGE, options=options)

if __name__ == "__main__":
    PROGRAM.main()
