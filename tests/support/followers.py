"""Clients that follow the log and come back with their last position, as docs/api.md has it."""

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

_AGAIN_SECONDS = 0.05


class Told(Struct):
    """What a follower reads of a WebSocket message."""

    position: int
    record: Raw | UnsetType = UNSET


class Page(Struct):
    """A page of `/api/events`, with the bytes of each record."""

    events: list[Raw]
    last_position: int


class Heard(Struct):
    """What a follower has: the bytes of each record. `words`: those that the server ended with."""

    position: int = 0
    records: list[bytes] = []
    connections: int = 0
    words: list[bytes] = []


def page_of(body: bytes) -> list[bytes]:
    """The records of a page of `/api/events`, byte for byte."""
    return [bytes(record) for record in msgspec.json.decode(body, type=Page).events]


async def events_in(parts: AsyncIterator[bytes]) -> AsyncIterator[dict[str, bytes]]:
    """The fields of each event in a stream (html.spec.whatwg.org, 9.2.6); comments are events without a field."""
    rest = b""
    async for part in parts:
        *whole, rest = (rest + part).split(b"\n\n")
        for event in whole:
            lines = [line.partition(b": ") for line in event.split(b"\n") if not line.startswith(b":")]
            yield {name.decode(): value for name, _, value in lines}


async def follow_events(url_of: Callable[[], str], heard: Heard, is_done: Callable[[Heard], bool]) -> None:
    """Follow `/api/events/stream` as an EventSource does: its address stays, the header has the last id."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        while not is_done(heard):
            shown = {"Last-Event-ID": str(heard.position)} if heard.records else {}
            try:
                async with session.get(f"{url_of()}/api/events/stream?after=0", headers=shown) as answer:
                    assert answer.status == 200, await answer.text()
                    heard.connections += 1
                    async for event in events_in(answer.content.iter_any()):
                        if event.get("event") == b"goodbye":
                            heard.words.append(event["data"])
                        elif "data" in event:
                            heard.records.append(event["data"])
                            heard.position = int(event["id"])
                        if is_done(heard):
                            return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(_AGAIN_SECONDS)


async def follow_socket(url_of: Callable[[], str], heard: Heard, is_done: Callable[[Heard], bool]) -> None:
    """Follow `/ws/training` with the records beside the statuses."""
    async with aiohttp.ClientSession() as session:
        while not is_done(heard):
            try:
                async with session.ws_connect(
                    f"{url_of()}/ws/training?records=true&after={heard.position}", max_msg_size=0
                ) as socket:
                    heard.connections += 1
                    async for message in socket:
                        told = msgspec.json.decode(message.data, type=Told)
                        assert not isinstance(told.record, UnsetType)
                        heard.records.append(bytes(told.record))
                        heard.position = told.position
                        if is_done(heard):
                            return
                    heard.words.append(str(socket.close_code).encode())
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(_AGAIN_SECONDS)
