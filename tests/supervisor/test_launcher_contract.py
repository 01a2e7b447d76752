"""What every launcher keeps, whatever runs its attempts (tests/support/launcher_sites.py has them)."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support.launcher_sites import JOB, SITES, Site, attempt_at, said_in

from modelforge.domain.failure_causes import RETRIED
from modelforge.domain.scheduling import Cluster, Machine
from modelforge.supervisor.launcher import Ending, Launcher
from trainer_entry import wire

TESTS = Path(__file__).parents[1]
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    made = SITES[request.param](tmp_path)
    yield made
    made.close()


class Reasons:
    """Why an attempt waits, as it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._is_told = asyncio.Event()

    async def __call__(self, reason: str) -> None:
        self.told.append(reason)
        self._is_told.set()

    async def first(self) -> str:
        await self._is_told.wait()
        return self.told[0]


async def says(launcher: Launcher, attempt: wire.AttemptSpec, kind: type[object], *, times: int = 1) -> None:
    """Wait until the trainer has said so."""
    spool = launcher.spool(JOB, attempt.attempt)
    while sum(isinstance(message, kind) for message in said_in(spool)) < times:  # noqa: ASYNC110 - a file tells nobody
        await asyncio.sleep(0.02)


async def end_of(launcher: Launcher, attempt: int = 1) -> Ending:
    await launcher.wait(JOB, attempt)
    return await launcher.ending(JOB, attempt)


async def submitted(launcher: Launcher, attempt: wire.AttemptSpec) -> None:
    """Submit an attempt, and wait for its start."""
    await launcher.submit(attempt)
    assert await launcher.started(JOB, attempt.attempt, Reasons())


def is_told_once(launcher: Launcher, attempt: int = 1) -> list[wire.AnyTrainerMessage]:
    """What an attempt has said; that one trainer said it, and once."""
    messages = said_in(launcher.spool(JOB, attempt))
    assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
    assert {message.attempt for message in messages} <= {attempt}
    return messages


async def test_an_attempt_that_was_never_submitted_is_not_found(site: Site) -> None:
    assert await site.launcher().find(JOB, 1) is None


async def test_what_was_submitted_runs_to_its_end_and_says_how_it_went(site: Site) -> None:
    launcher, attempt = site.launcher(), attempt_at(site, "completes")
    await submitted(launcher, attempt)
    ending = await end_of(launcher)
    assert isinstance(is_told_once(launcher)[-1], wire.TrainerFinished)
    assert ending.exit is not None
    assert (ending.exit.code, ending.exit.stop_signalled, ending.cause) == (0, False, None)


async def test_what_a_trainer_wrote_to_its_log_comes_with_its_ending(site: Site) -> None:
    launcher = site.launcher()
    await submitted(launcher, attempt_at(site, "speechless"))
    ending = await end_of(launcher)
    assert ending.exit is not None
    assert (ending.exit.code, ending.cause) == (3, None)
    assert said_in(launcher.spool(JOB, 1)) == []


async def test_a_launcher_made_anew_finds_what_was_submitted_by_the_same_reference(site: Site) -> None:
    first, attempt = site.launcher(), attempt_at(site, "obeys")
    reference = await first.submit(attempt)
    later = site.launcher()
    assert await later.find(JOB, 1) == reference
    assert await later.started(JOB, 1, Reasons())
    await says(later, attempt, wire.StepLogged, times=3)
    await later.stop(JOB, 1)
    await end_of(later)
    assert isinstance(is_told_once(later)[-1], wire.TrainerStopped)


async def test_a_launcher_made_anew_goes_on_from_what_the_log_says(site: Site) -> None:
    first, attempt = site.launcher(), attempt_at(site, "obeys")
    reference = await first.submit(attempt)
    assert await first.started(JOB, 1, Reasons())
    seeing_off = asyncio.create_task(first.wait(JOB, 1))
    await says(first, attempt, wire.StepLogged, times=3)
    seeing_off.cancel()  # a server that ends leaves its trainers as they are
    await asyncio.gather(seeing_off, return_exceptions=True)
    later = site.launcher()
    later.know(JOB, 1, reference)
    assert await later.started(JOB, 1, Reasons())
    await later.stop(JOB, 1)
    ending = await end_of(later)
    assert ending.exit is not None
    assert ending.exit.stop_signalled
    assert isinstance(is_told_once(later)[-1], wire.TrainerStopped)


async def test_an_attempt_that_ended_while_no_server_ran_is_seen_off_by_the_next(site: Site) -> None:
    first, attempt = site.launcher(), attempt_at(site, "completes")
    reference = await first.submit(attempt)
    assert await first.started(JOB, 1, Reasons())
    await first.wait(JOB, 1)
    later = site.launcher()
    later.know(JOB, 1, reference)
    assert await later.started(JOB, 1, Reasons())
    ending = await end_of(later)
    assert ending.exit is not None
    assert ending.exit.code == 0
    assert isinstance(is_told_once(later)[-1], wire.TrainerFinished)


async def test_a_running_attempt_that_is_stopped_saves_and_ends(site: Site) -> None:
    launcher, attempt = site.launcher(), attempt_at(site, "obeys")
    await submitted(launcher, attempt)
    await says(launcher, attempt, wire.StepLogged, times=3)
    await launcher.stop(JOB, 1)
    await launcher.stop(JOB, 1)
    ending = await end_of(launcher)
    assert isinstance(is_told_once(launcher)[-1], wire.TrainerStopped)
    assert ending.exit is not None
    assert (ending.exit.code, ending.exit.stop_signalled) == (0, True)


async def test_a_checkpoint_is_saved_on_request_and_the_attempt_goes_on(site: Site) -> None:
    launcher, attempt = site.launcher(), attempt_at(site, "obeys")
    await submitted(launcher, attempt)
    await says(launcher, attempt, wire.StepLogged, times=3)
    await launcher.save_checkpoint(JOB, 1)
    await says(launcher, attempt, wire.CheckpointWritten)
    await asyncio.sleep(0.3)  # a second one would follow at once
    ordered = site.layout.attempt(JOB, 1) / "ordered"
    ordered.write_text("finish")
    ordered.rename(ordered.with_name("order"))
    ending = await end_of(launcher)
    assert ending.exit is not None
    assert not ending.exit.stop_signalled
    messages = is_told_once(launcher)
    assert sum(isinstance(message, wire.CheckpointWritten) for message in messages) == 1
    assert isinstance(messages[-1], wire.TrainerFinished)


async def test_an_attempt_that_has_ended_is_left_alone(site: Site) -> None:
    launcher = site.launcher()
    await submitted(launcher, attempt_at(site, "completes"))
    await launcher.wait(JOB, 1)
    await launcher.stop(JOB, 1)
    await launcher.save_checkpoint(JOB, 1)
    ending = await end_of(launcher)
    assert ending.exit is not None
    assert ending.exit.code == 0


async def test_an_attempt_whose_processes_are_all_killed_is_gone_by_a_cause_that_is_tried_again(site: Site) -> None:
    launcher, attempt = site.launcher(), attempt_at(site, "obeys")
    await submitted(launcher, attempt)
    await says(launcher, attempt, wire.StepLogged, times=3)
    site.kill(attempt)
    ending = await end_of(launcher)
    assert ending.exit is None
    assert ending.cause is None or ending.cause.kind in RETRIED


async def test_no_process_is_left_of_an_attempt_that_is_gone(site: Site) -> None:
    launcher, attempt = site.launcher(), attempt_at(site, "leaves-orphan")
    await submitted(launcher, attempt)
    await end_of(launcher)
    orphan = msgspec.json.decode((site.layout.attempt(JOB, 1) / "orphan.json").read_bytes(), type=int)
    with pytest.raises(ProcessLookupError):
        os.kill(orphan, 0)


async def test_the_next_attempt_of_a_job_is_another_one(site: Site) -> None:
    launcher = site.launcher()
    first = await launcher.submit(attempt_at(site, "completes"))
    assert await launcher.started(JOB, 1, Reasons())
    await end_of(launcher)
    second = await launcher.submit(attempt_at(site, "speechless", attempt=2))
    assert await launcher.started(JOB, 2, Reasons())
    await end_of(launcher, 2)
    assert first != second
    assert is_told_once(launcher)
    assert not is_told_once(launcher, 2)


@pytest.mark.parametrize("pause", [0.0, 0.02, 0.1])
async def test_a_server_that_ends_during_a_submission_leaves_one_attempt_or_none(site: Site, pause: float) -> None:
    async def serve() -> None:
        submitting = asyncio.create_task(site.launcher().submit(attempt_at(site, "completes")))
        await asyncio.sleep(pause)
        submitting.cancel()
        await asyncio.gather(submitting, return_exceptions=True)

    await asyncio.to_thread(asyncio.run, serve())  # with a loop of its own: its end waits for what is in threads
    later, number = site.launcher(), 1
    if await later.find(JOB, 1) is None:  # then the server makes the next attempt, and the first one never begins
        number = 2
        await later.submit(attempt_at(site, "completes", attempt=2))
        assert not is_told_once(later)
    assert await later.started(JOB, number, Reasons())
    await end_of(later, number)
    assert isinstance(is_told_once(later, number)[-1], wire.TrainerFinished)


async def test_a_waiting_attempt_says_why_and_starts_later(site: Site) -> None:
    if not site.hold("Resources"):
        pytest.skip("no attempt waits here")
    launcher, attempt, reasons = site.launcher(), attempt_at(site, "completes"), Reasons()
    await launcher.submit(attempt)
    starting = asyncio.create_task(launcher.started(JOB, 1, reasons))
    assert await reasons.first()
    await launcher.save_checkpoint(JOB, 1)
    assert not said_in(launcher.spool(JOB, 1))
    site.release()
    assert await starting
    await end_of(launcher)
    assert isinstance(is_told_once(launcher)[-1], wire.TrainerFinished)
    assert not any(isinstance(message, wire.CheckpointWritten) for message in is_told_once(launcher))


async def test_a_waiting_attempt_that_is_stopped_never_starts(site: Site) -> None:
    if not site.hold("Resources"):
        pytest.skip("no attempt waits here")
    launcher, attempt, reasons = site.launcher(), attempt_at(site, "completes"), Reasons()
    await launcher.submit(attempt)
    starting = asyncio.create_task(launcher.started(JOB, 1, reasons))
    await reasons.first()
    await launcher.stop(JOB, 1)
    assert not await starting
    site.release()
    ending = await end_of(launcher)
    assert ending.exit is None
    assert not said_in(launcher.spool(JOB, 1))


async def test_a_launcher_made_anew_takes_up_what_waits(site: Site) -> None:
    if not site.hold("Resources"):
        pytest.skip("no attempt waits here")
    first, attempt, reasons = site.launcher(), attempt_at(site, "completes"), Reasons()
    reference = await first.submit(attempt)
    starting = asyncio.create_task(first.started(JOB, 1, Reasons()))
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    later = site.launcher()
    later.know(JOB, 1, reference)
    starting = asyncio.create_task(later.started(JOB, 1, reasons))
    await reasons.first()
    site.release()
    assert await starting
    await end_of(later)
    assert isinstance(is_told_once(later)[-1], wire.TrainerFinished)


async def test_an_attempt_whose_place_is_taken_saves_and_ends_by_that_cause(site: Site) -> None:
    if not site.takes_place:
        pytest.skip("no place is taken here")
    launcher, attempt = site.launcher(), attempt_at(site, "obeys")
    await submitted(launcher, attempt)
    await says(launcher, attempt, wire.StepLogged, times=3)
    site.take_place(attempt)
    ending = await end_of(launcher)
    assert isinstance(is_told_once(launcher)[-1], wire.TrainerStopped)
    assert ending.cause is not None
    assert ending.cause.kind in {"Preempted", "TimeLimit"}


def test_a_launcher_says_where_jobs_run(site: Site) -> None:
    place = site.place()
    waits = site.hold("Resources")
    assert isinstance(place, Cluster if waits else Machine)
