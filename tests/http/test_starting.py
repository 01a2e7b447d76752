"""What a server answers while it reads its log."""

import pytest
from aiohttp.test_utils import TestClient, TestServer

from modelforge.http.starting import starting_app, work_before
from modelforge.projections.folding import FoldWatch, Stage
from modelforge.settings import Settings


async def test_an_event_source_is_told_to_come_back_and_everybody_else_to_ask_again() -> None:
    app = starting_app(FoldWatch(lambda _records: None), Settings())
    async with TestClient(TestServer(app)) as client:
        answer = await client.get("/api/events/stream?after=3", headers={"Accept": "text/event-stream"})
        assert (answer.status, answer.content_type, await answer.text()) == (
            200,
            "text/event-stream",
            "retry: 1000\n\n",
        )
        answer = await client.get("/api/events/stream?after=3")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        headers = {"Accept": "text/event-stream", "Host": "evil.example"}
        assert (await client.get("/api/events/stream", headers=headers)).status == 421


@pytest.mark.parametrize(
    ("stage", "progress", "first"),
    [
        ("upgrading", "brings its log of 90 records to the schema", "to the schema of this release first: 90 records."),
        ("loading", "has read 30 of 90 parts of its snapshot", "It reads its snapshot first: 90 parts."),
        ("rebuilding", "has read 30 of 90 records", "It reads its log first: 60 records."),
    ],
)
async def test_health_and_a_refusal_say_what_a_start_is_at(stage: Stage, progress: str, first: str) -> None:
    watch = FoldWatch()
    watch.begin(30, 90, stage)
    async with TestClient(TestServer(starting_app(watch, Settings()))) as client:
        health = await client.get("/api/health")
        assert (health.status, (await health.json())["reading"]) == (200, {"records": 30, "of": 90, "doing": stage})
        refused = await client.get("/api/jobs")
        assert (refused.status, progress in (await refused.json())["detail"]) == (503, True)
    assert first in work_before(watch)


async def test_a_page_of_an_allowed_origin_can_read_that_it_is_to_ask_again() -> None:
    origin = "https://pages.example"
    app = starting_app(FoldWatch(), Settings(allowed_origins=(origin,)))
    async with TestClient(TestServer(app)) as client:
        asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        preflight = await client.options("/api/jobs", headers=asked)
        answer = await client.get("/api/jobs", headers={"Origin": origin})
        assert (preflight.status, answer.status) == (204, 503)
        for given in (preflight, answer):
            assert given.headers["Access-Control-Allow-Origin"] == origin
