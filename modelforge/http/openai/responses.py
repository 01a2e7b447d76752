"""Responses of OpenAI's clients: an answer of a model, of which nothing is kept."""

from aiohttp import web

from modelforge.errors import NotFound
from modelforge.http.generation import answer_once, send_events, told_to_the_end
from modelforge.http.openai.answering import answers_to, refuse_streamed_key, whole_answers
from modelforge.http.openai.named_models import find_named_model
from modelforge.http.openai.response_events import STREAMED, ResponseEvents
from modelforge.http.openai.response_object import ResponseObject, begun, ended
from modelforge.http.openai.response_request import ResponseBody, response_of
from modelforge.http.plumbing.body import idempotency_key, read_body
from modelforge.http.plumbing.route import Route


async def _whole(request: web.Request, body: ResponseBody) -> ResponseObject:
    model = find_named_model(request, body.model)
    asked = response_of(body, model)
    (answer,) = await whole_answers(answers_to(request, model, [asked.prompt], asked.sampling, "input"))
    return ended(begun(body, asked), answer)


async def create_response(request: web.Request) -> web.StreamResponse:
    """Answer; with `"stream": true` the answer comes as server-sent events."""
    key = await idempotency_key(request)
    body = await read_body(request, ResponseBody)
    if not body.stream:
        return await answer_once(request, key, lambda: _whole(request, body))
    refuse_streamed_key(key)
    model = find_named_model(request, body.model)
    asked = response_of(body, model)
    events = ResponseEvents(begun(body, asked))
    answers = answers_to(request, model, [asked.prompt], asked.sampling, "input")
    return await send_events(request, told_to_the_end(events.of(answers), events.failed))


def _not_kept(request: web.Request) -> NotFound:
    wanted = request.match_info["response_id"]
    return NotFound("No such response", f"There is no response {wanted[:60]!r}: nothing is stored of any.")


async def retrieve_response(request: web.Request) -> web.Response:
    """No response: nothing is stored of any."""
    raise _not_kept(request)


async def delete_response(request: web.Request) -> web.Response:
    """No response: nothing is stored of any."""
    raise _not_kept(request)


ROUTES = (
    Route(
        method="POST",
        path="/v1/responses",
        handler=create_response,
        body=ResponseBody,
        answer=ResponseObject,
        streams=STREAMED,
        errors=(400, 404, 409, 429, 503),
    ),
    Route(
        method="GET",
        path="/v1/responses/{response_id}",
        handler=retrieve_response,
        answer=ResponseObject,
        errors=(404,),
    ),
    Route(
        method="DELETE",
        path="/v1/responses/{response_id}",
        handler=delete_response,
        answer=ResponseObject,
        errors=(404,),
    ),
)
