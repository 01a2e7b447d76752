"""Whoever comes gets a turn, each client in turn, and a full queue is shared out."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelforge.errors import TooManyRequests
from modelforge.turns import Turns


class Queue:
    """Turns that end when they are told to, and the order in which they came."""

    def __init__(self, most_waiting: int, places: int = 1) -> None:
        self.turns = Turns("It", most_waiting, places)
        self.order: list[str] = []
        self.refused: list[str] = []
        self.go_on = asyncio.Semaphore(0)
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, *names: str) -> None:
        """Each name is a client's letter, a number of its own, and the kind of its turn."""
        for name in names:
            self.tasks.append(asyncio.create_task(self._come(name)))
            await asyncio.sleep(0)

    async def _come(self, name: str) -> None:
        try:
            async with self.turns.turn(name[0], name[2:]):
                self.order.append(name)
                await self.go_on.acquire()
        except TooManyRequests:
            self.refused.append(name)

    async def end(self) -> None:
        for _ in self.tasks:
            self.go_on.release()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_each_client_has_its_turn_in_turn() -> None:
    queue = Queue(16)
    await queue.come("a1", "a2", "a3", "a4", "b1", "c1", "b2")
    await queue.end()
    assert queue.order == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


async def test_who_fills_the_queue_keeps_nobody_out() -> None:
    queue = Queue(4)
    await queue.come("a0", "a1", "a2", "a3", "a4", "a5", "b1", "b2", "b3")
    await queue.end()
    assert set(queue.refused) == {"a5", "a4", "a3", "b3"}
    assert queue.order == ["a0", "a1", "b1", "a2", "b2"]


async def test_who_leaves_gives_the_turn_on() -> None:
    queue = Queue(16)
    await queue.come("a1", "b1", "c1", "d1")
    queue.tasks[1].cancel()
    await asyncio.sleep(0)
    queue.go_on.release()
    await asyncio.sleep(0)
    queue.tasks[2].cancel()  # in the moment in which its turn comes
    await queue.end()
    assert queue.order[0] == "a1"
    assert queue.order[-1] == "d1"
    assert "b1" not in queue.order


async def test_turns_of_one_kind_are_had_at_once_and_those_of_another_after_them() -> None:
    queue = Queue(16, places=3)
    await queue.come("a1x", "a2y", "b1x", "b2y", "a3x", "a4y")
    assert queue.order == ["a1x"]  # the kind that waits is not kept waiting by who comes later
    queue.go_on.release()
    await asyncio.sleep(0.01)
    assert queue.order == ["a1x", "a2y", "b2y", "a4y"]
    await queue.end()
    assert queue.order[4:] == ["b1x", "a3x"]


async def test_a_kind_that_is_always_asked_for_keeps_no_other_waiting_for_ever() -> None:
    queue = Queue(64, places=2)
    await queue.come("a1x", "a2x", "b1y")
    for number in range(3, 9):
        await queue.come(f"a{number}x")
        queue.go_on.release()
        await asyncio.sleep(0.01)
    assert queue.order.index("b1y") <= 3
    await queue.end()
    assert len(queue.order) == 9


async def test_who_came_before_another_kind_has_a_turn_before_it() -> None:
    queue = Queue(16, places=1)
    await queue.come("a1x", "a2x", "b1y", "c1x", "c2y")
    await queue.end()
    assert queue.order == ["a1x", "a2x", "b1y", "c2y", "c1x"]


@given(
    names=st.lists(st.sampled_from("abc"), max_size=30),
    leaving=st.sets(st.integers(0, 29)),
    most=st.integers(1, 8),
    places=st.integers(1, 3),
    several=st.booleans(),
)
def test_everybody_has_a_turn_or_is_refused_and_nobody_has_it_with_another_kind(
    names: list[str], leaving: set[int], most: int, places: int, *, several: bool
) -> None:
    async def scenario() -> None:
        turns, inside, served = Turns("It", most, places), 0, 0
        kinds: list[str] = []

        async def come(client: str, kind: str) -> None:
            nonlocal inside, served
            async with turns.turn(client, kind):
                inside += 1
                kinds.append(kind)
                try:
                    assert inside <= places
                    assert set(kinds[-inside:]) == {kind}
                    await asyncio.sleep(0)
                    served += 1
                finally:
                    inside -= 1

        asked = ((name, "xyz"[at % 3] if several else "x") for at, name in enumerate(names))
        tasks = [asyncio.create_task(come(name, kind)) for name, kind in asked]
        await asyncio.sleep(0)
        for number in leaving:
            if number < len(tasks):
                tasks[number].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        others = [result for result in results if result is not None]
        assert all(isinstance(result, TooManyRequests | asyncio.CancelledError) for result in others), others
        assert served == sum(result is None for result in results)
        with_nobody = asyncio.timeout(5)
        async with with_nobody, turns.turn("z"):
            pass

    asyncio.run(scenario())


async def test_a_refusal_says_when_to_come_again() -> None:
    turns = Turns("The playground", 0)
    async with turns.turn("a"):
        with pytest.raises(TooManyRequests, match="playground") as refused:
            async with turns.turn("b"):
                pass
    assert refused.value.retry_after > 0
