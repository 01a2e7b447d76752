"""An answer of a model, for whichever surface asks: what is loaded, what is refused, and its end when nobody waits."""

import collections
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from aiohttp import web
from msgspec import Struct

from modelforge.domain.idempotency import IdempotencyKey
from modelforge.errors import BadInput, Conflict, ContextExceeded, PlaygroundFailed
from modelforge.http.plumbing.disconnect import cancel_on_disconnect
from modelforge.http.plumbing.frames import encoded
from modelforge.http.plumbing.keys import PLAYGROUND
from modelforge.http.plumbing.visits import CLIENT
from modelforge.projections.models import ModelDetails
from trainer_entry import wire

_ANSWERS_KEPT = 100
_BYTES_KEPT = 64 << 20
"""Of them together: one with probabilities of many tokens has megabytes."""
_TOO_LONG = "PromptTooLong"
_OF_THE_PROMPT = frozenset({"PromptEmpty", "UnknownToken"})
_OF_THE_MODEL = frozenset({"ModelUnavailable", "NoChatTemplate", "ChatTemplateFails", "TokenWithoutEmbedding"})
"""Failures of the worker, by name: of these another model has none."""
_STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}

Message = wire.Token | wire.Generated
Ask = Callable[[int], wire.Generate]
"""Makes the prompt for the worker, with the id that it is given."""


class Chosen(Struct, frozen=True):
    """What to load: a base model or a full one, and an adapter if there is one."""

    task: wire.Task
    model_path: str
    adapter_path: str | None = None


class Blamed(Struct, frozen=True):
    """What a request calls its prompt and its model, for refusals."""

    prompt: str
    model: str


def trained(details: ModelDetails) -> Chosen:
    """What to load for a trained model."""
    if details.kind == "adapter":
        return Chosen(details.task, details.base_path, details.path)
    return Chosen(details.task, details.path)


async def answer_to(request: web.Request, ask: Ask, blamed: Blamed) -> AsyncGenerator[Message, None]:
    """The answer as it comes, to its end or until the client is gone.

    Raises:
        BadInput: the worker cannot answer this request, and could answer another; it says what to change.
        ConnectionResetError: the client is gone.
    """
    async with aclosing(request.app[PLAYGROUND].generate(ask, request[CLIENT])) as messages:
        try:
            while (message := await cancel_on_disconnect(request, _next(messages))) is not None:
                yield message
        except PlaygroundFailed as error:
            if (refusal := _refusal(error, blamed)) is not None:
                raise refusal from error
            raise


async def _next(messages: AsyncIterator[Message]) -> Message | None:
    return await anext(messages, None)


def _refusal(error: PlaygroundFailed, blamed: Blamed) -> BadInput | None:
    """What to change in a request that the worker could not answer; None where it is not the request."""
    said = error.detail.removeprefix(f"{error.kind}: ")
    if error.kind == _TOO_LONG:
        detail = f"{said} Send a shorter one, or name a model that takes more."
        return ContextExceeded("The prompt is too long for the model", detail, field=blamed.prompt)
    if error.kind in _OF_THE_PROMPT:
        return BadInput(error.message, said, field="logit_bias" if "; logit_bias " in said else blamed.prompt)
    if error.kind in _OF_THE_MODEL:
        return BadInput(error.message, f"{said} Or name another model.", field=blamed.model)
    return None


async def whole(answer: AsyncGenerator[Message, None]) -> wire.Generated:
    """The end of an answer, which has all of it."""
    async with aclosing(answer) as pieces:
        (end,) = [message async for message in pieces if isinstance(message, wire.Generated)]
    return end


async def send_events(request: web.Request, events: AsyncGenerator[bytes, None]) -> web.StreamResponse:
    """Server-sent events, each on its way at once; a client that is gone ends what makes them.

    What is raised before the first one is an error of the request: the status line waits for it.
    """
    async with aclosing(events):
        first = await anext(events)
        response = web.StreamResponse(headers=_STREAM)
        await response.prepare(request)
        await response.write(first)
        async for event in events:
            await response.write(event)
    await response.write_eof()
    return response


async def told_to_the_end(
    events: AsyncGenerator[bytes, None], tell: Callable[[Exception], bytes]
) -> AsyncGenerator[bytes, None]:
    """Events, and as the last of them what went wrong amid them, be it ours to mend.

    Raises:
        ConnectionError: the client is gone.
        Exception: it went wrong before the first one.
    """
    begun = False
    async with aclosing(events):
        try:
            async for event in events:
                yield event
                begun = True
        except ConnectionError:
            raise  # nobody reads a last word
        except Exception as error:
            if not begun:
                raise  # a model that cannot be loaded is an error, not a stream
            yield tell(error)


class GivenAnswers:
    """The last answers that had a key, as they were sent, so that the same request gets the same answer again."""

    def __init__(self) -> None:
        self._answers: collections.OrderedDict[str, tuple[str, bytes]] = collections.OrderedDict()
        self._bytes = 0

    def find(self, key: IdempotencyKey | None) -> bytes | None:
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

    def keep(self, key: IdempotencyKey | None, given: bytes) -> None:
        """Remember an answer, and forget the oldest; one that is larger than all may be is not remembered."""
        if key is None:
            return
        _, earlier = self._answers.pop(key.value, ("", b""))
        self._answers[key.value] = (key.request_sha256, given)
        self._bytes += len(given) - len(earlier)
        while len(self._answers) > _ANSWERS_KEPT or self._bytes > _BYTES_KEPT:
            _, (_, oldest) = self._answers.popitem(last=False)
            self._bytes -= len(oldest)


GIVEN_ANSWERS = web.AppKey("given_answers", GivenAnswers)


async def answer_once(
    request: web.Request, key: IdempotencyKey | None, answer: Callable[[], Awaitable[Struct]]
) -> web.Response:
    """A whole answer as JSON; the one that was given before, where there is one for the request's key.

    Raises:
        Conflict: the key stands for another prompt.
    """
    given = request.app[GIVEN_ANSWERS]
    content = given.find(key)
    if content is None:
        content = encoded(await answer())
        given.keep(key, content)
    return web.Response(body=content, content_type="application/json")
