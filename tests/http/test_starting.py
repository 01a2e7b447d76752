"""What a server answers while it reads its log."""

from aiohttp.test_utils import TestClient, TestServer

from modelforge.http.starting import starting_app
from modelforge.projections.folding import FoldWatch
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
