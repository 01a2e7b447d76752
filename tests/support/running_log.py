"""A log file with its writer and read models, as the server runs them."""

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from modelforge.command_handler import CommandHandler
from modelforge.domain.messages import Record
from modelforge.domain.scheduling import Machine
from modelforge.domain.state import State
from modelforge.event_log.chain import Chain
from modelforge.event_log.packing import unpacked
from modelforge.event_log.sqlite import EventLog, LogReader
from modelforge.projections.folding import Rebuilt
from modelforge.projections.snapshots import Snapshots, pieces_of, rebuild
from trainer_entry.wire.redaction import Redaction

if TYPE_CHECKING:
    from modelforge.projections.read_models import ReadModels

COLUMNS = ("position", "stream", "version", "kind", "type", "at", "cause", "actor", "data", "digest")
ONE_SLOT = Machine()
Row = tuple[int, str, int, str, str, int, int | None, str, str, str]


class RunningLog:
    """An open log, its one writer, and the read models that follow it. `batches`: what each transaction held."""

    def __init__(
        self, log: EventLog, rebuilt: Rebuilt, machine: Machine, snapshot: Path, redact: Redaction | None
    ) -> None:
        self.log = log
        self.rebuilt = rebuilt
        self.snapshots = Snapshots(snapshot, rebuilt)
        self.read_models: ReadModels = rebuilt.read_models
        self.batches: list[list[Record]] = []
        self.handler = CommandHandler(log, rebuilt.state, rebuilt.digest, self._take, machine, redact)
        self.submit = self.handler.submit

    def _take(self, records: Sequence[Record]) -> None:
        self.batches.append(list(records))
        for record in records:
            self.read_models.apply(record)

    @property
    def state(self) -> State:
        """What is decided against now."""
        return self.handler.state

    def standing(self) -> bytes:
        """State and read models as bytes."""
        self.rebuilt.digest = self.handler.digest
        return b"\n".join(pieces_of(self.rebuilt))

    async def save(self) -> None:
        """Write the snapshot."""
        await self.snapshots.write(self.handler.digest)


@asynccontextmanager
async def running_log(
    path: Path, *, from_snapshot: bool = True, machine: Machine = ONE_SLOT, redact: Redaction | None = None
) -> AsyncIterator[RunningLog]:
    """Open the log, rebuild, and write until the block ends."""
    log = await EventLog.open(path)
    try:
        snapshot = snapshot_file(path)
        rebuilt = await log.read(lambda reader: rebuild(reader, snapshot if from_snapshot else None))
        running = RunningLog(log, rebuilt, machine, snapshot, redact)
        writer = asyncio.get_running_loop().create_task(running.handler.run())
        try:
            yield running
        finally:
            writer.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await writer
            await running.snapshots.close(None)
    finally:
        await log.close()


def rows_of(path: Path) -> list[Row]:
    """What a program that knows no more of ours than how data is packed finds in the file."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        has_packed = any(row[1] == "packed" for row in connection.execute("PRAGMA table_info(records)"))
        columns = f"{', '.join(COLUMNS)}, {'packed' if has_packed else 'NULL'}"
        found = connection.execute(f"SELECT {columns} FROM records ORDER BY position").fetchall()  # noqa: S608 - constants
    return [row[:-1] if row[-1] is None else (*row[:8], unpacked(row[-1]).decode(), row[9]) for row in found]


def records_in(path: Path) -> list[Record]:
    """The records as a reader gives them."""
    with closing(LogReader(path)) as reader:
        return list(reader.records())


def first_break(rows: Sequence[Row]) -> int | None:
    """The first position whose digest is not that of its row after the one before; None if there is none."""
    chain = Chain()
    for expected, row in enumerate(rows, start=1):
        if not chain.follows(row) or row[0] != expected:
            return expected
    return None


def snapshot_file(path: Path) -> Path:
    """Where the snapshot of a log lies."""
    return path.with_name("snapshot.sqlite")


def standing_of(path: Path, *, from_snapshot: bool = False) -> bytes:
    """State and read models as the file alone has them."""
    with closing(LogReader(path)) as reader:
        rebuilt = rebuild(reader, snapshot_file(path) if from_snapshot else None)
    assert rebuilt.loaded or not from_snapshot
    return b"\n".join(pieces_of(rebuilt))


def write(path: Path, records: list[Record]) -> None:
    """Append records to the log and give the file back."""

    async def run() -> None:
        log = await EventLog.open(path)
        try:
            await log.append(records)
        finally:
            await log.close()

    asyncio.run(run())


def sqlite(path: Path, *statements: str) -> None:
    """Change the file behind the log's back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def environment_of_tests() -> dict[str, str]:
    """The environment of a program that imports what the tests import."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
