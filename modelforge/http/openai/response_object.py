"""The response object: how it begins, and how it ends."""

from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from modelforge.http.openai.answering import new_id, now
from modelforge.http.openai.logprobs import ContentLogprob, logprobs_of
from modelforge.http.openai.response_request import AskedResponse, ResponseBody
from modelforge.http.openai.unkept import Notes
from trainer_entry import wire

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class AnswerText(Struct, frozen=True, kw_only=True):
    """What the model said."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: tuple[str, ...] = ()
    logprobs: list[ContentLogprob] = []


class OutputMessage(Struct, frozen=True, kw_only=True):
    """The message that the model answered."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: ItemStatus
    content: list[AnswerText]


class InputDetails(Struct, frozen=True, kw_only=True):
    """No prompt is kept for another."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputDetails(Struct, frozen=True, kw_only=True):
    """What is thought is a part of the answer."""

    reasoning_tokens: int = 0


class ResponseUsage(Struct, frozen=True, kw_only=True):
    """The tokens that were read and written."""

    input_tokens: int
    input_tokens_details: InputDetails = InputDetails()
    output_tokens: int
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int


class IncompleteDetails(Struct, frozen=True, kw_only=True):
    """The answer was cut off: at its limit in tokens, or at the end of its time."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseFailure(Struct, frozen=True, kw_only=True):
    """Why there is no answer."""

    code: str
    message: str


class TextFormat(Struct, frozen=True, kw_only=True):
    """No shape is enforced."""

    type: Literal["text"] = "text"


class TextOptions(Struct, frozen=True, kw_only=True):
    """How the answer is written."""

    format: TextFormat = TextFormat()


class ResponseObject(Struct, frozen=True, kw_only=True):
    """A response. Nothing of it is stored."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Literal["in_progress", "completed", "incomplete", "failed"] = "in_progress"
    background: bool = False
    error: ResponseFailure | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputMessage] = []
    parallel_tool_calls: bool = True
    previous_response_id: None = None
    service_tier: Literal["default"] = "default"
    store: bool = False
    temperature: float
    text: TextOptions = TextOptions()
    tool_choice: str = "auto"
    tools: tuple[str, ...] = ()
    top_logprobs: int | None = None
    top_p: float
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    modelforge: Notes | UnsetType = UNSET


def begun(body: ResponseBody, asked: AskedResponse) -> ResponseObject:
    """A response of which nothing is there yet."""
    return ResponseObject(
        id=new_id("resp_"),
        created_at=now(),
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        metadata=body.metadata or {},
        model=body.model,
        temperature=asked.sampling.temperature,
        tool_choice=body.tool_choice or "auto",
        top_logprobs=asked.sampling.top_logprobs,
        top_p=asked.sampling.top_p,
        modelforge=UNSET if asked.notes is None else asked.notes,
    )


def ended(response: ResponseObject, end: wire.Generated, message_id: str | None = None) -> ResponseObject:
    """The response with its answer."""
    whole = end.finish == "stop"
    message = OutputMessage(
        id=message_id or new_id("msg_"),
        status="completed" if whole else "incomplete",
        content=[AnswerText(text=end.text, logprobs=logprobs_of(end.logprobs))],
    )
    return msgspec.structs.replace(
        response,
        status="completed" if whole else "incomplete",
        completed_at=now() if whole else None,
        incomplete_details=None if whole else IncompleteDetails(),
        output=[message],
        usage=ResponseUsage(
            input_tokens=end.prompt_tokens, output_tokens=end.tokens, total_tokens=end.prompt_tokens + end.tokens
        ),
    )
