"""Snapshots of state and read models, which shorten a start, and the way from the log to both."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from modelforge.domain.state import State
from modelforge.event_log.sqlite import LogReader
from modelforge.projections.folding import FOLD, FoldStopped, FoldWatch, Rebuilt, fold, nothing, pack
from modelforge.projections.read_models import ReadModels
from modelforge.projections.snapshot_file import Damaged, Head, SnapshotFile, SnapshotReader

_log = structlog.get_logger()

SNAPSHOT_EVERY = 10_000
"""Records between two snapshots: what a start has to fold on top of one, in some hundredths of a second."""
_PRIMARY = 0xFF  # https://www.sqlite.org/rescode.html
_PASSING = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY}
_LOADED_AT_ONCE = 1_000
_AT_ONCE = 64
"""Keys whose bytes are made in one go on the loop, which takes a millisecond."""


class _Rest(Struct):
    """What is in no mapping."""

    state: State
    read_models: ReadModels


class _Told(Struct):
    """What the head says beside it. `dictionaries`: what each mapping's values are compressed with."""

    rest: _Rest
    dictionaries: dict[str, bytes]


def rebuild(
    reader: LogReader, snapshot: Path | None = None, *, until: int | None = None, watch: FoldWatch | None = None
) -> Rebuilt:
    """State and read models as the log has them, up to a position if one is named.

    `snapshot`: the file that shortens the way, if it may be used and can be read.

    Raises:
        msgspec.DecodeError: a record cannot be read.
        FoldStopped: `watch` says that it is to end.
    """
    watch = watch or FoldWatch()
    rebuilt = (None if snapshot is None else load(snapshot, reader, watch)) or nothing()
    watch.begin(rebuilt.state.position, reader.head()[0])
    fold(rebuilt, reader, until, watch)
    pack(rebuilt)
    return rebuilt


def load(path: Path, reader: LogReader, watch: FoldWatch | None = None) -> Rebuilt | None:
    """What a snapshot says, if it is of this release's fold, and of this log; only ever a short cut.

    Raises:
        FoldStopped: `watch` says that it is to end.
    """
    if not path.exists():
        return None
    try:
        with closing(SnapshotReader(path)) as snapshot:
            head = snapshot.head()
            if head is None or head.fold != FOLD or reader.digest_at(head.position) != head.digest:
                return None
            return _restored(head, snapshot, watch or FoldWatch())
    except (sqlite3.DatabaseError, Damaged, msgspec.DecodeError, KeyError) as error:
        _log.warning("snapshot_not_read", error=str(error))
        return None


def _restored(head: Head, snapshot: SnapshotReader, watch: FoldWatch) -> Rebuilt:
    told = msgspec.json.decode(head.rest, type=_Told)
    made = nothing()
    mappings = made.mappings
    for name, mapping in mappings.items():
        mapping.dictionary = told.dictionaries.get(name, b"")
    watch.begin(0, snapshot.count, "loading")
    for number, (name, key, data) in enumerate(snapshot.parts(), 1):
        mappings[name].restore(key, data)
        if number % _LOADED_AT_ONCE == 0:
            watch.position = number
            if watch.is_ended.is_set():
                raise FoldStopped
    for room, rest in ((made.state, told.rest.state), (made.read_models, told.rest.read_models)):
        for field in room.__struct_fields__:
            if f"{type(room).__name__}.{field}" not in mappings:
                setattr(room, field, getattr(rest, field))
    made.digest, made.loaded = head.digest, head.position
    return made


def _rest_of(rebuilt: Rebuilt) -> _Rest:
    """A copy of all that is in no mapping."""
    mappings = rebuilt.mappings
    state, read_models = (
        msgspec.structs.replace(
            room, **{field: {} for field in room.__struct_fields__ if f"{type(room).__name__}.{field}" in mappings}
        )
        for room in (rebuilt.state, rebuilt.read_models)
    )
    return _Rest(state, read_models)  # type: ignore[arg-type] # the one is a State, the other are ReadModels


def pieces_of(rebuilt: Rebuilt) -> Iterator[bytes]:
    """All that it says, a piece a key: the same always gives the same bytes."""
    for name, mapping in rebuilt.mappings.items():
        for key, value in mapping.items():
            yield msgspec.json.encode((name, key, value))
    yield msgspec.json.encode((rebuilt.digest, _rest_of(rebuilt)))


class Snapshots:
    """Writes what changed into the file of the snapshot every so many records, beside the work.

    What cannot be written, as on a full disk, is left for the next time: a snapshot only ever saves time.
    """

    def __init__(self, path: Path, rebuilt: Rebuilt) -> None:
        self._file = SnapshotFile(path)
        self._rebuilt = rebuilt
        self._anew = not rebuilt.loaded
        self._position = rebuilt.loaded
        self._writing: asyncio.Task[None] | None = None

    def follow(self, position: int, digest: str, ended: Callable[[asyncio.Task[None]], None]) -> None:
        """Begin a snapshot if one is due after the record at `position`; `ended` is called with its task."""
        if position - self._position < SNAPSHOT_EVERY or (self._writing is not None and not self._writing.done()):
            return
        self._writing = asyncio.get_running_loop().create_task(self.write(digest))
        self._writing.add_done_callback(ended)

    async def write(self, digest: str) -> None:
        """Write a snapshot of how things stand now, after the record with this digest."""
        with self._settled():
            for step in self._steps(digest):
                await asyncio.to_thread(step)

    def write_at_once(self) -> None:
        """The same in one go, where nothing else happens meanwhile."""
        with self._settled():
            for step in self._steps(self._rebuilt.digest):
                step()

    async def close(self, digest: str | None) -> None:
        """Give the file back; with a last snapshot, where the digest of the last record is known."""
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        if digest is not None:
            await self.write(digest)
        await asyncio.to_thread(self._file.close)

    def _steps(self, digest: str) -> Iterator[Callable[[], None]]:
        """What is to be done with the file, one after the other. The moment is that of the first."""
        position = self._position = self._rebuilt.state.position  # what fails is not tried again at each append
        rest, mappings = _rest_of(self._rebuilt), self._rebuilt.mappings
        for mapping in mappings.values():
            mapping.begin()
        yield partial(self._file.begin, anew=self._anew)
        for name, mapping in mappings.items():
            changes = mapping.changes()
            while some := [*islice(changes, _AT_ONCE)]:
                yield partial(self._file.put, name, some)
        dictionaries = {name: mapping.dictionary for name, mapping in mappings.items()}
        told = msgspec.json.encode(_Told(rest, dictionaries))
        yield partial(self._file.seal, Head(fold=FOLD, position=position, digest=digest, rest=told))
        self._anew = False

    @contextmanager
    def _settled(self) -> Iterator[None]:
        """What was to be written is written, or will be the next time."""
        mappings = self._rebuilt.mappings.values()
        try:
            yield
        except BaseException as error:
            self._file.abandon()
            for mapping in mappings:
                mapping.reopen()
            if not isinstance(error, (sqlite3.DatabaseError, OSError)):
                raise
            if isinstance(error, sqlite3.DatabaseError) and not _is_passing(error):
                self._anew = True  # the file is none, or broken
                for mapping in mappings:
                    mapping.forget()
            _log.warning("snapshot_not_saved", error=str(error))
        else:
            for mapping in mappings:
                mapping.settle()


def _is_passing(error: sqlite3.DatabaseError) -> bool:
    """Whether an error says nothing against the file; those that are not SQLite's own have no code."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & _PRIMARY) in _PASSING
