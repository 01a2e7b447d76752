"""What is due to an endpoint comes to it, signed, in order, at least once, and is given up only by name."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import openai
import pytest
from msgspec import Struct
from openai import InvalidWebhookSignatureError
from structlog.testing import capture_logs
from support.scenario import gone, start
from support.webhook_receiver import Receiver, receiver

from modelforge.archive import archive
from modelforge.command_handler import CommandHandler
from modelforge.domain import webhook
from modelforge.domain.failure_causes import Cause
from modelforge.domain.messages import Record
from modelforge.domain.scheduling import Machine
from modelforge.errors import NotFound
from modelforge.event_log.sqlite import EventLog
from modelforge.http.openai.webhook_events import event_of
from modelforge.layout import Layout
from modelforge.projections.indexes import Indexes
from modelforge.projections.projector import Projector
from modelforge.projections.snapshots import rebuild
from modelforge.webhooks.deliverer import Deliverer, Retries
from modelforge.webhooks.secrets import Secret, SecretFiles, new_secret
from modelforge.webhooks.sending import Sender, headers_of

FAST = Retries(first=0.01, growth=1.0)
ID, OTHER = "we_" + "0" * 24, "we_" + "1" * 24


class World(Struct):
    """A log with its writer, and the deliverer beside it."""

    handler: CommandHandler
    projector: Projector
    deliverer: Deliverer

    async def create(self, url: str, webhook_id: str = ID, secret: str | None = None) -> None:
        secret = secret or new_secret()
        self.deliverer.secrets.write(webhook_id, (Secret(value=secret),))
        types: tuple[webhook.EventType, ...] = ("fine_tuning.job.failed",)
        created = webhook.CreateWebhook(
            webhook_id=webhook_id, name="desk", url=url, event_types=types, secret_hint=secret[-4:]
        )
        await self.handler.submit(created)

    async def fail_a_job(self) -> str:
        outcome = await self.handler.submit(start())
        job_id = outcome.stream
        why = Cause(kind="LaunchFailed", message="no such program")
        await self.handler.submit(gone(job_id, exit_report=None, cause=why), actor="supervisor")
        return job_id

    async def served(self, webhook_id: str = ID) -> None:
        """Wait until an endpoint is done with the last end of a job."""
        known = self.projector.read_models.webhooks
        await self.projector.until(lambda: known[webhook_id].served > 5)


@asynccontextmanager
async def world(folder: Path, retries: Retries = FAST, sender: Sender | None = None) -> AsyncIterator[World]:
    log = await EventLog.open(folder / "events.sqlite")
    rebuilt = await log.read(partial(rebuild, snapshot=Layout(folder).snapshot))

    def on_append(records: Sequence[Record]) -> None:
        projector.take(records)
        deliverer.take(records)

    def ended(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            failures.append(task.exception())

    failures: list[BaseException | None] = []
    handler = CommandHandler(log, rebuilt.state, rebuilt.digest, on_append, Machine())
    projector = Projector(Indexes(rebuilt.read_models))
    event = partial(event_of, state=rebuilt.state, read_models=rebuilt.read_models)
    secrets = SecretFiles(folder / "webhooks")
    deliverer = Deliverer(handler, log, rebuilt.read_models, secrets, event, ended, retries, sender)
    writer = asyncio.get_running_loop().create_task(handler.run())
    deliverer.start()
    try:
        async with asyncio.timeout(15):
            yield World(handler, projector, deliverer)
    finally:
        await deliverer.close()
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        await log.close()
    assert not failures


@pytest.fixture
def told() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


async def test_what_is_sent_is_what_openai_s_client_unwraps(tmp_path: Path, told: Receiver) -> None:
    secret = new_secret()
    async with world(tmp_path) as here:
        await here.create(f"{told.url}/hook", secret=secret)
        job_id = await here.fail_a_job()
        await here.served()
    (got,) = told.got
    client = openai.OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1")
    event = client.webhooks.unwrap(got.body, got.headers, secret=secret)
    assert event.type == "fine_tuning.job.failed"
    assert (event.id, event.data.id) == (got.headers["webhook-id"], job_id.replace("train_", "ftjob-"))
    data = json.loads(got.body)["data"]
    assert (data["job_id"], data["status"], data["name"]) == (job_id, "failed", "my-base-finetuned")
    assert data["error"] == {"kind": "LaunchFailed", "message": "no such program"}
    with pytest.raises(InvalidWebhookSignatureError):
        client.webhooks.unwrap(got.body, got.headers, secret=new_secret())
    with pytest.raises(InvalidWebhookSignatureError):
        client.webhooks.unwrap(got.body.replace(b"failed", b"better"), got.headers, secret=secret)


@pytest.mark.parametrize("content", [b"no segment", None])
async def test_an_end_in_a_segment_that_cannot_be_read_is_passed_over_and_the_next_is_told(
    tmp_path: Path, told: Receiver, content: bytes | None
) -> None:
    told.statuses["/hook"] = 500
    async with world(tmp_path, Retries(first=1000.0)) as here:
        await here.create(f"{told.url}/hook")
        await here.fail_a_job()
        await asyncio.to_thread(told.wait_for, lambda: bool(told.got))
    layout, count = Layout(tmp_path), len(told.got)
    await asyncio.to_thread(archive, layout, "2200-01-01")
    (segment,) = layout.segments.iterdir()
    segment.unlink()
    if content is not None:
        segment.write_bytes(content)
    del told.statuses["/hook"]
    with capture_logs() as said:
        async with world(tmp_path) as here:
            job_ids = []
            while not said:  # noqa: ASYNC110 - it has looked then, and waits
                await asyncio.sleep(0.01)
            for number in (1, 2):
                job_ids.append(await here.fail_a_job())
                await asyncio.to_thread(told.wait_for, lambda number=number: len(told.got) == count + number)
    assert [json.loads(got.body)["data"]["job_id"] for got in told.got[count:]] == job_ids
    assert [segment.name in one["detail"] for one in said if one["event"] == "webhook_ends_not_here"] == [True]


def test_two_secrets_sign_while_both_are_good() -> None:
    old, new = new_secret(), new_secret()
    kept = (Secret(value=new), Secret(value=old, until=2000.0))
    client = openai.OpenAI(api_key="none")
    for now, good in ((1999.0, {old, new}), (2001.0, {new})):
        headers = headers_of(kept, "evt_1", now, b"{}")
        signatures = headers["webhook-signature"].split(" ")
        assert len(signatures) == len(good)
        assert headers["webhook-timestamp"] == str(int(now))
        for secret in good:
            assert headers_of((Secret(value=secret),), "evt_1", now, b"{}")["webhook-signature"] in signatures
    client.close()


async def test_what_is_refused_is_sent_again_with_the_same_id_until_it_is_taken(tmp_path: Path, told: Receiver) -> None:
    told.statuses["/hook"] = 500
    async with world(tmp_path) as here:
        await here.create(f"{told.url}/hook")
        await here.fail_a_job()
        await asyncio.to_thread(told.wait_for, lambda: len(told.got) >= 3)
        told.statuses["/hook"] = 200
        await here.served()
        delivery = here.projector.read_models.webhooks[ID].last_delivery
    assert len({(got.headers["webhook-id"], got.body) for got in told.got}) == 1
    assert delivery is not None
    assert (delivery.status_code, delivery.attempts, delivery.reason) == (200, len(told.got), None)


async def test_what_was_not_delivered_when_the_server_ended_is_delivered_by_the_next_one(
    tmp_path: Path, told: Receiver
) -> None:
    told.statuses["/hook"] = 503
    async with world(tmp_path, Retries(first=30.0)) as here:
        await here.create(f"{told.url}/hook")
        await here.fail_a_job()
        await asyncio.to_thread(told.wait_for, lambda: bool(told.got))
    del told.statuses["/hook"]
    async with world(tmp_path) as here:
        await here.served()
    async with world(tmp_path) as here:  # and it is not sent a third time
        await here.fail_a_job()
        await asyncio.to_thread(told.wait_for, lambda: len(told.got) == 3)
    first, second, third = (got.headers["webhook-id"] for got in told.got)
    assert first == second != third


async def test_ends_of_jobs_come_in_order(tmp_path: Path, told: Receiver) -> None:
    async with world(tmp_path) as here:
        await here.create(f"{told.url}/hook")
        jobs = [await here.fail_a_job() for _ in range(4)]
        await asyncio.to_thread(told.wait_for, lambda: len(told.got) == 4)
    assert [json.loads(got.body)["data"]["job_id"] for got in told.got] == jobs


async def test_what_is_never_taken_is_given_up_by_name_and_the_next_is_tried(tmp_path: Path, told: Receiver) -> None:
    told.statuses["/hook"] = 302
    with capture_logs() as lines:
        async with world(tmp_path, Retries(first=0.01, growth=1.0, oldest=0.0, fewest=3)) as here:
            await here.create(f"{told.url}/hook")
            job_id = await here.fail_a_job()
            await here.served()
            known = here.projector.read_models.webhooks[ID]
            told.statuses["/hook"] = 200
            await here.fail_a_job()
            await asyncio.to_thread(told.wait_for, lambda: len(told.got) == 4)
    assert known.undelivered == 1
    assert known.last_undelivered is not None
    assert known.last_undelivered.reason == "it answered 302, and redirects are not followed"
    (given_up,) = [line for line in lines if line["event"] == "webhook_given_up"]
    assert (given_up["job_id"], given_up["attempts"]) == (job_id, 3)
    assert not told.at("/elsewhere")


async def test_an_endpoint_that_is_slow_holds_nobody_else_up(tmp_path: Path, told: Receiver) -> None:
    told.held.add("/slow")
    async with world(tmp_path) as here:
        await here.create(f"{told.url}/slow")
        await here.create(f"{told.url}/hook", OTHER)
        for _ in range(3):
            await here.fail_a_job()
        await asyncio.to_thread(told.wait_for, lambda: len(told.at("/hook")) == 3)
        assert len(told.at("/slow")) == 1
        assert here.projector.read_models.webhooks[ID].last_delivery is None


async def test_an_endpoint_without_a_secret_is_sent_nothing_until_it_has_one(tmp_path: Path, told: Receiver) -> None:
    async with world(tmp_path) as here:
        await here.create(f"{told.url}/hook")
        here.deliverer.secrets.remove(ID)
        await here.fail_a_job()
        with capture_logs() as lines:
            await asyncio.to_thread(told.wait_for, lambda: bool(lines))
        assert "rotate it" in lines[0]["reason"]
        assert not told.got
        here.deliverer.secrets.write(ID, (Secret(value=new_secret()),))
        await here.served()
    assert len(told.got) == 1


async def test_a_deleted_endpoint_hears_nothing_more(tmp_path: Path, told: Receiver) -> None:
    told.statuses["/hook"] = 500
    async with world(tmp_path) as here:
        await here.create(f"{told.url}/hook")
        await here.create(f"{told.url}/other", OTHER)
        await here.fail_a_job()
        await asyncio.to_thread(told.wait_for, lambda: bool(told.at("/hook")))
        await here.handler.submit(webhook.DeleteWebhook(webhook_id=ID))
        heard = len(told.at("/hook"))
        await here.fail_a_job()
        await asyncio.to_thread(told.wait_for, lambda: len(told.at("/other")) == 2)
        assert len(told.at("/hook")) <= heard + 1, "the one that was on its way"


async def test_a_type_that_is_heard_of_no_more_holds_up_nothing(tmp_path: Path, told: Receiver) -> None:
    told.statuses["/hook"] = 500
    async with world(tmp_path, Retries(first=30.0)) as here:
        await here.create(f"{told.url}/hook")
        first = await here.fail_a_job()
        await asyncio.to_thread(told.wait_for, lambda: bool(told.got))
        await here.handler.submit(webhook.UpdateWebhook(webhook_id=ID, event_types=("fine_tuning.job.cancelled",)))
        del told.statuses["/hook"]
        await here.handler.submit(webhook.UpdateWebhook(webhook_id=ID, event_types=("fine_tuning.job.failed",)))
        second = await here.fail_a_job()
        await here.served()
    assert [json.loads(got.body)["data"]["job_id"] for got in told.got] == [first, second]


async def test_a_secret_that_cannot_be_read_is_a_reason_and_no_end_of_the_server(
    tmp_path: Path, told: Receiver
) -> None:
    file = tmp_path / "webhooks" / f"{ID}.json"
    with capture_logs() as lines:
        async with world(tmp_path, Retries(first=0.01, growth=1.0)) as here:
            await here.create(f"{told.url}/hook")
            file.rename(file.with_suffix(".aside"))
            file.mkdir()
            await here.fail_a_job()
            await asyncio.to_thread(told.wait_for, lambda: bool(lines))
            file.rmdir()
            file.with_suffix(".aside").rename(file)
            await here.served()
    assert "its secret cannot be read: Is a directory" in lines[0]["reason"]
    assert len(told.got) == 1


async def test_nothing_is_sent_to_an_endpoint_that_was_deleted_meanwhile(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.deliverer.secrets.write(ID, (Secret(value=new_secret()),))
        with pytest.raises(NotFound):
            await here.deliverer.send_once(ID, "evt_1", b"{}")


def test_secrets_are_their_owner_s_only_and_those_of_nobody_are_swept(tmp_path: Path) -> None:
    files = SecretFiles(tmp_path / "webhooks")
    for webhook_id in (ID, OTHER):
        files.write(webhook_id, (Secret(value=new_secret()),))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "webhooks").iterdir()}
    assert (modes, stat.S_IMODE((tmp_path / "webhooks").stat().st_mode)) == ({0o600}, 0o700)
    files.sweep({ID})
    assert (len(files.read(ID)), files.read(OTHER)) == (1, ())
