"""The answers to the prompts of a request, one after the other, and what all kinds of answers have alike."""

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Literal

from aiohttp import web
from msgspec import Struct

from modelforge.domain.idempotency import IdempotencyKey
from modelforge.errors import BadInput, ForgeError
from modelforge.http.generation import Blamed, Message, answer_to
from modelforge.http.openai.named_models import NamedModel
from modelforge.http.openai.sampling import Prompt, Sampling, asking
from modelforge.http.plumbing import openai_errors, problems
from modelforge.http.plumbing.frames import encoded
from modelforge.http.plumbing.keys import SETTINGS
from trainer_entry import wire

_LEAST_SECONDS = 1.0
DONE = b"data: [DONE]\n\n"
FinishReason = Literal["stop", "length"]


class Usage(Struct, frozen=True, kw_only=True):
    """The tokens that were read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Written(Struct, frozen=True, kw_only=True):
    """A whole answer, with the probabilities of its tokens, if they were asked for."""

    end: wire.Generated
    logprobs: tuple[wire.TokenLogprob, ...]


def finish_of(end: wire.Generated) -> FinishReason:
    """Why an answer ended: `length` at its limit in tokens, or in time."""
    return "stop" if end.finish == "stop" else "length"


def usage_of(ends: Sequence[wire.Generated], prompts: int = 1) -> Usage:
    """The tokens of all answers; each prompt is counted once, however many answers there are to it."""
    each = max(1, len(ends) // prompts)
    read, wrote = sum(end.prompt_tokens for end in ends[::each]), sum(end.tokens for end in ends)
    return Usage(prompt_tokens=read, completion_tokens=wrote, total_tokens=read + wrote)


def new_id(prefix: str) -> str:
    """An id that no other answer has."""
    return f"{prefix}{secrets.token_hex(12)}"


def now() -> int:
    """Unix seconds."""
    return int(time.time())


async def answers_to(
    request: web.Request, model: NamedModel, prompts: Sequence[Prompt], sampling: Sampling, field: str
) -> AsyncGenerator[tuple[int, Message], None]:
    """The pieces of all answers, each with the place of its prompt; together they have the time of one.

    Raises:
        BadInput, PlaygroundFailed, TooMuchWork, TooManyRequests, ConnectionResetError: as one answer does.
    """
    left = request.app[SETTINGS].playground_deadline_seconds
    for place, prompt in enumerate(prompts):
        ask = asking(model, prompt, sampling, place, left)
        async with aclosing(answer_to(request, ask, Blamed(field, "model"))) as messages:
            async for message in messages:
                yield place, message
                if isinstance(message, wire.Generated):
                    left = max(_LEAST_SECONDS, left - message.milliseconds / 1000)


async def whole_answers(answers: AsyncGenerator[tuple[int, Message], None]) -> list[Written]:
    """The answers, once all are there."""
    found: list[Written] = []
    logprobs: list[wire.TokenLogprob] = []
    async with aclosing(answers):
        async for _, message in answers:
            if isinstance(message, wire.Generated):
                found.append(Written(end=message, logprobs=message.logprobs or tuple(logprobs)))
                logprobs = []
            else:
                logprobs += message.logprobs
    return found


def refuse_streamed_key(key: IdempotencyKey | None) -> None:
    """Refuse a key where the answer is not kept.

    Raises:
        BadInput: there is one.
    """
    if key is not None:
        raise BadInput("A stream is not kept, and cannot be had again", "Send no Idempotency-Key with stream: true.")


def data_event(data: Struct) -> bytes:
    """An event without a name."""
    return b"data: %s\n\n" % encoded(data)


def told_error(error: ForgeError) -> bytes:
    """What went wrong amid a stream; the client raises it."""
    return data_event(openai_errors.answer_of(problems.problem_of(error), error))
