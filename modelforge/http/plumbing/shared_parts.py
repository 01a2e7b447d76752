"""Parts of the log for subscribers that come back: who waits for the same one gets what was read for the first."""

import asyncio
from functools import partial

from modelforge.event_log.sqlite import EventLog
from modelforge.projections.status_messages import History, Part

_READS_AT_ONCE = 4
_KEPT_SECONDS = 5.0
_MOST_KEPT = 32


class SharedParts:
    """Reads parts, few at a time, and keeps the last ones for a moment: a log never changes what it has."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)
        self._parts: dict[tuple[History, int], asyncio.Task[Part]] = {}

    async def after(self, history: History, last: Part, head: int) -> Part:
        """What comes after a part, of records up to `head` at most, of which there is one."""
        key = history, last.position
        reading = self._parts.get(key)
        if reading is None:
            reading = asyncio.get_running_loop().create_task(self._read(history, last, head))
            self._parts[key] = reading
            reading.add_done_callback(lambda _: self._keep(key))
        return await asyncio.shield(reading)  # who leaves stops it for nobody

    async def _read(self, history: History, last: Part, head: int) -> Part:
        async with self._reads:
            return await self._log.read(partial(history.next_part, last=last, until=head))

    def _keep(self, key: tuple[History, int]) -> None:
        """Keep what was read for a moment, unless much is kept, or it could not be read."""
        reading = self._parts[key]
        if reading.cancelled() or reading.exception() is not None or len(self._parts) > _MOST_KEPT:
            del self._parts[key]
        else:
            asyncio.get_running_loop().call_later(_KEPT_SECONDS, self._parts.pop, key, None)
