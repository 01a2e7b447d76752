"""Webhook endpoints as OpenAI's client makes them, and what they hear of a server's jobs."""

import json
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from support.running_server import RunningServer
from support.webhook_receiver import Receiver, receiver

EVERY = ["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]
Start = Callable[..., str]


@pytest.fixture
def told() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


def client_of(server: RunningServer) -> openai.OpenAI:
    server.shown = server.as_owner()
    key = server.shown["Authorization"].removeprefix("Bearer ")
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


def test_an_endpoint_lives_as_openai_s_client_has_it(server: RunningServer, told: Receiver, data_dir: Path) -> None:
    with client_of(server) as client:
        made = client.webhooks.create(name="desk", url=f"{told.url}/hook", event_types=EVERY)
        assert made.signing_secret.endswith((made.signing_secret_hint or "")[1:])
        assert client.webhooks.retrieve(made.id).event_types == EVERY
        other = client.webhooks.create(name="phone", url=f"{told.url}/other", event_types=EVERY[:1])
        assert [one.id for one in client.webhooks.list(limit=1)] == [other.id, made.id]
        changed = client.webhooks.update(made.id, name="desk 2", event_types=EVERY[1:])
        assert (changed.name, changed.url, changed.event_types) == ("desk 2", f"{told.url}/hook", EVERY[1:])
        assert set(EVERY) <= set(client.webhooks.event_types.list().data)
        tested = client.webhooks.test(made.id, event_type="fine_tuning.job.failed")
        assert (tested.status_code, tested.success) == (204, True)
        (got,) = told.got
        assert client.webhooks.unwrap(got.body, got.headers, secret=made.signing_secret).type == EVERY[1]
        rotated = client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
        client.webhooks.test(made.id, event_type="fine_tuning.job.failed")
        for secret in (made.signing_secret, rotated.signing_secret):
            client.webhooks.unwrap(told.got[1].body, told.got[1].headers, secret=secret)
        rotated = client.webhooks.rotate_secret(made.id)
        client.webhooks.test(made.id, event_type="fine_tuning.job.failed")
        client.webhooks.unwrap(told.got[2].body, told.got[2].headers, secret=rotated.signing_secret)
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.unwrap(told.got[2].body, told.got[2].headers, secret=made.signing_secret)
        folder = data_dir / "webhooks"
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
        assert client.webhooks.delete(made.id).deleted
        assert [path.stem for path in folder.iterdir()] == [other.id]
        with pytest.raises(openai.NotFoundError):
            client.webhooks.retrieve(made.id)
        client.webhooks.update(other.id, url="http://127.0.0.1:1/hook")
        with pytest.raises(openai.ConflictError, match="no answer"):
            client.webhooks.test(other.id, event_type="fine_tuning.job.failed")


def test_every_end_of_a_job_is_told_over_a_restart_and_no_secret_is_in_log_answer_or_backup(
    server: RunningServer, start: Start, told: Receiver, data_dir: Path
) -> None:
    with client_of(server) as client:
        made = client.webhooks.create(name="desk", url=f"{told.url}/hook", event_types=EVERY)
    told.statuses["/hook"] = 500
    completed = start(server, "completes")
    server.wait_for(completed)
    told.wait_for(lambda: bool(told.got))
    assert "webhook_not_delivered" in server.end()
    del told.statuses["/hook"]
    server.start()
    server.shown = server.as_owner()
    failed = start(server, "raises")
    server.wait_for(failed)
    stopped = start(server, "waits", max_steps=5000)
    server.wait_for(stopped, "training")
    queued = start(server, "waits", queue=True)
    for job_id in (queued, stopped):
        server.post(f"/api/jobs/{job_id}/stop").raise_for_status()
    server.wait_for(stopped)
    told.wait_for(lambda: len({got.headers["webhook-id"] for got in told.got}) == 4)
    ends = {one["data"]["job_id"]: one for one in (json.loads(got.body) for got in told.got)}
    types = [ends[job_id]["type"].rpartition(".")[2] for job_id in (completed, failed, stopped, queued)]
    assert types == ["succeeded", "failed", "cancelled", "cancelled"]
    data = ends[completed]["data"]
    assert (data["id"], data["name"], data["model_id"]) == (completed.replace("train_", "ftjob-"), "completes", 1)
    assert data["fine_tuned_model"].startswith("ft:")
    listed = server.get("/v1/webhook_endpoints").text
    assert json.loads(listed)["data"][0]["modelforge"]["last_delivery"]["status_code"] == 204
    secret = made.signing_secret.removeprefix("whsec_")
    assert secret not in listed
    assert secret not in server.get("/api/events?limit=1000").text
    assert secret not in server.end()
    holders = [path for path in data_dir.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert holders == [data_dir / "webhooks" / f"{made.id}.json"]


def test_a_secret_that_is_rotated_by_several_at_once_is_the_one_that_is_shown(
    server: RunningServer, data_dir: Path
) -> None:
    with client_of(server) as client:
        made = client.webhooks.create(name="desk", url="http://127.0.0.1:9/", event_types=EVERY)
        with ThreadPoolExecutor(8) as pool:
            rotated = [*pool.map(lambda _: client.webhooks.rotate_secret(made.id).signing_secret, range(24))]
        hint = client.webhooks.retrieve(made.id).signing_secret_hint or ""
    (kept,) = json.loads((data_dir / "webhooks" / f"{made.id}.json").read_bytes())
    assert kept["value"] in rotated
    assert kept["value"].endswith(hint[1:])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", "http://169.254.169.254/latest"),
        ("url", "ftp://hooks.example"),
        ("event_types", []),
        ("event_types", ["batch.completed"]),
        ("name", ""),
        ("name", "turned \u202e round"),
    ],
)
def test_what_cannot_be_told_is_refused_by_its_field(module_server: RunningServer, field: str, value: object) -> None:
    body = {"name": "desk", "url": "http://127.0.0.1:9/", "event_types": EVERY, field: value}
    answer = module_server.post("/v1/webhook_endpoints", body, headers=module_server.as_owner())
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"].startswith(field)


def test_nobody_without_the_scope_admin_makes_or_sees_an_endpoint(module_server: RunningServer) -> None:
    assert module_server.get("/v1/webhook_endpoints").status_code == 403
    body = {"name": "desk", "url": "http://127.0.0.1:9/", "event_types": EVERY}
    assert module_server.post("/v1/webhook_endpoints", body).status_code == 403


def test_of_an_address_only_admins_see_what_follows_the_host(server: RunningServer, told: Receiver) -> None:
    url = f"{told.url}/services/T0/B0/s3cr3tpath?token=s3cr3tquery"
    with client_of(server) as client:
        made = client.webhooks.create(name="desk", url=url, event_types=EVERY)
        client.webhooks.update(made.id, url=url + "2")
        assert client.webhooks.retrieve(made.id).url == url + "2"
    answers = [server.get("/api/events?limit=1000").text]
    with server.get("/api/events/stream?after=0", stream=True) as stream:
        stream.encoding = "utf-8"
        answers.append(next(line for line in stream.iter_lines(1, decode_unicode=True) if "WebhookUpdated" in line))
    for answer in answers:
        assert f"{told.url}/…" in answer
        assert "s3cr3t" not in answer


def test_an_endpoint_whose_secret_cannot_be_read_says_so_beside_the_others(
    server: RunningServer, told: Receiver, data_dir: Path
) -> None:
    with client_of(server) as client:
        bad = client.webhooks.create(name="bad", url=f"{told.url}/bad", event_types=EVERY)
        good = client.webhooks.create(name="good", url=f"{told.url}/good", event_types=EVERY)
        file = data_dir / "webhooks" / f"{bad.id}.json"
        file.unlink()
        file.mkdir()
        said = {one.id: one.modelforge for one in client.webhooks.list()}  # type: ignore[attr-defined]
        assert said[good.id]["secret_problem"] is None
        assert "cannot be read" in said[bad.id]["secret_problem"]
        assert (said[good.id]["has_secret"], said[bad.id]["has_secret"]) == (True, False)
        file.rmdir()
        file.write_bytes(b"[{")
        assert "rotate it" in client.webhooks.retrieve(bad.id).modelforge["secret_problem"]  # type: ignore[attr-defined]
        secret = client.webhooks.rotate_secret(bad.id).signing_secret
        assert client.webhooks.retrieve(bad.id).modelforge["secret_problem"] is None  # type: ignore[attr-defined]
        client.webhooks.test(bad.id, event_type="fine_tuning.job.failed")
        client.webhooks.unwrap(told.got[-1].body, told.got[-1].headers, secret=secret)
