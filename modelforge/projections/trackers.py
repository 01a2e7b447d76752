"""Who is told a job's figures beside the server, and who could not be."""

from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec import Struct

from trainer_entry import wire

State = Literal["waiting", "reporting", "failed", "ended"]


class TrackerState(Struct, frozen=True, kw_only=True, gc=False):
    """Who is told a job's figures, by its last attempt. `message`: why one that failed is told nothing more."""

    name: wire.Tracker
    state: State = "waiting"
    message: str | None = None


Trackers = tuple[TrackerState, ...]


def waiting(names: Iterable[wire.Tracker]) -> Trackers:
    """The trackers of an attempt that has not begun."""
    return tuple(TrackerState(name=name) for name in names)


def become(trackers: Trackers, state: State, then: State) -> Trackers:
    """The trackers, with those in one state in another."""
    return tuple(
        msgspec.structs.replace(tracker, state=then) if tracker.state == state else tracker for tracker in trackers
    )


def without(trackers: Trackers, name: wire.Tracker, why: str) -> Trackers:
    """The trackers, one of which failed."""
    failed = TrackerState(name=name, state="failed", message=why)
    return tuple(failed if tracker.name == name else tracker for tracker in trackers)
