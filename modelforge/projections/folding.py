"""From the log to state and read models: the one fold, made quick for long logs."""

import gc
import threading
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Literal, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from modelforge.domain import job, state
from modelforge.domain.messages import GENESIS, PlacedMessage, decode_as
from modelforge.domain.state import State
from modelforge.event_log.archived import FoldRow
from modelforge.event_log.queries import STEPS
from modelforge.event_log.sqlite import LogReader
from modelforge.projections.kept import Kept
from modelforge.projections.read_models import ReadModels
from trainer_entry import wire

FOLD = 3
"""The number of what a fold gives, and of how it is kept: a snapshot of another number is not read.

It is raised whenever the records of a log lead to something else than before, or a snapshot no longer decodes into
what they lead to. `tests/golden/test_golden_fold.py` fails where that was forgotten.
"""

_PACKED = frozenset({("State", "jobs"), ("ReadModels", "jobs"), ("ReadModels", "models")})
"""What is large, and looked at one by one: all else is small, or gone through as a whole."""
_PACK_EVERY = 2_000
_JOINED_AT_MOST = 1_000
"""Records between two looks at whether somebody waits."""


class FoldStopped(Exception):
    """Nobody waits for it any more."""


Stage = Literal["upgrading", "loading", "rebuilding"]
"""What a start does: the log gets this release's schema; the snapshot is read; the records after it are folded."""


class FoldWatch:
    """How far a log is read, for whoever waits for it in another thread: `position` of `head`.

    These are records; parts of the snapshot while that is loaded; while the log is upgraded nobody knows how far it is.
    `on_begin` is called in that thread with how many are to come, once a stage. `is_ended`: nobody waits any more.
    """

    def __init__(self, on_begin: Callable[[int], None] = lambda _: None) -> None:
        self.stage: Stage = "rebuilding"
        self.position = 0
        self.head = 0
        self.is_ended = threading.Event()
        self._on_begin = on_begin

    def begin(self, position: int, head: int, stage: Stage = "rebuilding") -> None:
        """A stage begins, by default the fold, after the record at a position."""
        self.stage, self.position, self.head = stage, position, head
        self._on_begin(head - position)


class Rebuilt(Struct):
    """What the log says, up to its last record. `loaded`: the position of the snapshot that had the beginning."""

    state: State
    read_models: ReadModels
    digest: str
    loaded: int = 0

    @property
    def mappings(self) -> dict[str, Kept]:  # type: ignore[type-arg] # of any key and value
        """Its mappings, by names that say which they are."""
        rooms = (self.state, self.read_models)
        named = ((f"{type(room).__name__}.{name}", getattr(room, name)) for room in rooms for name in _mappings(room))
        return {name: mapping for name, mapping in named if isinstance(mapping, Kept)}


def nothing() -> Rebuilt:
    """What an empty log says."""
    made = Rebuilt(State(), ReadModels(), GENESIS)
    for room in (made.state, made.read_models):
        for name, kind in _mappings(room).items():
            setattr(room, name, Kept(kind, packs=(type(room).__name__, name) in _PACKED))
    return made


def _mappings(room: State | ReadModels) -> dict[str, object]:
    """The fields that are mappings, and of what."""
    hints = get_type_hints(type(room))
    return {name: hint.__args__[1] for name, hint in hints.items() if get_origin(hint) is MutableMapping}


def fold(rebuilt: Rebuilt, reader: LogReader, until: int | None = None, watch: FoldWatch | None = None) -> None:
    """Take in the records after those that are in it, up to a position if one is named.

    Raises:
        msgspec.DecodeError: a record cannot be read.
        FoldStopped: `watch` says that it is to end.
    """
    watch = watch or FoldWatch()
    packed = rebuilt.state.position
    with _collector_at_rest():
        for placed in joined(reader.rows_to_fold(after=rebuilt.state.position, until=until)):
            state.evolve(rebuilt.state, placed)
            rebuilt.read_models.apply(placed)
            watch.position = placed.position
            if watch.is_ended.is_set():
                raise FoldStopped
            if watch.position - packed >= _PACK_EVERY:
                packed = watch.position
                pack(rebuilt)
    rebuilt.digest = reader.digest_at(rebuilt.state.position) or GENESIS


def pack(rebuilt: Rebuilt) -> None:
    """Hold everything in as few bytes as it can be held in."""
    for mapping in rebuilt.mappings.values():
        mapping.pack()


def joined(rows: Iterable[FoldRow]) -> Iterator[PlacedMessage]:
    """The messages, where the figures of a job that come one after the other are one message.

    One read of a spool might as well have given them all, and both lead to the same. Most records of a log are such:
    what comes before the last one of a job is only counted, for no figure of it is looked at again.

    Raises:
        msgspec.DecodeError: one cannot be read.
    """
    last: dict[str, FoldRow] = {}  # of each job, in the order of their positions
    steps_before: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        if row[3] != STEPS:
            yield from _joined_figures(last, steps_before)
            yield _placed(row)
            continue
        stream = row[1]
        earlier = last.pop(stream, None)
        if earlier is not None:
            steps_before[stream] = steps_before.get(stream, 0) + _steps_in(earlier[5])
        last[stream] = row
        if number % _JOINED_AT_MOST == 0:
            yield from _joined_figures(last, steps_before)
    yield from _joined_figures(last, steps_before)


def _joined_figures(last: dict[str, FoldRow], steps_before: dict[str, int]) -> Iterator[PlacedMessage]:
    """One message a job, in the order of the last ones: jobs that train at once know nothing of each other."""
    for stream, row in last.items():
        placed = _placed(row)
        if stream in steps_before and isinstance(placed.message, job.MetricsLogged):
            steps = placed.message.steps
            message = msgspec.structs.replace(placed.message, steps=(*steps[-1:] * steps_before[stream], *steps))
            placed = msgspec.structs.replace(placed, message=message)
        yield placed
    last.clear()
    steps_before.clear()


_TAG = f'"type":"{wire.StepLogged.__struct_config__.tag}"'
_TAG_BYTES = _TAG.encode()


class _Counted(Struct, frozen=True):
    steps: tuple[msgspec.Raw, ...]


_counted = msgspec.json.Decoder(_Counted).decode


def _steps_in(data: str | bytes) -> int:
    """How many steps a record has: nothing but a step's own tag reads like it, for a quote within text has a backslash.

    A damaged one may count too: a rebuild does not look at each, the digests of `modelforge verify` do.

    Raises:
        msgspec.DecodeError: the record has no step's tag, and cannot be read.
    """
    found = data.count(_TAG) if isinstance(data, str) else data.count(_TAG_BYTES)
    return found or len(_counted(data).steps)


def _placed(row: FoldRow) -> PlacedMessage:
    position, stream, version, tag, at, data = row
    kind, message = decode_as(tag, data)
    return PlacedMessage(position=position, stream=stream, version=version, kind=kind, at=at, message=message)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """No search for circles among objects that have none: it would go through all of them again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
