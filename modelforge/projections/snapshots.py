"""Snapshots of state and read models, which shorten a start, and the way from the log to both."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from modelforge.command_handler import CommandHandler
from modelforge.domain import state
from modelforge.domain.messages import GENESIS
from modelforge.domain.state import State
from modelforge.errors import StorageFull
from modelforge.event_log.sqlite import EventLog, LogReader, StoredSnapshot
from modelforge.projections.read_models import ReadModels
from modelforge.version import VERSION
from trainer_entry import wire

_log = structlog.get_logger()


def folding_sources() -> list[Path]:
    """The files of the code that folds records; the formats of datasets' records are no part of it."""
    package, messages = Path(__file__).parents[1], Path(wire.__file__).parent
    folders = (package / "domain", package / "projections", messages)
    return sorted({path for folder in folders for path in folder.rglob("*.py")} - {messages / "formats.py"})


def _release() -> str:
    """The version, and a hash of the code that folds: other code may fold otherwise, whatever its version says."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in folding_sources()))
    return f"{VERSION}+{digest.hexdigest()[:16]}"


RELEASE = _release()
"""What a snapshot must have been written by to be read."""

SNAPSHOT_EVERY = 10_000
"""Records between two snapshots: at a microsecond or two each, what a start has to fold on top of one."""


class _Snapshot(Struct):
    state: State
    read_models: ReadModels


class Rebuilt(Struct):
    """What the log says, up to its last record."""

    state: State
    read_models: ReadModels
    digest: str


def encode_snapshot(decided: State, read_models: ReadModels, digest: str) -> StoredSnapshot:
    """State and read models as bytes; the same ones always give the same bytes."""
    data = msgspec.json.encode(_Snapshot(decided, read_models))
    return StoredSnapshot(position=decided.position, digest=digest, data=data)


def rebuild(reader: LogReader, *, from_snapshot: bool = True, until: int | None = None) -> Rebuilt:
    """State and read models as the log has them, up to a position if one is named.

    The newest snapshot shortens the way if it may be used and can be read.
    """
    rebuilt = Rebuilt(State(), ReadModels(), GENESIS)
    stored = reader.snapshot(RELEASE) if from_snapshot else None
    if stored is not None:
        with contextlib.suppress(msgspec.DecodeError):  # only a short cut: the records say the same
            snapshot = msgspec.json.decode(stored.data, type=_Snapshot)
            rebuilt = Rebuilt(snapshot.state, snapshot.read_models, stored.digest)
    for record in reader.records(after=rebuilt.state.position, until=until):
        state.evolve(rebuilt.state, record)
        rebuilt.read_models.apply(record)
        rebuilt.digest = record.digest
    return rebuilt


class SnapshotWriter:
    """Writes a snapshot every so many records, beside the work; one that the disk has no room for is left out."""

    def __init__(self, log: EventLog, handler: CommandHandler, read_models: ReadModels) -> None:
        self._log = log
        self._handler = handler
        self._read_models = read_models
        self._position = handler.state.position
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, position: int, ended: Callable[[asyncio.Task[None]], None]) -> None:
        """Begin a snapshot if one is due after the record at `position`; `ended` is called with its task."""
        if position - self._position < SNAPSHOT_EVERY:
            return
        self._position = position
        task = asyncio.get_running_loop().create_task(self.write())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(ended)

    async def write(self) -> None:
        """Write a snapshot of how things stand.

        Raises:
            LogUnusable: the log failed.
        """
        snapshot = encode_snapshot(self._handler.state, self._read_models, self._handler.digest)
        try:
            await self._log.save_snapshot(snapshot, RELEASE)
        except StorageFull as error:  # a snapshot only ever saves time
            _log.warning("snapshot_not_saved", error=str(error))

    async def close(self) -> None:
        """Wait for those that were begun."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
