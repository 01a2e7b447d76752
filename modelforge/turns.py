"""Turns at what can do one thing at a time, or a few: in the order of coming, and fair between clients."""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable, Iterator

from modelforge.errors import TooManyRequests

_RETRY_SECONDS = 5


class Turns:
    """Gives turns, as many at once as there are places, to each client that waits in turn.

    Of a full queue, who has most in it gives up the last of its places to a client that would still have fewer.

    Turns have a kind, and those that are had at once are of one, as a model is loaded once for all who ask it. While
    others wait, a kind has its turns in rounds: all who waited for it as it began, and who came before any other, have
    theirs; whoever comes later waits for the others' round. So no kind keeps another waiting for ever.
    """

    def __init__(self, what: str, most_waiting: int, places: int = 1) -> None:
        self._what = what
        self._most_waiting = most_waiting
        self._places = places
        self._taken = 0
        self._queues: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self._kind: Hashable = None
        self._came = 0
        self._in_round = 0

    @contextlib.asynccontextmanager
    async def turn(self, client: str, kind: Hashable = None) -> AsyncIterator[None]:
        """Wait for a turn of the client's, and have it.

        Raises:
            TooManyRequests: too many wait already, or the place was given to somebody who has fewer.
        """
        if self._queues or self._taken >= self._places or (self._taken and kind != self._kind):
            await self._wait(client, kind)
        else:
            self._taken += 1
            self._kind = kind
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, client: str, kind: Hashable) -> None:
        if sum(map(len, self._queues.values())) >= self._most_waiting:
            self._make_room(client)
        self._came += 1
        mine = _Waiting(kind, self._came)
        self._queues.setdefault(client, deque()).append(mine)
        try:
            await mine.turn
        except asyncio.CancelledError:
            self._leave(client, mine)
            if mine.turn.done() and not mine.turn.cancelled() and mine.turn.exception() is None:
                self._pass_on()  # it had come, for nobody
            else:
                self._give()  # others may have waited for this one's round
            raise

    def _make_room(self, client: str) -> None:
        busiest = max(self._queues, key=lambda name: len(self._queues[name]), default=client)
        if len(self._queues.get(busiest, ())) <= len(self._queues.get(client, ())) + 1:
            raise self._refusal()
        last = self._queues[busiest][-1]
        self._leave(busiest, last)
        last.turn.set_exception(self._refusal())

    def _refusal(self) -> TooManyRequests:
        return TooManyRequests(
            f"{self._what} is busy", f"{self._most_waiting} wait already; try again later.", retry_after=_RETRY_SECONDS
        )

    def _leave(self, client: str, one: "_Waiting") -> None:
        """Take one out of the queue, if it is still there."""
        queue = self._queues.get(client)
        if queue is not None and one in queue:
            queue.remove(one)
            if not queue:
                del self._queues[client]

    def _pass_on(self) -> None:
        self._taken -= 1
        self._give()

    def _give(self) -> None:
        """Give the turns that are left to the clients that are next, each of which then is last."""
        while self._taken < self._places and (found := self._next()) is not None:
            client, one = found
            self._leave(client, one)
            if client in self._queues:
                self._queues.move_to_end(client)
            if not one.turn.done():
                self._taken += 1
                one.turn.set_result(None)

    def _next(self) -> "tuple[str, _Waiting] | None":
        others = [one.came for _, one in self._all() if one.kind != self._kind]
        last = max(self._in_round, min(others)) if others else self._came
        mine = next(((client, one) for client, one in self._all() if one.kind == self._kind and one.came <= last), None)
        if mine is not None or self._taken or not others:
            return mine
        _, first = min(self._all(), key=lambda found: found[1].came)
        self._kind, self._in_round = first.kind, self._came
        return self._next()

    def _all(self) -> "Iterator[tuple[str, _Waiting]]":
        return ((client, one) for client, queue in self._queues.items() for one in queue)


class _Waiting:
    """Somebody who waits for a turn of a kind, and the how manieth that came to wait."""

    def __init__(self, kind: Hashable, came: int) -> None:
        self.kind = kind
        self.came = came
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
