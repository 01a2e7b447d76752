"""Trying a model: one prompt, one answer, whole or as it comes."""

import collections
from collections.abc import Callable
from contextlib import aclosing
from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from modelforge.domain.idempotency import IdempotencyKey
from modelforge.errors import BadInput, Conflict, ForgeError, NotFound
from modelforge.http import problems
from modelforge.http.keys import LAYOUT, PLAYGROUND, PROJECTOR, SETTINGS
from modelforge.http.messages import answer, idempotency_key, read_body
from modelforge.http.models import find_model
from modelforge.model_check import check_model
from trainer_entry import wire

_ANSWERS_KEPT = 100
_STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}


class GenerateBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A prompt. `model_id` 0 is an untuned base model: the newest model's, or the one that `base_model` names.

    `base_model` true asks the base model of `model_id`. `temperature` 0 always takes the likeliest token.
    """

    prompt: Annotated[str, Meta(min_length=1, max_length=100_000)]
    model_id: Annotated[int, Meta(ge=0)] = 0
    base_model: bool | str = False
    max_new_tokens: Annotated[int, Meta(ge=1, le=8192)] = 256
    temperature: Annotated[float, Meta(ge=0, le=10)] = 0.7
    top_p: Annotated[float, Meta(gt=0, le=1)] = 0.9
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None
    stream: bool = False


class Answer(Struct, frozen=True, kw_only=True):
    """What the model said. `finish_reason`: `stop`, `length` (max_new_tokens) or `deadline`."""

    generated_text: str
    tokens_generated: int
    generation_time_ms: int
    finish_reason: str


class Piece(Struct, frozen=True, kw_only=True):
    """A part of an answer that is still coming."""

    text: str


class GivenAnswers:
    """The last answers that had a key, so that the same request gets the same answer again."""

    def __init__(self) -> None:
        self._answers: collections.OrderedDict[str, tuple[str, Answer]] = collections.OrderedDict()

    def find(self, key: IdempotencyKey | None) -> Answer | None:
        """The answer that was given before.

        Raises:
            Conflict: the key stands for another prompt.
        """
        if key is None or key.value not in self._answers:
            return None
        asked, given = self._answers[key.value]
        if asked != key.request_sha256:
            raise Conflict("This Idempotency-Key was used for another request", "Send this one with a new key.")
        return given

    def keep(self, key: IdempotencyKey | None, given: Answer) -> None:
        """Remember an answer, and forget the oldest."""
        if key is not None:
            self._answers[key.value] = (key.request_sha256, given)
            if len(self._answers) > _ANSWERS_KEPT:
                self._answers.popitem(last=False)


GIVEN_ANSWERS = web.AppKey("given_answers", GivenAnswers)


async def generate(request: web.Request) -> web.StreamResponse:
    """Ask a model; with `"stream": true` the answer comes as server-sent events."""
    key = await idempotency_key(request)
    body = await read_body(request, GenerateBody)
    given = request.app[GIVEN_ANSWERS]
    if (before := given.find(key)) is not None:
        return web.Response(body=_sse("done", before), headers=_STREAM) if body.stream else answer(before)
    ask = await _prompt(request, body)
    if body.stream:
        return await _stream(request, ask)
    async with aclosing(request.app[PLAYGROUND].generate(ask)) as pieces:
        (whole,) = [message async for message in pieces if isinstance(message, wire.Generated)]
    given.keep(key, _answer(whole))
    return answer(_answer(whole))


async def _prompt(request: web.Request, body: GenerateBody) -> Callable[[int], wire.Generate]:
    model_path, adapter_path = await _model(request, body)
    deadline = request.app[SETTINGS].playground_deadline_seconds

    def ask(number: int) -> wire.Generate:
        return wire.Generate(
            id=number,
            model_path=model_path,
            adapter_path=adapter_path,
            prompt=body.prompt,
            max_new_tokens=body.max_new_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            seed=body.seed,
            deadline_seconds=deadline,
        )

    return ask


async def _model(request: web.Request, body: GenerateBody) -> tuple[str, str | None]:
    """What to load: a base model or a full one, and an adapter if there is one."""
    if isinstance(body.base_model, str):
        if body.model_id:
            raise BadInput(
                "model_id and the name of a base_model do not go together",
                'Send one of them, or "base_model": true for the base of that model.',
                field="base_model",
            )
        roots = (*request.app[SETTINGS].model_roots, request.app[LAYOUT].models)
        return await check_model(body.base_model, roots, "base_model"), None
    if body.model_id == 0:
        models = request.app[PROJECTOR].read_models.models
        newest = models[max(models)] if models else None
        return (newest.base_path if newest else wire.BUILT_IN_MODEL), None
    details = find_model(request, body.model_id)
    if details.task != "text-generation":
        raise NotFound("No such model", f"Model {details.id} is for {details.task}.")
    if body.base_model:
        return details.base_path, None
    return (details.base_path, details.path) if details.kind == "adapter" else (details.path, None)


def _answer(message: wire.Generated) -> Answer:
    return Answer(
        generated_text=message.text,
        tokens_generated=message.tokens,
        generation_time_ms=message.milliseconds,
        finish_reason=message.finish,
    )


async def _stream(request: web.Request, ask: Callable[[int], wire.Generate]) -> web.StreamResponse:
    """Server-sent events: `token` with each piece, then `done` with the whole, or `error`."""
    pieces = request.app[PLAYGROUND].generate(ask)
    # The first piece comes before the status line: a model that cannot be loaded is an error, not a stream.
    first = await anext(pieces)
    response = web.StreamResponse(headers=_STREAM)
    await response.prepare(request)
    try:
        await response.write(_event(first))
        async for message in pieces:
            await response.write(_event(message))
    except ForgeError as error:
        await response.write(_sse("error", problems.problem_of(error)))
    finally:
        await pieces.aclose()
    await response.write_eof()
    return response


def _event(message: wire.Token | wire.Generated) -> bytes:
    if isinstance(message, wire.Token):
        return _sse("token", Piece(text=message.text))
    return _sse("done", _answer(message))


def _sse(event: Literal["token", "done", "error"], data: Struct) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event.encode(), msgspec.json.encode(data))
