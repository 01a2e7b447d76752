"""The heartbeat of a trainer that works and has nothing to report, so that its silence is not taken for a hang."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from trainer_entry.runtime.stdout import Wire

_SECONDS = 5.0
_NOTICEABLE_BYTES = 1 << 16
_NOTICEABLE_SECONDS = 0.1


def touch_while_busy(wire: Wire, applies: Callable[[], bool]) -> None:
    """Touch the wire every few seconds in which bytes were moved, or processor time was spent, and `applies` says so.

    A process that does neither is left silent: it may hang.
    """
    threading.Thread(target=_watch, args=(wire, applies), name="heartbeat", daemon=True).start()


def _watch(wire: Wire, applies: Callable[[], bool]) -> None:
    moved, spent = 0, 0.0
    while True:
        time.sleep(_SECONDS)
        now_moved, now_spent = _moved_bytes(), time.process_time()
        busy = now_moved - moved > _NOTICEABLE_BYTES or now_spent - spent > _NOTICEABLE_SECONDS
        moved, spent = now_moved, now_spent
        if busy and applies():
            wire.touch()


def _moved_bytes() -> int:
    """What this process has read and written so far, files and sockets alike."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["rchar"]) + int(counts["wchar"])
