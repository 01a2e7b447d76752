"""The answers to the prompts of a request, a few at once, and what all kinds of answers have alike."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Literal

from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from modelforge.domain.idempotency import IdempotencyKey
from modelforge.errors import BadInput
from modelforge.http.generation import Blamed, Message, answer_to
from modelforge.http.openai.named_models import NamedModel
from modelforge.http.openai.sampling import Prompt, Sampling, asking
from modelforge.http.openai.unkept import Notes
from modelforge.http.plumbing import openai_errors, problems
from modelforge.http.plumbing.frames import encoded
from modelforge.http.plumbing.keys import SETTINGS
from trainer_entry import wire

_AT_ONCE = 4
"""How many answers of one request are written together; more of them than that would be all that the worker does."""
_MOST_UNREAD = 64
DONE = b"data: [DONE]\n\n"
FinishReason = Literal["stop", "length"]


class Usage(Struct, frozen=True, kw_only=True):
    """The tokens that were read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerHead(Struct, frozen=True, kw_only=True):
    """What every completion says of itself, whole or in chunks, all of which say the same. `created`: Unix seconds."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    modelforge: Notes | UnsetType = UNSET


def head_of(prefix: str, model: NamedModel, notes: Notes | None) -> AnswerHead:
    """The head of a new answer."""
    return AnswerHead(
        id=new_id(prefix),
        created=now(),
        model=model.name,
        system_fingerprint=model.fingerprint,
        modelforge=UNSET if notes is None else notes,
    )


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
    """The pieces of all answers as they come, each with the place of its prompt; a few are asked for at once.

    Raises:
        BadInput, PlaygroundFailed, TooMuchWork, TooManyRequests, ConnectionResetError: as one answer does.
    """
    deadline = request.app[SETTINGS].playground_deadline_seconds
    came: asyncio.Queue[tuple[int, Message] | Exception] = asyncio.Queue(_MOST_UNREAD)
    places = asyncio.Semaphore(_AT_ONCE)

    async def follow(place: int, prompt: Prompt) -> None:
        answer = answer_to(request, asking(model, prompt, sampling, place, deadline), Blamed(field, "model"))
        try:
            async with places, aclosing(answer):
                async for message in answer:
                    await came.put((place, message))
        except Exception as error:  # noqa: BLE001 - it is raised where the answers are read
            await came.put(error)

    asked = [asyncio.get_running_loop().create_task(follow(place, prompt)) for place, prompt in enumerate(prompts)]
    left = len(asked)
    try:
        while left:
            piece = await came.get()
            if isinstance(piece, Exception):
                raise piece
            left -= isinstance(piece[1], wire.Generated)
            yield piece
    finally:
        for one in asked:
            one.cancel()
        await asyncio.wait(asked)


async def whole_answers(answers: AsyncGenerator[tuple[int, Message], None]) -> list[wire.Generated]:
    """The answers in the order of their prompts, once all are there."""
    async with aclosing(answers):
        found = {place: message async for place, message in answers if isinstance(message, wire.Generated)}
    return [found[place] for place in sorted(found)]


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


def told_error(error: Exception) -> bytes:
    """What went wrong amid a stream; the client raises it, and of what is ours to mend the log has the trace."""
    return data_event(openai_errors.answer_of(problems.problem_of(error), error))
