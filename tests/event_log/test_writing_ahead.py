"""The next transaction is decided while one is written: nobody hears too early, and a full disk takes both back."""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.running_log import (
    Row,
    RunningLog,
    environment_of_tests,
    first_break,
    records_in,
    rows_of,
    running_log,
    standing_of,
)
from support.scenario import key, register_dataset, start
from support.small_disk import small_disk

from modelforge import command_handler
from modelforge.command_handler import Outcome
from modelforge.domain import dataset, job
from modelforge.domain.messages import Command, Record
from modelforge.domain.scheduling import Machine
from modelforge.errors import Conflict, LogUnusable, StorageFull

Submitted = asyncio.Future[Outcome]


class HeldDisk:
    """A log's file, to which each transaction is written when a test says so, or is not."""

    def __init__(self, running: RunningLog) -> None:
        self._append = running.log.append
        self._words: asyncio.Queue[Exception | None] = asyncio.Queue()
        self.begun: list[list[Record]] = []
        running.log.append = self.append  # type: ignore[method-assign]

    async def append(self, records: list[Record]) -> None:
        """In place of the log's own."""
        self.begun.append(records)
        error = await self._words.get()
        if error is not None:
            raise error
        await self._append(records)

    def let(self) -> None:
        """One transaction is written."""
        self._words.put_nowait(None)

    def refuse(self, error: Exception | None = None) -> None:
        """There is no room for one."""
        self._words.put_nowait(error or StorageFull("No space is left on the disk", "Free some."))


@asynccontextmanager
async def held(path: Path, machine: Machine | None = None) -> AsyncIterator[tuple[RunningLog, HeldDisk]]:
    """A log that waits for the test's word before it writes."""
    async with running_log(path, machine=machine or Machine()) as running:
        disk = HeldDisk(running)
        yield running, disk
        for _ in range(20):
            disk.let()


async def turns(count: int = 8) -> None:
    """Let all that can go on go on."""
    for _ in range(count):
        await asyncio.sleep(0)


def submit(running: RunningLog, message: Command) -> Submitted:
    return asyncio.ensure_future(running.submit(message))


def named(name: str) -> dataset.RegisterDataset:
    return register_dataset(filename=f"{name}.jsonl")


# ---- while one is written ----


async def test_what_comes_while_a_transaction_is_written_is_decided_meanwhile(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided: list[object] = []

    def decide(state: object, message: object, machine: object) -> object:
        decided.append(message)
        return real(state, message, machine)  # type: ignore[arg-type]

    real = command_handler.decide
    monkeypatch.setattr(command_handler, "decide", decide)
    async with held(path) as (running, disk):
        first = submit(running, named("a"))
        await turns()
        later = [submit(running, named("b"))]
        await turns()
        later.append(submit(running, named("c")))
        await turns()
        assert decided == [named("a"), named("b"), named("c")]
        assert len(disk.begun) == 1
        disk.let()
        await first
        await turns()
        assert [record.position for record in disk.begun[1]] == [3, 4, 5, 6]
        assert not any(one.done() for one in later)


async def test_nobody_hears_of_a_transaction_or_of_what_was_decided_on_it_before_it_is_on_the_disk(path: Path) -> None:
    async with held(path) as (running, disk):
        first = submit(running, start("", key=key()))
        await turns()
        later = (start(""), start("", key=key()), named("a"))
        refused, again, other = (submit(running, message) for message in later)
        await turns()
        assert [one.done() for one in (first, refused, again, other)] == [False] * 4
        assert running.batches == []
        assert (running.state.position, running.read_models.position, running.state.running) == (0, 0, ())
        disk.let()
        assert (await first).position == 1
        assert running.state.position == running.read_models.position == len(records_in(path)) == 3
        assert not any(one.done() for one in (refused, again, other))  # they stand in the next one
        disk.let()
        assert (await again).repeated
        assert (await other).position == 4
        with pytest.raises(Conflict):
            await refused
        assert running.standing() == standing_of(path)
    assert first_break(rows_of(path)) is None


async def test_what_records_nothing_is_answered_as_soon_as_what_it_was_decided_on_is_durable(path: Path) -> None:
    async with held(path) as (running, disk):
        first = submit(running, start(""))
        await turns()
        refused = submit(running, start(""))
        await turns()
        disk.let()
        with pytest.raises(Conflict):
            await refused
        assert first.done()
        assert len(disk.begun) == 1


async def test_a_message_that_cannot_be_written_takes_nothing_of_what_was_decided_beside_it(path: Path) -> None:
    async with held(path) as (running, disk):
        first = submit(running, named("a"))
        await turns()
        before, broken, after = (submit(running, named(name)) for name in ("b", "\ud800", "c"))
        await turns()
        disk.let()
        await first
        disk.let()
        assert ((await before).position, (await after).position) == (3, 5)
        with pytest.raises(UnicodeEncodeError):
            await broken
        assert running.standing() == standing_of(path)
    assert first_break(rows_of(path)) is None


async def test_what_nobody_foresaw_may_fail_in_each_transaction_for_ever(path: Path) -> None:
    async with running_log(path) as running:
        for turn in range(1100):  # so many drafts, each on the one before it, could not be read
            with pytest.raises(UnicodeEncodeError):
                await running.submit(named("\ud800"))
            await running.submit(named(str(turn)))
        assert running.standing() == standing_of(path)


# ---- the disk is full, or fails ----


async def test_what_was_decided_on_a_transaction_that_had_no_room_is_decided_anew_without_it(path: Path) -> None:
    async with held(path) as (running, disk):
        full = submit(running, start("", key=key()))
        await turns()
        next_start, again = submit(running, start("")), submit(running, start("", queue=True, key=key("monday", "two")))
        await turns()  # refused for the job that is there, and for the key that stands for another request
        disk.refuse()
        with pytest.raises(StorageFull):
            await full
        disk.let()
        assert ((await next_start).stream, (await next_start).position) == ("train_000001", 1)
        assert ((await again).stream, (await again).repeated) == ("train_000004", False)
        assert running.standing() == standing_of(path)
    assert first_break(rows_of(path)) is None


async def test_a_key_sent_again_while_its_first_use_finds_no_room_is_then_its_first_use(path: Path) -> None:
    async with held(path) as (running, disk):
        full = submit(running, start("", key=key()))
        await turns()
        again = submit(running, start("", key=key()))
        await turns()
        disk.refuse()
        with pytest.raises(StorageFull):
            await full
        disk.let()
        assert (await again).repeated is False
        assert len(disk.begun) == 2


async def test_what_is_decided_anew_keeps_its_place_before_what_came_later(path: Path) -> None:
    async with held(path) as (running, disk):
        full = submit(running, named("a"))
        await turns()
        decided = submit(running, named("b"))
        await turns()
        disk.refuse()
        later = submit(running, named("c"))
        await asyncio.wait({full})
        disk.let()
        assert ((await decided).position, (await later).position) == (1, 3)
    assert isinstance(full.exception(), StorageFull)


async def test_a_disk_that_fails_stops_what_was_decided_meanwhile_and_all_who_come(path: Path) -> None:
    async with held(path) as (running, disk):
        first = submit(running, named("a"))
        await turns()
        second = submit(running, named("b"))
        await turns()
        disk.refuse(LogUnusable("The event log cannot be used", "disk I/O error"))
        for one in (first, second, submit(running, named("c"))):
            with pytest.raises(LogUnusable):
                await one
        with pytest.raises(LogUnusable):
            await running.submit(named("d"))
        assert running.batches == []
        assert running.state.position == 0
    assert records_in(path) == []


async def test_a_disk_that_fills_while_many_write_refuses_some_and_keeps_what_the_rest_was_told(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", megabytes=4) as disk:
        path = disk.path / "events.db"
        async with running_log(path) as running:
            disk.fill(leave=1 << 19)
            outcomes: list[Outcome | BaseException] = []

            async def caller(number: int) -> None:
                for turn in range(30):
                    try:
                        outcomes.append(await running.submit(named(f"{number}-{turn}-{'x' * 150}")))
                    except StorageFull as error:
                        outcomes.append(error)
                        if not disk.path.joinpath("ballast").exists():
                            continue
                        disk.empty()

            await asyncio.gather(*map(caller, range(32)))
            full = sum(isinstance(outcome, StorageFull) for outcome in outcomes)
            written = [outcome for outcome in outcomes if isinstance(outcome, Outcome)]
            assert 0 < full < len(outcomes) == len(written) + full
            assert running.standing() == standing_of(path)
            records = records_in(path)
            assert [record.position for record in records] == [*range(1, 2 * len(written) + 1)]
            for outcome in written:
                assert records[outcome.position].message in outcome.events
        assert first_break(rows_of(path)) is None


# ---- the end ----

KILLED = """
import asyncio, sys
from pathlib import Path
from support.running_log import running_log
from support.scenario import register_dataset

async def main():
    async with running_log(Path(sys.argv[1])) as running:
        async def caller(number):
            for turn in range(10**6):
                outcome = await running.submit(register_dataset(filename=f"{number}-{turn}.jsonl"))
                sys.stdout.write(f"{outcome.position} {number}-{turn}.jsonl\\n")
                sys.stdout.flush()
        await asyncio.gather(*map(caller, range(16)))

asyncio.run(main())
"""


@pytest.mark.parametrize("answers", [1, 40, 333])
def test_killed_in_the_midst_of_many_who_write_the_log_has_all_that_was_answered(path: Path, answers: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, path], env=environment_of_tests(), stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        said = [program.stdout.readline() for _ in range(answers)]
        program.kill()
        said += [line for line in program.stdout if line.endswith("\n")]
    records = records_in(path)
    names = {record.position: record.stream for record in records}
    assert list(names) == [*range(1, len(records) + 1)]
    for position, name in map(str.split, said):
        assert names[int(position)] == f"dataset:{name}"
    assert first_break(rows_of(path)) is None


async def test_what_was_submitted_before_the_end_is_written_and_answered(path: Path) -> None:
    async with held(path) as (running, disk):
        submitted = [submit(running, named("a"))]
        await turns()
        submitted.append(submit(running, named("b")))
        await turns()
        submitted.append(submit(running, named("c")))
        await turns(1)
        assert len(disk.begun) == 1
    assert [one.result().position for one in submitted] == [1, 3, 5]
    assert running.standing() == standing_of(path)
    assert first_break(rows_of(path)) is None


async def test_the_writer_ends_though_whoever_is_answered_asks_again(path: Path) -> None:
    answered, is_time = 0, asyncio.Event()

    async def asks(name: str) -> None:
        nonlocal answered
        for turn in range(100_000):
            await running.submit(named(f"{name}-{turn}"))
            answered += 1
            if answered > 10:
                is_time.set()

    async with running_log(path) as running:
        asking = [asyncio.ensure_future(asks("a"))]
        await turns()
        asking.append(asyncio.ensure_future(asks("b")))  # while what the other asked is written: so it goes on
        await is_time.wait()
    await turns()
    assert len(records_in(path)) == 2 * answered
    assert not any(one.done() for one in asking)
    for one in asking:
        one.cancel()


# ---- any order ----

NAMES = st.sampled_from("ab")
KEYS = st.none() | st.sampled_from("kl")
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(
        lambda queue, used, asked: start("", queue=queue, key=used and key(used, asked)),
        st.booleans(),
        KEYS,
        st.sampled_from("xy"),
    ),
    st.builds(lambda used: job.StopTraining(key=used and key(used, "stop")), KEYS),
    st.builds(lambda name, sha256: register_dataset(sha256 * 64, filename=name), NAMES, st.sampled_from("01")),
    st.builds(lambda name: dataset.DeleteDataset(filename=name), NAMES),
    st.just(register_dataset(filename="\ud800")),
)
WORDS = st.sampled_from(["let", "refuse", "turns", "turns", "turns"])
Answer = tuple[object, ...]


def answer_of(one: Submitted) -> Answer:
    error = one.exception()
    if error is None:
        outcome = one.result()
        return (outcome.position, outcome.stream, outcome.events, outcome.repeated)
    return (type(error), str(error))


def without_moments(path: Path) -> list[tuple[object, ...]]:
    """The rows, but for what depends on when they were written."""
    rows: list[Row] = rows_of(path)
    assert first_break(rows) is None
    return [(*row[:5], *row[6:9]) for row in rows]


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@settings(max_examples=settings().max_examples // 4)
@given(script=st.lists(COMMANDS | WORDS, max_size=30))
def test_in_whatever_order_disks_fill_the_rest_is_as_if_each_had_been_asked_alone(script: list[Command | str]) -> None:
    async def run(path: Path) -> list[tuple[Command, Answer]]:
        submitted: list[tuple[Command, Submitted]] = []

        def check() -> None:
            """Who was answered finds it in the file, and in the read models; these are of one moment."""
            durable = len(records_in(path))
            assert running.read_models.position == running.state.position <= durable
            for _, one in submitted:
                if one.done() and one.exception() is None:
                    assert one.result().position <= running.state.position

        async with held(path, Machine(slots=2)) as (running, disk):
            for part in script:
                if isinstance(part, str):
                    if part == "refuse":
                        disk.refuse()
                    elif part == "let":
                        disk.let()
                    else:
                        await turns()
                        check()
                else:
                    submitted.append((part, submit(running, part)))
            for _ in range(len(submitted) + 1):
                disk.let()
            await asyncio.gather(*(one for _, one in submitted), return_exceptions=True)
            assert running.standing() == standing_of(path)
            positions = [record.position for batch in running.batches for record in batch]
            assert positions == [*range(1, len(positions) + 1)]
        return [(message, answer_of(one)) for message, one in submitted]

    async def alone(path: Path, messages: list[Command]) -> list[Answer]:
        answers: list[Answer] = []
        async with running_log(path, machine=Machine(slots=2)) as running:
            for message in messages:
                one = submit(running, message)
                await asyncio.wait({one})
                answers.append(answer_of(one))
        return answers

    with folder() as here:
        told = asyncio.run(run(here / "events.db"))
        rest = [(message, answer) for message, answer in told if answer[0] is not StorageFull]
        assert asyncio.run(alone(here / "alone.db", [message for message, _ in rest])) == [answer for _, answer in rest]
        assert without_moments(here / "events.db") == without_moments(here / "alone.db")
