"""The events of a response as it comes, in the order in which OpenAI's clients put it together."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

from msgspec import Struct

from modelforge.http.generation import Message
from modelforge.http.openai.answering import new_id
from modelforge.http.openai.logprobs import ContentLogprob, logprobs_of
from modelforge.http.openai.response_object import AnswerText, OutputMessage, ResponseObject, ended
from modelforge.http.plumbing import openai_errors, problems
from modelforge.http.plumbing.frames import encoded
from modelforge.http.plumbing.openai_errors import ErrorDetail
from modelforge.http.plumbing.route import Streamed
from trainer_entry import wire

State = Literal["response.created", "response.in_progress", "response.completed", "response.incomplete"]


class ResponseEvent(Struct, frozen=True, kw_only=True):
    """The response as it stands."""

    type: State
    sequence_number: int
    response: ResponseObject


class ItemEvent(Struct, frozen=True, kw_only=True):
    """A message begins, or is there."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    sequence_number: int
    output_index: int = 0
    item: OutputMessage


class PartEvent(Struct, frozen=True, kw_only=True):
    """A part of a message begins, or is there."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    sequence_number: int
    item_id: str
    output_index: int = 0
    content_index: int = 0
    part: AnswerText


class TextDelta(Struct, frozen=True, kw_only=True):
    """A piece of the answer."""

    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    sequence_number: int
    item_id: str
    output_index: int = 0
    content_index: int = 0
    delta: str
    logprobs: list[ContentLogprob] = []


class TextDone(Struct, frozen=True, kw_only=True):
    """The whole text of the answer."""

    type: Literal["response.output_text.done"] = "response.output_text.done"
    sequence_number: int
    item_id: str
    output_index: int = 0
    content_index: int = 0
    text: str
    logprobs: list[ContentLogprob] = []


class FailedEvent(Struct, frozen=True, kw_only=True):
    """What went wrong. In `error` as well: a client raises what stands there."""

    type: Literal["error"] = "error"
    sequence_number: int
    message: str
    code: str | None
    param: str | None
    error: ErrorDetail


AnyEvent = ResponseEvent | ItemEvent | PartEvent | TextDelta | TextDone | FailedEvent
STREAMED = (
    *(Streamed(f"response.{state}", ResponseEvent) for state in ("created", "in_progress", "completed", "incomplete")),
    Streamed("response.output_item.added", ItemEvent),
    Streamed("response.content_part.added", PartEvent),
    Streamed("response.output_text.delta", TextDelta),
    Streamed("response.output_text.done", TextDone),
    Streamed("response.content_part.done", PartEvent),
    Streamed("response.output_item.done", ItemEvent),
    Streamed("error", FailedEvent),
)


class ResponseEvents:
    """The events of one response, each with its number."""

    def __init__(self, response: ResponseObject) -> None:
        self._response = response
        self._message = new_id("msg_")
        self._next = 0

    async def of(self, answers: AsyncGenerator[tuple[int, Message], None]) -> AsyncGenerator[bytes, None]:
        """All of them, as the answer comes."""
        begun = False
        async with aclosing(answers):
            async for _, message in answers:
                if not begun:
                    begun = True
                    for event in self._beginning():
                        yield event
                if isinstance(message, wire.Token):
                    yield self._event(
                        TextDelta(
                            sequence_number=self._next,
                            item_id=self._message,
                            delta=message.text,
                            logprobs=logprobs_of(message.logprobs),
                        )
                    )
                else:
                    for event in self._ending(message):
                        yield event

    def failed(self, error: Exception) -> bytes:
        """The last one, where it went wrong amid the answer."""
        detail = openai_errors.answer_of(problems.problem_of(error), error).error
        return self._event(
            FailedEvent(
                sequence_number=self._next, message=detail.message, code=detail.code, param=detail.param, error=detail
            )
        )

    def _beginning(self) -> list[bytes]:
        empty = OutputMessage(id=self._message, status="in_progress", content=[])
        return [
            self._event(ResponseEvent(type="response.created", sequence_number=self._next, response=self._response)),
            self._event(
                ResponseEvent(type="response.in_progress", sequence_number=self._next, response=self._response)
            ),
            self._event(ItemEvent(type="response.output_item.added", sequence_number=self._next, item=empty)),
            self._event(self._part("response.content_part.added", AnswerText(text=""))),
        ]

    def _ending(self, end: wire.Generated) -> list[bytes]:
        response = ended(self._response, end, self._message)
        (item,) = response.output
        last: State = "response.completed" if response.status == "completed" else "response.incomplete"
        return [
            self._event(
                TextDone(
                    sequence_number=self._next, item_id=self._message, text=end.text, logprobs=item.content[0].logprobs
                )
            ),
            self._event(self._part("response.content_part.done", item.content[0])),
            self._event(ItemEvent(type="response.output_item.done", sequence_number=self._next, item=item)),
            self._event(ResponseEvent(type=last, sequence_number=self._next, response=response)),
        ]

    def _part(
        self, kind: Literal["response.content_part.added", "response.content_part.done"], part: AnswerText
    ) -> PartEvent:
        return PartEvent(type=kind, sequence_number=self._next, item_id=self._message, part=part)

    def _event(self, event: AnyEvent) -> bytes:
        self._next += 1
        return b"event: %s\ndata: %s\n\n" % (event.type.encode(), encoded(event))
