"""Bytes on disk a step, and how fast they are read again: `python benchmarks/log_bytes.py [STEPS] [ROUNDS]`.

Side by side in one run, interleaved: steps that came singly, ten and a hundred at a time, as this release writes them and
archived; the rows of the release before; and SQLite with a decoder and nothing else on those.
"""

import asyncio
import math
import random
import sqlite3
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from msgspec import Raw

from modelforge.archive import archive
from modelforge.domain import job
from modelforge.domain.messages import GENESIS, Record, decode, digest_of, encode
from modelforge.event_log.sqlite import EventLog, LogReader, log_schema
from modelforge.layout import Layout
from trainer_entry import wire

STREAM = "train_000001"
TOTAL = 100_000
NOON = 1_767_268_800_000_000


def steps(count: int) -> list[wire.StepLogged]:
    """Figures as a trainer sends them: floats with all their digits."""
    dice, made, elapsed = random.Random(7), [], 0.0
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
    """What reads of a spool lead to that find so many steps each."""
    found, digest = [], GENESIS
    for position, first in enumerate(range(0, len(made), batch), start=1):
        part = tuple(made[first : first + batch])
        message = job.MetricsLogged(job_id=STREAM, attempt=1, seq=part[-1].seq, offset=part[-1].seq * 500, steps=part)
        data, at = encode(message), NOON + first * 950_000
        digest = digest_of(digest, position, STREAM, position, "event", "MetricsLogged", at, None, "trainer", data)
        found.append(
            Record(
                position=position,
                stream=STREAM,
                version=position,
                kind="event",
                type="MetricsLogged",
                at=at,
                cause=None,
                actor="trainer",
                data=Raw(data),
                digest=digest,
                message=message,
            )
        )
    return found


def write(layout: Layout, made: list[Record]) -> None:
    """A log of this release."""

    async def run() -> None:
        log = await EventLog.open(layout.log)
        for first in range(0, len(made), 1000):
            await log.append(made[first : first + 1000])
        await log.close()

    layout.make_folders()
    asyncio.run(run())


def write_as_before(path: Path, made: list[Record]) -> None:
    """A log as the release before wrote it."""
    with closing(sqlite3.connect(path)) as log:
        log.executescript(log_schema(1))
        rows = (
            (r.position, r.stream, r.version, r.kind, r.type, r.at, r.cause, r.actor, bytes(r.data).decode(), r.digest)
            for r in made
        )
        log.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        log.commit()


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of some work."""
    began = time.process_time()
    work()
    return time.process_time() - began


def read(layout: Layout, after: int = 0, limit: int = -1) -> int:
    """Read records, each decoded; how many there were."""
    with closing(LogReader(layout.log)) as reader:
        return sum(1 for _ in reader.records(after=after, limit=limit))


def scan(path: Path) -> int:
    """What SQLite and a decoder take alone."""
    with closing(sqlite3.connect(path)) as log:
        return sum(1 for (data,) in log.execute("SELECT data FROM records ORDER BY position") if decode("event", data))


def size(layout: Layout) -> int:
    """The bytes of a log and of what was archived of it."""
    return sum(path.stat().st_size for path in (layout.log, *layout.segments.glob("*")))


def main() -> None:
    """Measure, and print the medians."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5  # noqa: PLR2004
    made = steps(count)
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder, "before.sqlite")
        write_as_before(before, records(made, 1))
        old = before.stat().st_size / count
        print(f"release before, one a record {old:8.1f} bytes a step")
        logs: dict[str, Layout] = {}
        for batch in (100, 10, 1):
            for kind in ("live", "archived"):
                layout = logs[f"{kind} {batch}"] = Layout(Path(folder, f"{kind}-{batch}"))
                write(layout, records(made, batch))
                if kind == "archived":
                    archive(layout, str(count // batch + 1))
                found = size(layout) / count
                print(f"{kind:<8} {batch:>3} a record       {found:8.1f} bytes a step   {found / old:5.2f} of before")
        _tell_times(logs, before, count, rounds)


def _tell_times(logs: dict[str, Layout], before: Path, count: int, rounds: int) -> None:
    taken: dict[str, list[float]] = {name: [] for name in ("scan", *logs, "page live", "page archived")}
    for _ in range(rounds):
        taken["scan"].append(seconds(lambda: scan(before)))
        for name, layout in logs.items():
            taken[name].append(seconds(lambda layout=layout: read(layout)))  # type: ignore[misc]
        for kind in ("live", "archived"):
            layout = logs[f"{kind} 1"]
            taken[f"page {kind}"].append(seconds(lambda layout=layout: read(layout, count // 2, 100)))  # type: ignore[misc]
    for name, values in taken.items():
        part = 1e3 if name.startswith("page") else 1e6 / count
        unit = "ms" if name.startswith("page") else "us a step"
        ratio = statistics.median(one / other for one, other in zip(values, taken["scan"], strict=True))
        told = "" if unit == "ms" else f"   {ratio:5.2f} of scan and decode of single rows"
        print(f"read {name:<14} {statistics.median(values) * part:8.2f} {unit}{told}")
    for batch in (100, 10, 1):
        pairs = zip(taken[f"archived {batch}"], taken[f"live {batch}"], strict=True)
        print(f"archived / live, {batch:>3} a record: {statistics.median(one / other for one, other in pairs):5.2f}")


if __name__ == "__main__":
    main()
