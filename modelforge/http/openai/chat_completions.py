"""Chats of OpenAI's clients: answers of a model, whole or as they come."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Literal

from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from modelforge.fields import project_struct
from modelforge.http.generation import answer_once, send_events, told_to_the_end
from modelforge.http.openai.answering import (
    DONE,
    AnswerHead,
    Usage,
    answers_to,
    data_event,
    finish_of,
    head_of,
    new_id,
    refuse_streamed_key,
    told_error,
    usage_of,
    whole_answers,
)
from modelforge.http.openai.chat_request import AskedChat, ChatBody, chat_of
from modelforge.http.openai.logprobs import ContentLogprob, logprobs_of
from modelforge.http.openai.named_models import NamedModel, find_named_model
from modelforge.http.openai.tool_calls import Call, CallReader
from modelforge.http.plumbing.body import idempotency_key, read_body
from modelforge.http.plumbing.openai_errors import ErrorAnswer
from modelforge.http.plumbing.route import Route, Streamed
from trainer_entry import wire

ChatFinish = Literal["stop", "length", "tool_calls"]


class ChatLogprobs(Struct, frozen=True, kw_only=True):
    """The probabilities of an answer's tokens, as natural logarithms, before temperature and top_p."""

    content: list[ContentLogprob]
    refusal: None = None


class AnsweredFunction(Struct, frozen=True, kw_only=True):
    """A function that the model calls. `arguments`: the JSON of an object."""

    name: str
    arguments: str


class AnsweredCall(Struct, frozen=True, kw_only=True):
    """A call in an answer; in a stream it has its `index`, and comes whole."""

    index: int | UnsetType = UNSET
    id: str
    type: Literal["function"] = "function"
    function: AnsweredFunction


class ChatAnswer(Struct, frozen=True, kw_only=True):
    """What the model said, or the calls that it made; null where it made calls and said nothing."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[AnsweredCall] | UnsetType = UNSET


class ChatChoice(Struct, frozen=True, kw_only=True):
    """One answer."""

    index: int
    message: ChatAnswer
    finish_reason: ChatFinish
    logprobs: ChatLogprobs | None


class ChatCompletion(AnswerHead, frozen=True, kw_only=True):
    """The answers to a chat."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]
    usage: Usage
    service_tier: Literal["default"] = "default"


class ChatDelta(Struct, frozen=True, kw_only=True):
    """What comes to an answer."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: list[AnsweredCall] | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True, kw_only=True):
    """A part of one answer; the last one has a `finish_reason`."""

    index: int
    delta: ChatDelta
    finish_reason: ChatFinish | None = None
    logprobs: ChatLogprobs | None = None


class ChatCompletionChunk(AnswerHead, frozen=True, kw_only=True):
    """A part of the answers to a chat."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    service_tier: Literal["default"] = "default"


def _logprobs(tokens: Sequence[wire.TokenLogprob]) -> ChatLogprobs:
    return ChatLogprobs(content=logprobs_of(tokens))


def _called(call: Call, index: int | UnsetType = UNSET) -> AnsweredCall:
    function = AnsweredFunction(name=call.name, arguments=call.arguments)
    return AnsweredCall(index=index, id=new_id("call_"), function=function)


def _choice(index: int, answer: wire.Generated, asked: AskedChat) -> ChatChoice:
    text, calls = answer.text, []
    if asked.offered:
        reader = CallReader(asked.offered)
        parts = [*reader.take(text), *reader.end()]
        text = "".join(part for part in parts if isinstance(part, str))
        calls = [_called(part) for part in parts if isinstance(part, Call)]
    return ChatChoice(
        index=index,
        message=ChatAnswer(content=text if text or not calls else None, tool_calls=calls or UNSET),
        finish_reason="tool_calls" if calls else finish_of(answer),
        logprobs=None if asked.sampling.top_logprobs is None else _logprobs(answer.logprobs),
    )


async def _whole(request: web.Request, body: ChatBody) -> ChatCompletion:
    model = find_named_model(request, body.model)
    asked = chat_of(body, model)
    prompts = [asked.prompt] * (body.n or 1)
    found = await whole_answers(answers_to(request, model, prompts, asked.sampling, "messages"))
    choices = [_choice(index, answer, asked) for index, answer in enumerate(found)]
    return project_struct(
        head_of("chatcmpl-", model, asked.notes),
        ChatCompletion,
        object="chat.completion",
        choices=choices,
        usage=usage_of(found),
        service_tier="default",
    )


class _Stream:
    """The chunks of one request: all have the same id and time."""

    def __init__(self, body: ChatBody, model: NamedModel, asked: AskedChat) -> None:
        self._body, self._model, self._asked = body, model, asked
        self._head = head_of("chatcmpl-", model, asked.notes)
        options = body.stream_options
        self._with_usage = options is not None and bool(options.include_usage)

    async def events(self, request: web.Request) -> AsyncGenerator[bytes, None]:
        """All of them, as the answers come."""
        prompts = [self._asked.prompt] * (self._body.n or 1)
        parts = [_Parts(index, self._asked) for index in range(len(prompts))]
        begun = False
        ends: list[wire.Generated] = []
        answers = answers_to(request, self._model, prompts, self._asked.sampling, "messages")
        async with aclosing(answers):
            async for index, message in answers:
                if not begun:  # all in their order: the client puts none together that comes before an earlier one
                    begun = True
                    for place in range(len(parts)):
                        yield self._event(ChunkChoice(index=place, delta=ChatDelta(role="assistant", content="")))
                if isinstance(message, wire.Generated):
                    ends.append(message)
                    choices = parts[index].end(message)
                else:
                    choices = parts[index].take(message)
                for choice in choices:
                    yield self._event(choice)
        if self._with_usage:
            yield self._event(None, usage=usage_of(ends))
        yield DONE

    def _event(self, choice: ChunkChoice | None, usage: Usage | None = None) -> bytes:
        return data_event(
            project_struct(
                self._head,
                ChatCompletionChunk,
                object="chat.completion.chunk",
                choices=[] if choice is None else [choice],
                usage=usage if self._with_usage else UNSET,
                service_tier="default",
            )
        )


class _Parts:
    """The parts of one answer. Probabilities wait with the text that is not certain yet."""

    def __init__(self, index: int, asked: AskedChat) -> None:
        self._index = index
        self._reader = CallReader(asked.offered) if asked.offered else None
        self._with_logprobs = asked.sampling.top_logprobs is not None
        self._logprobs: list[wire.TokenLogprob] = []
        self._calls = 0

    def take(self, token: wire.Token) -> Iterator[ChunkChoice]:
        """What is certain with the next piece."""
        self._logprobs += token.logprobs
        for part in [token.text] if self._reader is None else self._reader.take(token.text):
            yield self._part(part)

    def end(self, end: wire.Generated) -> Iterator[ChunkChoice]:
        """What is left, and the end."""
        for part in () if self._reader is None else self._reader.end():
            yield self._part(part)
        reason: ChatFinish = "tool_calls" if self._calls else finish_of(end)
        left = self._taken() if self._logprobs else None
        yield ChunkChoice(index=self._index, delta=ChatDelta(), finish_reason=reason, logprobs=left)

    def _part(self, part: str | Call) -> ChunkChoice:
        if isinstance(part, str):
            delta = ChatDelta(content=part)
        else:
            delta = ChatDelta(tool_calls=[_called(part, self._calls)])
            self._calls += 1
        return ChunkChoice(index=self._index, delta=delta, logprobs=self._taken())

    def _taken(self) -> ChatLogprobs | None:
        taken, self._logprobs = self._logprobs, []
        return _logprobs(taken) if self._with_logprobs else None


async def create_chat_completion(request: web.Request) -> web.StreamResponse:
    """Go on with a chat; with `"stream": true` the answer comes as server-sent events."""
    key = await idempotency_key(request)
    body = await read_body(request, ChatBody)
    if not body.stream:
        return await answer_once(request, key, lambda: _whole(request, body))
    refuse_streamed_key(key)
    model = find_named_model(request, body.model)
    stream = _Stream(body, model, chat_of(body, model))
    return await send_events(request, told_to_the_end(stream.events(request), told_error))


ROUTES = (
    Route(
        method="POST",
        path="/v1/chat/completions",
        handler=create_chat_completion,
        body=ChatBody,
        answer=ChatCompletion,
        streams=(Streamed("message", ChatCompletionChunk), Streamed("message", ErrorAnswer)),
        errors=(400, 404, 409, 429, 503),
    ),
)
