"""Writes a log of as many records as are asked for, and rebuilds from it what was live: equal to the byte.

    python -m torture.rebuilding --records 1000000

The records are what jobs lead to that train, fail, are tried again, stop and leave models, with datasets that get
new revisions, and models and datasets that are deleted; they are decided and written by the same code that serves.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from support.running_log import RunningLog, running_log, standing_of
from support.scenario import (
    checkpoint,
    exit_report,
    finished,
    gone,
    lines,
    register_dataset,
    spawned,
    start,
    started,
    step,
)
from support.scenario import stopped as stopped_word

from modelforge.audit import verify
from modelforge.domain import dataset, job, model
from modelforge.domain.messages import Command, Report
from modelforge.layout import Layout

STEPS = 900
KILLED = exit_report(code=None, signal=9)


def life_of_a_job(number: int, job_id: str) -> Iterator[Command | Report]:
    """What is asked and reported of a job after its start."""
    attempt, offset, seq = 1, 0, 0

    def read(make: object) -> job.ReportLines:
        nonlocal offset, seq
        seq, offset = seq + 1, offset + 100
        return lines(offset, make(seq, attempt=attempt), job_id=job_id, attempt=attempt)  # type: ignore[operator]

    yield spawned(job_id, attempt=attempt)
    yield read(started)
    for at in range(STEPS):
        if at == STEPS // 2 and number % 3 == 0:
            yield read(checkpoint)
            yield gone(job_id, attempt=attempt, exit_report=KILLED, checkpoint="/data/checkpoint-7")
            attempt, offset, seq = 2, 0, 0
            yield spawned(job_id, attempt=attempt)
            yield read(started)
        yield read(lambda seq, attempt: step(seq, attempt=attempt, loss=1 / seq, epoch=seq / STEPS))
    if number % 5 == 0:
        yield job.StopTraining(job_id=job_id)
    yield read(finished if number % 5 else stopped_word)
    yield gone(job_id, attempt=attempt)


async def write_log(running: RunningLog, records: int) -> None:
    """Submit whole lives of jobs until there are as many records."""
    number = 0
    while running.state.position < records:
        number += 1
        await running.submit(register_dataset(f"{number:064x}", filename=f"{number % 50}.jsonl"))
        outcome = await running.submit(start("", max_restarts=1))
        messages = [*life_of_a_job(number, outcome.stream)]
        # at once, so that they are written in one transaction
        await asyncio.gather(*(running.submit(message, actor="trainer") for message in messages))
        if number % 7 == 0:
            newest = max(running.state.models)
            await running.submit(model.DeleteModel(model_id=newest))
            await running.submit(model.ReportFilesRemoved(model_id=newest))
        if number % 11 == 0:
            name = f"{(number - 1) % 50}.jsonl"
            (event,) = (await running.submit(dataset.DeleteDataset(filename=name))).events
            assert isinstance(event, dataset.DatasetDeleted)
            await running.submit(dataset.ReportDatasetFilesRemoved(filename=name, files=event.files))
        running.batches.clear()


async def rebuild_and_compare(folder: Path, records: int) -> list[str]:
    """What is not equal."""
    layout = Layout(folder)
    async with running_log(layout.log) as running:
        began = time.perf_counter()
        await write_log(running, records // 2)
        await running.save()
        await write_log(running, records)
        live, written = running.standing(), time.perf_counter()
        from_records = await asyncio.to_thread(standing_of, layout.log)
        rebuilt = time.perf_counter()
        from_snapshot = await asyncio.to_thread(standing_of, layout.log, from_snapshot=True)
        resumed = time.perf_counter()
    faults = verify(layout).faults
    verified = time.perf_counter()
    count = running.state.position
    sys.stdout.write(
        f"{count} records, {layout.log.stat().st_size / 1e6:.0f} MB; state and read models: {len(live)} bytes\n"
        f"written in {written - began:.1f} s, rebuilt in {rebuilt - written:.1f} s "
        f"({(rebuilt - written) / count * 1e6:.1f} us a record), from the snapshot of the middle in "
        f"{resumed - rebuilt:.1f} s, verified in {verified - resumed:.1f} s\n"
    )
    broken = [f"position {fault.position}: {fault.what}" for fault in faults]
    if from_records != live:
        broken.append("what the records lead to is not what was live")
    if from_snapshot != live:
        broken.append("what the snapshot and the records after it lead to is not what was live")
    return broken


def main() -> int:
    """Run, and say what was not equal; the exit code is 1 if anything was not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        broken = asyncio.run(rebuild_and_compare(Path(folder), options.records))
    for what in broken:
        sys.stdout.write(f"BROKEN: {what}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
