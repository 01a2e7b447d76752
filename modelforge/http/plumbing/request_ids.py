"""The id of a request: OpenAI's clients show it with an answer, and the server's log with what it could not answer."""

import secrets

from aiohttp import web

from modelforge.http.plumbing.openai_errors import is_asked

_ID = web.RequestKey("request_id", str)


def id_of(request: web.Request) -> str:
    """The request's id: made when it is first asked for, and no other request has it."""
    if _ID not in request:
        request[_ID] = f"req_{secrets.token_hex(12)}"
    return request[_ID]


async def name_answer(request: web.Request, response: web.StreamResponse) -> None:
    """Say the request's id with its answer: a signal of the application, so that no answer under /v1 is left out."""
    if is_asked(request.path):
        response.headers["x-request-id"] = id_of(request)
