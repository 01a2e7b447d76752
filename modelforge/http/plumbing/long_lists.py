"""Lists of any length as answers: a long one is made and sent bit by bit, and others are answered in between."""

import asyncio
from collections.abc import Iterable
from itertools import islice

import msgspec
from aiohttp import HttpVersion11, hdrs, web
from msgspec import Struct

from modelforge.http.plumbing.body import json_response

_AT_ONCE = 64
"""So many are made in one go, which takes a millisecond."""


async def list_response(request: web.Request, body: Struct, field: str, items: Iterable[Struct]) -> web.StreamResponse:
    """A Struct as JSON, with a list in a field that is empty in it. `items`: none may be gone once it is its turn.

    Where HTTP/1.0 is spoken nothing but its length tells whether an answer is whole: there it is made in one go.
    """
    rest = iter(items)
    some = [*islice(rest, _AT_ONCE)]
    if len(some) < _AT_ONCE or request.version < HttpVersion11:
        return json_response(msgspec.structs.replace(body, **{field: [*some, *rest]}))
    name = f'"{field}":['.encode()  # within a text there is no quote without a backslash
    before, _, after = msgspec.json.encode(body).partition(name)
    answer = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/json"})
    await answer.prepare(request)
    if request.method == hdrs.METH_HEAD:
        return answer
    await answer.write(before + name)
    between = b""
    while some:
        await answer.write(between + msgspec.json.encode(some)[1:-1])
        await asyncio.sleep(0)
        some, between = [*islice(rest, _AT_ONCE)], b","
    await answer.write_eof(after)
    return answer
