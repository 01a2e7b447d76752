"""A list of any length is one answer, and keeps nobody else waiting."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from msgspec import Struct

from modelforge.http.plumbing.long_lists import list_response


class Thing(Struct, frozen=True):
    name: str


class Things(Struct, frozen=True):
    told: str
    things: list[Thing]
    more: bool = True


TOLD = 'a "things":[ within'


@contextlib.asynccontextmanager
async def answering(
    items: Callable[[], Iterator[Thing]], version: aiohttp.HttpVersion = aiohttp.HttpVersion11
) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    """A client of a server whose one answer is such a list."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await list_response(request, Things(TOLD, []), "things", items())

    app = web.Application()
    app.router.add_get("/", handle)
    async with TestClient(TestServer(app), version=version) as client:
        yield client


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 128, 1000])
async def test_it_is_what_it_would_be_in_one_piece(count: int) -> None:
    things = [Thing(f'"things":[{number}') for number in range(count)]
    async with answering(lambda: iter(things)) as client:
        answer, head = await client.get("/"), await client.head("/")
        assert await answer.read() == msgspec.json.encode(Things(TOLD, things))
        assert answer.content_type == head.content_type == "application/json"
        assert await head.read() == b""


async def test_others_are_answered_while_it_is_made() -> None:
    made, seen = 0, set[int]()

    def each() -> Iterator[Thing]:
        nonlocal made
        for number in range(1000):
            made = number
            yield Thing("")

    async with answering(each) as client:
        answering_it = asyncio.create_task(client.get("/"))
        while made < 999:
            seen.add(made)
            await asyncio.sleep(0)
        await (await answering_it).read()
    assert len(seen) > 10


async def test_one_that_fails_on_its_way_is_not_taken_for_whole() -> None:
    def each() -> Iterator[Thing]:
        for _ in range(1000):
            yield Thing("")
        raise ValueError("there is no more")

    async with answering(each) as client:
        with pytest.raises(aiohttp.ClientError):
            await (await client.get("/")).read()


async def test_nothing_is_made_for_who_asks_for_the_head_alone() -> None:
    made = 0

    def each() -> Iterator[Thing]:
        nonlocal made
        for made in range(1000):  # noqa: B007 - it is counted
            yield Thing("")

    async with answering(each) as client:
        answer = await client.head("/")
        assert (answer.status, await answer.read()) == (200, b"")
    assert made < 100


@pytest.mark.parametrize("count", [1, 1000])
async def test_where_only_its_length_tells_whether_it_is_whole_it_has_one(count: int) -> None:
    async with answering(lambda: iter([Thing("")] * count), aiohttp.HttpVersion10) as client:
        answer = await client.get("/")
        assert int(answer.headers["Content-Length"]) == len(await answer.read())
