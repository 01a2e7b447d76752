"""Trying a model: one prompt, one answer, whole or as it comes."""

import collections
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from modelforge.admission.model import check_model
from modelforge.domain.compatibility import Purpose
from modelforge.domain.idempotency import IdempotencyKey
from modelforge.errors import BadInput, Conflict, ForgeError, PlaygroundFailed
from modelforge.http.models import find_model
from modelforge.http.plumbing import problems
from modelforge.http.plumbing.body import idempotency_key, json_response, read_body
from modelforge.http.plumbing.disconnect import cancel_on_disconnect
from modelforge.http.plumbing.keys import ADMISSION, PLAYGROUND, PROJECTOR, SETTINGS
from modelforge.http.plumbing.route import Route, Streamed
from modelforge.http.plumbing.visits import CLIENT
from trainer_entry import wire

_ANSWERS_KEPT = 100
_TOO_LONG = "PromptTooLong"
_OF_THE_MODEL = frozenset({"ModelUnavailable", "NoChatTemplate", "ChatTemplateFails"})
"""Failures of the worker, by name: of these another model has none."""
_STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}


class GenerateBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A prompt. `model_id` 0 is an untuned base model: the newest model's, or the one that `base_model` names.

    `base_model` true asks the base model of `model_id`. `temperature` 0 always takes the likeliest token.
    For summarization, `prompt` is the document. For question answering, it is the question, and `context` the text
    that the answer stands in. `task` chooses for a base model; a trained model has its own.
    """

    prompt: Annotated[str, Meta(min_length=1, max_length=100_000)]
    context: Annotated[str, Meta(min_length=1, max_length=500_000)] | None = None
    task: wire.Task | None = None
    model_id: Annotated[int, Meta(ge=0)] = 0
    base_model: bool | Annotated[str, Meta(min_length=1, max_length=1000)] = False
    max_new_tokens: Annotated[int, Meta(ge=1, le=8192)] = 256
    temperature: Annotated[float, Meta(ge=0, le=10)] = 0.7
    top_p: Annotated[float, Meta(gt=0, le=1)] = 0.9
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None
    stream: bool = False


class Answer(Struct, frozen=True, kw_only=True):
    """What the model said. `finish_reason`: `stop`, `length` (max_new_tokens) or `deadline`.

    Question answering alone has a `score`, from 0 to 1, and says where in the context the answer stands: from the
    character `start` to the one before `end`. Both are null, and the text is empty, if the model finds none.
    """

    generated_text: str
    tokens_generated: int
    generation_time_ms: int
    finish_reason: str
    score: float | UnsetType = UNSET
    start: int | UnsetType | None = UNSET
    end: int | UnsetType | None = UNSET


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
        return web.Response(body=_sse("done", before), headers=_STREAM) if body.stream else json_response(before)
    ask = await _prompt(request, body)
    if body.stream:
        return await _stream(request, _pieces(request, body, ask))
    whole = await cancel_on_disconnect(request, _whole(_pieces(request, body, ask)))
    given.keep(key, _answer(whole))
    return json_response(_answer(whole))


async def _whole(answer: AsyncGenerator[wire.Token | wire.Generated, None]) -> wire.Generated:
    async with aclosing(answer) as pieces:
        (whole,) = [message async for message in pieces if isinstance(message, wire.Generated)]
    return whole


async def _pieces(
    request: web.Request, body: GenerateBody, ask: Callable[[int], wire.Generate]
) -> AsyncGenerator[wire.Token | wire.Generated, None]:
    """The answer as it comes; a failure that another request would not have is a refusal of this one."""
    async with aclosing(request.app[PLAYGROUND].generate(ask, request[CLIENT])) as messages:
        try:
            async for message in messages:
                yield message
        except PlaygroundFailed as error:
            if (refusal := _refusal(error, body)) is not None:
                raise refusal from error
            raise


def _refusal(error: PlaygroundFailed, body: GenerateBody) -> BadInput | None:
    """What to change in a request that the worker could not answer; None where it is not the request."""
    said = error.detail.removeprefix(f"{error.kind}: ")
    if error.kind == _TOO_LONG:
        detail = f"{said} Send a shorter one, or name a model that takes more."
        return BadInput("The prompt is too long for the model", detail, field="prompt")
    if error.kind in _OF_THE_MODEL:
        field = "base_model" if body.base_model or not body.model_id else "model_id"
        return BadInput(error.message, f"{said} Or name another model.", field=field)
    return None


class _Chosen(Struct, frozen=True):
    """What to load: a base model or a full one, and an adapter if there is one."""

    task: wire.Task
    model_path: str
    adapter_path: str | None = None


async def _prompt(request: web.Request, body: GenerateBody) -> Callable[[int], wire.Generate]:
    chosen = await _choose(request, body)
    deadline = request.app[SETTINGS].playground_deadline_seconds

    def ask(number: int) -> wire.Generate:
        return wire.Generate(
            id=number,
            model_path=chosen.model_path,
            adapter_path=chosen.adapter_path,
            prompt=body.prompt,
            max_new_tokens=body.max_new_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            seed=body.seed,
            deadline_seconds=deadline,
            task=chosen.task,
            context=body.context,
        )

    return ask


async def _choose(request: web.Request, body: GenerateBody) -> _Chosen:
    if isinstance(body.base_model, str):
        if body.model_id:
            raise BadInput(
                "model_id and the name of a base_model do not go together",
                'Send one of them, or "base_model": true for the base of that model.',
                field="base_model",
            )
        task = _with_context(body, _asked_task(body) or "text-generation")
        roots = request.app[ADMISSION].model_roots
        return _Chosen(
            task, await check_model(body.base_model, roots, "base_model", Purpose(task, "sft", "huggingface"))
        )
    if body.model_id == 0:
        return _newest_base(request, body)
    details = find_model(request, body.model_id)
    if body.task not in (None, details.task):
        raise BadInput("The model is for another task", f"Model {details.id} is for {details.task}.", field="task")
    task = _with_context(body, details.task)
    if body.base_model:
        return _Chosen(task, details.base_path)
    if details.kind == "adapter":
        return _Chosen(task, details.base_path, details.path)
    return _Chosen(task, details.path)


def _newest_base(request: web.Request, body: GenerateBody) -> _Chosen:
    """The base of the newest model, or of the newest one for the task that is asked for."""
    models, task = request.app[PROJECTOR].read_models.models, _asked_task(body)
    numbers = [number for number, details in models.items() if task in (None, details.task)]
    if numbers:
        newest = models[max(numbers)]
        return _Chosen(_with_context(body, newest.task), newest.base_path)
    if task == "extractive-question-answering":
        raise BadInput(
            "There is no model for question answering",
            "None was trained yet; name one as base_model, or leave context out to ask for a text.",
            field="task" if body.task else "context",
        )
    return _Chosen(_with_context(body, task or "text-generation"), wire.BUILT_IN_MODEL)


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
    )


async def _stream(
    request: web.Request, pieces: AsyncGenerator[wire.Token | wire.Generated, None]
) -> web.StreamResponse:
    """Server-sent events: `token` with each piece, then `done` with the whole, or `error`."""
    # The first piece comes before the status line: a model that cannot be loaded is an error, not a stream.
    first = await cancel_on_disconnect(request, _first(pieces))
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


async def _first(pieces: AsyncGenerator[wire.Token | wire.Generated, None]) -> wire.Token | wire.Generated:
    return await anext(pieces)


def _event(message: wire.Token | wire.Generated) -> bytes:
    if isinstance(message, wire.Token):
        return _sse("token", Piece(text=message.text))
    return _sse("done", _answer(message))


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
