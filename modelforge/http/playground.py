"""Trying a model: one prompt, one answer, whole or as it comes."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from modelforge.admission.model import check_model
from modelforge.domain.purposes import Purpose
from modelforge.errors import BadInput
from modelforge.http.generation import (
    GIVEN_ANSWERS,
    Ask,
    Blamed,
    Chosen,
    Message,
    answer_once,
    answer_to,
    send_events,
    told_to_the_end,
    trained,
    whole,
)
from modelforge.http.models import find_model
from modelforge.http.plumbing import problems
from modelforge.http.plumbing.body import idempotency_key, read_body
from modelforge.http.plumbing.keys import ADMISSION, PROJECTOR, SETTINGS
from modelforge.http.plumbing.route import Route, Streamed
from trainer_entry import wire


class PlaygroundTurn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was said in a chat, and by whom."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Meta(max_length=100_000)]


class GenerateBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A prompt, or the `messages` of a chat in its place.

    `model_id` 0 is an untuned base model: the newest model's, or the one that `base_model` names.
    `base_model` true asks the base model of `model_id`. `temperature` 0 always takes the likeliest token.
    For summarization, `prompt` is the document. For question answering, it is the question, and `context` the text
    that the answer stands in. `task` chooses for a base model; a trained model has its own. `stop`: texts that end the
    answer, and are no part of it.
    `top_logprobs`: each token of the answer comes with its probability, and with so many of the likeliest in its place.
    """

    prompt: Annotated[str, Meta(min_length=1, max_length=100_000)] | None = None
    messages: Annotated[tuple[PlaygroundTurn, ...], Meta(max_length=500)] = ()
    context: Annotated[str, Meta(min_length=1, max_length=500_000)] | None = None
    task: wire.Task | None = None
    model_id: Annotated[int, Meta(ge=0)] = 0
    base_model: bool | Annotated[str, Meta(min_length=1, max_length=1000)] = False
    max_new_tokens: Annotated[int, Meta(ge=1, le=8192)] = 256
    temperature: Annotated[float, Meta(ge=0, le=10)] = 0.7
    top_p: Annotated[float, Meta(gt=0, le=1)] = 0.9
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None
    stop: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...], Meta(max_length=4)] = ()
    stream: bool = False
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


class Answer(Struct, frozen=True, kw_only=True):
    """What the model said. `finish_reason`: `stop`, `length` (max_new_tokens) or `deadline`.

    Question answering alone has a `score`, from 0 to 1, and says where in the context the answer stands: from the
    character `start` to the one before `end`. Both are null, and the text is empty, if the model finds none.
    `logprobs`, where they were asked for: of each token, before temperature and top_p. Bytes of tokens that are no
    whole character make one together.
    """

    generated_text: str
    tokens_generated: int
    generation_time_ms: int
    finish_reason: str
    score: float | UnsetType = UNSET
    start: int | UnsetType | None = UNSET
    end: int | UnsetType | None = UNSET
    logprobs: tuple[wire.TokenLogprob, ...] | UnsetType = UNSET


class Piece(Struct, frozen=True, kw_only=True):
    """A part of an answer that is still coming. `logprobs`, where they were asked for: of the tokens in it."""

    text: str
    logprobs: tuple[wire.TokenLogprob, ...] | UnsetType = UNSET


async def generate(request: web.Request) -> web.StreamResponse:
    """Ask a model; with `"stream": true` the answer comes as server-sent events."""
    key = await idempotency_key(request)
    body = await read_body(request, GenerateBody)
    if not body.stream:
        return await answer_once(request, key, lambda: _whole(request, body))
    request.app[GIVEN_ANSWERS].find(key)  # a key of another request is refused
    events = _events(await _pieces(request, body))
    return await send_events(request, told_to_the_end(events, _told))


async def _whole(request: web.Request, body: GenerateBody) -> Answer:
    return _answer(await whole(await _pieces(request, body)))


async def _pieces(request: web.Request, body: GenerateBody) -> AsyncGenerator[Message, None]:
    model = "base_model" if body.base_model or not body.model_id else "model_id"
    blamed = Blamed("messages" if body.prompt is None else "prompt", model)
    return answer_to(request, await _prompt(request, body), blamed)


async def _prompt(request: web.Request, body: GenerateBody) -> Ask:
    if (body.prompt is None) == (not body.messages):
        words = "There is neither prompt nor messages" if body.prompt is None else "There are a prompt and messages"
        field = "prompt" if body.prompt is None else "messages"
        raise BadInput(words, "Send exactly one of the two: a text as prompt, or a chat as messages.", field=field)
    chosen = await _choose(request, body)
    if body.messages and chosen.task != "text-generation":
        raise BadInput(
            "Only text generation takes messages", f"The task is {chosen.task}: send a prompt.", field="messages"
        )
    if body.stop and chosen.task == "extractive-question-answering":
        raise BadInput("A question's answer stands in its context", "Leave stop out.", field="stop")
    if body.top_logprobs is not None and chosen.task == "extractive-question-answering":
        raise BadInput("A question's answer has one score", "Leave top_logprobs out.", field="top_logprobs")
    deadline = request.app[SETTINGS].playground_deadline_seconds

    def ask(number: int) -> wire.Generate:
        return wire.Generate(
            id=number,
            model_path=chosen.model_path,
            adapter_path=chosen.adapter_path,
            prompt=body.prompt or "",
            max_new_tokens=body.max_new_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            seed=body.seed,
            deadline_seconds=deadline,
            task=chosen.task,
            context=body.context,
            turns=tuple(wire.ChatTurn(role=turn.role, content=turn.content) for turn in body.messages),
            stop=body.stop,
            top_logprobs=body.top_logprobs,
        )

    return ask


async def _choose(request: web.Request, body: GenerateBody) -> Chosen:
    if isinstance(body.base_model, str):
        if body.model_id:
            raise BadInput(
                "model_id and the name of a base_model do not go together",
                'Send one of them, or "base_model": true for the base of that model.',
                field="base_model",
            )
        task = _with_context(body, _asked_task(body) or "text-generation")
        roots = request.app[ADMISSION].model_roots
        return Chosen(
            task, await check_model(body.base_model, roots, "base_model", Purpose(task, "sft", "huggingface"))
        )
    if body.model_id == 0:
        return _newest_base(request, body)
    details = find_model(request, body.model_id)
    if body.task not in (None, details.task):
        raise BadInput("The model is for another task", f"Model {details.id} is for {details.task}.", field="task")
    task = _with_context(body, details.task)
    return Chosen(task, details.base_path) if body.base_model else trained(details)


def _newest_base(request: web.Request, body: GenerateBody) -> Chosen:
    """The base of the newest model, or of the newest one for the task that is asked for."""
    task = _asked_task(body)
    newest = request.app[PROJECTOR].indexes.newest_model(task)
    if newest is not None:
        return Chosen(_with_context(body, newest.task), newest.base_path)
    if task == "extractive-question-answering":
        raise BadInput(
            "There is no model for question answering",
            "None was trained yet; name one as base_model, or leave context out to ask for a text.",
            field="task" if body.task else "context",
        )
    return Chosen(_with_context(body, task or "text-generation"), wire.BUILT_IN_MODEL)


def _asked_task(body: GenerateBody) -> wire.Task | None:
    """The task that a request for a base model is for, if it says: a context is for question answering."""
    return body.task or (None if body.context is None else "extractive-question-answering")


def _with_context(body: GenerateBody, task: wire.Task) -> wire.Task:
    """The task, whose prompt has a context if it is question answering, and none if it is not."""
    answers = task == "extractive-question-answering"
    if answers and (body.context is None or not body.context.strip()):
        raise BadInput(
            "A question needs a context", "Send the text that the answer stands in as context.", field="context"
        )
    if not answers and body.context is not None:
        raise BadInput(
            "Only question answering takes a context",
            f"The task is {task}: leave context out, or put it into the prompt.",
            field="context",
        )
    return task


def _answer(message: wire.Generated) -> Answer:
    found = message.score is not None
    return Answer(
        generated_text=message.text,
        tokens_generated=message.tokens,
        generation_time_ms=message.milliseconds,
        finish_reason=message.finish,
        score=UNSET if message.score is None else message.score,
        start=message.start if found else UNSET,
        end=message.end if found else UNSET,
        logprobs=message.logprobs or UNSET,
    )


async def _events(answer: AsyncGenerator[Message, None]) -> AsyncGenerator[bytes, None]:
    """`token` with each piece, then `done` with the whole."""
    async with aclosing(answer):
        async for message in answer:
            yield _event(message)


def _event(message: Message) -> bytes:
    if isinstance(message, wire.Token):
        return _sse("token", Piece(text=message.text, logprobs=message.logprobs or UNSET))
    return _sse("done", _answer(message))


def _told(error: Exception) -> bytes:
    return _sse("error", problems.problem_of(error))


def _sse(event: Literal["token", "done", "error"], data: Struct) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event.encode(), msgspec.json.encode(data))


ROUTES = (
    Route(
        method="POST",
        path="/api/playground/generate",
        handler=generate,
        body=GenerateBody,
        answer=Answer,
        streams=(Streamed("token", Piece), Streamed("done", Answer), Streamed("error", problems.Problem)),
        errors=(400, 404, 409, 503),
    ),
)
