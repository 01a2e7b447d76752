"""Turns at what can do one thing at a time, or a few: in the order of coming, and fair between clients."""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator

from modelforge.errors import TooManyRequests

_RETRY_SECONDS = 5


class Turns:
    """Gives turns, as many at once as there are places, to each client that waits in turn.

    Of a full queue, who has most in it gives up the last of its places to a client that would still have fewer.
    """

    def __init__(self, what: str, most_waiting: int, places: int = 1) -> None:
        self._what = what
        self._most_waiting = most_waiting
        self._places = places
        self._taken = 0
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Wait for a turn of the client's, and have it.

        Raises:
            TooManyRequests: too many wait already, or the place was given to somebody who has fewer.
        """
        if self._taken >= self._places:
            await self._wait(client)
        else:
            self._taken += 1
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, client: str) -> None:
        if sum(map(len, self._queues.values())) >= self._most_waiting:
            self._make_room(client)
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(client, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            self._leave(client, mine)
            if mine.done() and not mine.cancelled() and mine.exception() is None:
                self._pass_on()  # it had come, for nobody
            raise

    def _make_room(self, client: str) -> None:
        busiest = max(self._queues, key=lambda name: len(self._queues[name]), default=client)
        if len(self._queues.get(busiest, ())) <= len(self._queues.get(client, ())) + 1:
            raise self._refusal()
        last = self._queues[busiest][-1]
        self._leave(busiest, last)
        last.set_exception(self._refusal())

    def _refusal(self) -> TooManyRequests:
        return TooManyRequests(
            f"{self._what} is busy", f"{self._most_waiting} wait already; try again later.", retry_after=_RETRY_SECONDS
        )

    def _leave(self, client: str, one: asyncio.Future[None]) -> None:
        """Take one out of the queue, if it is still there."""
        queue = self._queues.get(client)
        if queue is not None and one in queue:
            queue.remove(one)
            if not queue:
                del self._queues[client]

    def _pass_on(self) -> None:
        """Give the turn to the client that is next, which then is last."""
        while self._queues:
            client, queue = self._queues.popitem(last=False)
            one = queue.popleft()
            if queue:
                self._queues[client] = queue
            if not one.done():
                one.set_result(None)
                return
        self._taken -= 1
