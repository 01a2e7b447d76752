"""The one writer: what is asked at the same time is written together, once, or not at all."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from support.running_log import RunningLog, first_break, records_in, rows_of, running_log, standing_of
from support.scenario import JOB, finished, gone, key, lines, register_dataset, spawned, start, started, step, uploaded

from modelforge.command_handler import CommandHandler, Outcome
from modelforge.domain import job, model
from modelforge.domain.messages import GENESIS, Record
from modelforge.domain.scheduling import Machine
from modelforge.domain.state import State
from modelforge.errors import Conflict, LogUnusable, NotFound
from modelforge.event_log.sqlite import EventLog
from trainer_entry.wire.redaction import REDACTED, Redaction


async def completed_job(running: RunningLog) -> None:
    await running.submit(start(""))
    await running.submit(spawned(), actor="supervisor", cause=3)
    await running.submit(lines(100, started(1), step(2), finished(3)), actor="trainer")
    await running.submit(gone(), actor="supervisor")


# ---- one transaction ----


async def test_what_is_asked_at_the_same_time_is_one_transaction(path: Path) -> None:
    async with running_log(path) as running:
        outcomes = await asyncio.gather(
            *(running.submit(register_dataset(filename=f"{number}.jsonl")) for number in range(50))
        )
        assert [len(batch) for batch in running.batches] == [100]
        assert [outcome.position for outcome in outcomes] == list(range(1, 100, 2))
        assert running.standing() == standing_of(path)
    assert first_break(rows_of(path)) is None


async def test_later_messages_of_a_transaction_see_what_the_earlier_ones_led_to(path: Path) -> None:
    async with running_log(path) as running:
        first, second, third = await asyncio.gather(
            running.submit(start("")),
            running.submit(start("")),
            running.submit(start("", queue=True)),
            return_exceptions=True,
        )
        assert isinstance(second, Conflict)
        assert isinstance(first, Outcome)
        assert isinstance(third, Outcome)
        assert (first.stream, third.stream) == (JOB, "train_000004")
        assert running.state.waiting == ("train_000004",)
        assert len(running.batches) == 1


async def test_a_message_that_cannot_be_written_fails_alone(path: Path) -> None:
    async with running_log(path) as running:
        good, broken, also_good = await asyncio.gather(
            running.submit(register_dataset(filename="a.jsonl")),
            running.submit(register_dataset(filename="\ud800.jsonl")),
            running.submit(register_dataset(filename="b.jsonl")),
            return_exceptions=True,
        )
        assert isinstance(broken, UnicodeEncodeError)
        assert isinstance(good, Outcome)
        assert isinstance(also_good, Outcome)
        assert (good.position, also_good.position) == (1, 3)
        assert set(running.state.datasets) == {"a.jsonl", "b.jsonl"}
        assert running.standing() == standing_of(path)
    assert first_break(rows_of(path)) is None


async def test_a_refused_command_leaves_nothing_behind(path: Path) -> None:
    async with running_log(path) as running:
        before = running.standing()
        for refused, kind in (
            (job.StopTraining(), Conflict),
            (job.StopTraining(job_id="train_9"), NotFound),
            (model.DeleteModel(model_id=1), NotFound),
        ):
            with pytest.raises(kind):
                await running.submit(refused)
        assert running.standing() == before
        assert running.batches == []


async def test_everybody_is_answered_after_the_read_models_have_it(path: Path) -> None:
    async with running_log(path) as running:
        outcome = await running.submit(register_dataset())
        assert "three_lines.jsonl" in running.read_models.datasets
        assert outcome.events == (uploaded(),)


async def test_a_caller_that_went_away_stops_nobody_else(path: Path) -> None:
    async with running_log(path) as running:
        leaves = asyncio.ensure_future(running.submit(register_dataset(filename="a.jsonl")))
        refused = asyncio.ensure_future(running.submit(model.DeleteModel(model_id=1)))
        await asyncio.sleep(0)
        leaves.cancel()
        refused.cancel()
        await running.submit(register_dataset(filename="b.jsonl"))
        assert set(running.read_models.datasets) == {"a.jsonl", "b.jsonl"}


# ---- what a record says ----


async def test_a_job_is_named_after_the_record_that_made_it(path: Path) -> None:
    async with running_log(path) as running:
        await running.submit(register_dataset())
        outcome = await running.submit(start(""))
        assert (outcome.position, outcome.stream) == (3, "train_000003")
        spec = running.state.jobs["train_000003"].spec
        assert spec.output_dir.endswith("/train_000003")
        assert spec.checkpoint_dir.endswith("/train_000003/checkpoints")


async def test_events_name_the_record_that_led_to_them(path: Path) -> None:
    async with running_log(path) as running:
        await completed_job(running)
    records = records_in(path)
    assert [(record.type, record.cause, record.actor) for record in records] == [
        ("StartTraining", None, "api"),
        ("TrainingRequested", 1, "api"),
        ("AttemptLaunching", 1, "api"),
        ("AttemptSpawned", 3, "supervisor"),
        ("TrainingStarted", None, "trainer"),
        ("MetricsLogged", None, "trainer"),
        ("TrainerEnded", None, "trainer"),
        ("AttemptExited", None, "supervisor"),
        ("TrainingCompleted", None, "supervisor"),
        ("ModelRegistered", None, "supervisor"),
    ]
    assert [record.version for record in records] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 1]


async def test_a_stop_without_a_name_is_of_the_job_that_runs(path: Path) -> None:
    async with running_log(path) as running:
        await running.submit(start(""))
        outcome = await running.submit(job.StopTraining())
        assert outcome.events == (job.StopRequested(job_id=JOB, attempt=1),)
        assert outcome.stream == JOB


async def test_what_a_client_asked_is_on_record_though_nothing_followed(path: Path) -> None:
    async with running_log(path) as running:
        await running.submit(register_dataset())
        outcome = await running.submit(register_dataset())
        assert outcome.events == ()
        assert (await running.submit(job.LaunchNext(), actor="supervisor")).events == ()
    assert [record.type for record in records_in(path)] == ["RegisterDataset", "DatasetUploaded", "RegisterDataset"]


# ---- secrets ----


async def test_a_secret_in_the_name_of_a_figure_is_in_no_record(path: Path) -> None:
    secret = "canary-0123456789"  # noqa: S105 - nobody's
    named = msgspec.structs.replace(step(2), rewards={secret: 1.0})
    lost = msgspec.structs.replace(step(3), nonfinite=(secret,))
    async with running_log(path, redact=Redaction((secret,))) as running:
        await running.submit(start(""))
        await running.submit(spawned(), actor="supervisor")
        await running.submit(lines(100, started(1)), actor="trainer")
        await running.submit(lines(200, named), actor="trainer")
        await running.submit(lines(300, lost), actor="trainer")
        assert running.read_models.jobs[JOB].rewards == {}
    kept = [record.message for record in records_in(path)][-2:]
    assert [one.steps for one in kept if isinstance(one, job.MetricsLogged)] == [
        (msgspec.structs.replace(named, rewards={REDACTED: 1.0}),),
        (msgspec.structs.replace(lost, nonfinite=(REDACTED,)),),
    ]


async def test_a_secret_that_reads_like_a_phase_or_a_number_costs_no_figure(path: Path) -> None:
    figures = msgspec.structs.replace(step(2), memory_mb=12345678.0)
    async with running_log(path, redact=Redaction(("training", "12345678"))) as running:
        await running.submit(start(""))
        await running.submit(spawned(), actor="supervisor")
        await running.submit(lines(200, figures), actor="trainer")
    (*_, kept) = [record.message for record in records_in(path)]
    assert isinstance(kept, job.MetricsLogged)
    assert kept.steps == (figures,)


# ---- idempotency keys ----


async def test_the_same_key_and_request_have_the_same_outcome_and_are_written_once(path: Path) -> None:
    async with running_log(path) as running:
        first = await running.submit(start("", key=key()))
        again = await running.submit(start("", key=key()))
        assert (again.position, again.stream, again.repeated) == (first.position, first.stream, True)
        assert not first.repeated
        assert len(running.batches) == 1
    async with running_log(path) as reopened:
        assert (await reopened.submit(start("", key=key()))).repeated


async def test_a_key_sent_twice_at_the_same_time_is_written_once(path: Path) -> None:
    async with running_log(path) as running:
        outcomes = await asyncio.gather(*(running.submit(start("", key=key())) for _ in range(3)))
        assert [outcome.repeated for outcome in outcomes] == [False, True, True]
        assert {outcome.stream for outcome in outcomes} == {JOB}


async def test_a_key_that_stands_for_another_request_is_refused(path: Path) -> None:
    async with running_log(path) as running:
        await running.submit(start("", key=key("monday", "one")))
        with pytest.raises(Conflict, match="position 1"):
            await running.submit(start("", queue=True, key=key("monday", "two")))
        with pytest.raises(Conflict):
            await running.submit(job.StopTraining(key=key("monday", "three")))


async def test_a_key_of_a_refused_request_may_be_used_again(path: Path) -> None:
    async with running_log(path) as running:
        with pytest.raises(Conflict):
            await running.submit(job.StopTraining(key=key()))
        await running.submit(start(""))
        assert not (await running.submit(job.StopTraining(key=key()))).repeated


# ---- the writer fails ----


async def test_a_writer_that_fails_leaves_nobody_waiting(path: Path) -> None:
    log = await EventLog.open(path)

    def fail(_records: Sequence[Record]) -> None:
        raise ZeroDivisionError

    handler = CommandHandler(log, State(), GENESIS, fail, Machine())
    writer = asyncio.create_task(handler.run())
    try:
        answers = await asyncio.gather(
            handler.submit(register_dataset()), handler.submit(start("")), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [LogUnusable, LogUnusable]
        with pytest.raises(ZeroDivisionError):
            await writer
        with pytest.raises(LogUnusable):
            await handler.submit(register_dataset())
    finally:
        await log.close()


async def test_records_that_the_log_refuses_stop_the_writer(path: Path) -> None:
    async with running_log(path) as running:
        await running.submit(register_dataset())
        other = CommandHandler(
            running.log, State(), GENESIS, lambda _records: None, Machine()
        )  # it knows nothing of position 1
        writer = asyncio.create_task(other.run())
        with pytest.raises(LogUnusable):
            await other.submit(start(""))
        with pytest.raises(LogUnusable):
            await writer
        assert other.state.position == 0
    assert len(records_in(path)) == 2
