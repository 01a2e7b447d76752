"""What OpenAI's clients ask for as a response, and the prompt that it is here. Nothing of one is kept for the next."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from modelforge.admission.training import Metadata
from modelforge.errors import BadInput
from modelforge.http.openai.chat_messages import (
    AssistantMessage,
    Message,
    RefusalPart,
    SystemMessage,
    UserMessage,
    chat_prompt,
)
from modelforge.http.openai.named_models import NamedModel
from modelforge.http.openai.sampling import MOST_TOKENS, ModelName, MostTokens, Prompt, Sampling, Temperature, TopP
from modelforge.http.openai.unkept import Harmless, Notes, notes_on, refuse, refuse_unkept

UNKEPT: Harmless = {
    "access_programs": (),
    "background": (False,),
    "background_options": (),
    "context_management": (),
    "conversation": (),
    "image": (),
    "max_tool_calls": (),
    "moderation": (),
    "parallel_tool_calls": (True,),
    "previous_response_id": (),
    "prompt": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "reasoning": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("auto", "none"),
    "tools": (),
    "truncation": ("disabled",),
}
"""Fields of a response that are refused, but for these values."""
_STATELESS = "Nothing is stored: send what was said before in input."
_REASONS = {
    "conversation": _STATELESS,
    "previous_response_id": _STATELESS,
    "store": _STATELESS,
    "tools": "POST /v1/chat/completions takes functions.",
}
LOGPROBS = "message.output_text.logprobs"
NOT_USED = ("prompt_cache_key", "safety_identifier", "user")
"""Fields of a response that change nothing, and are named in the answer."""


class InputText(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="input_text"):
    """A part of what is said."""

    text: str


class OutputText(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="output_text"):
    """A part of an earlier answer, as it was given; its probabilities say nothing more to a model."""

    text: str
    annotations: Any = None
    logprobs: Any = None


Parts = Annotated[list[InputText | OutputText | RefusalPart], Meta(min_length=1, max_length=1000)]


class InputItem(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message; what stands in an earlier answer's `output` may come back as it is."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Parts
    id: str | None = None
    status: Any = None
    phase: Any = None


class ResponseText(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the answer is written: `format` is `{"type": "text"}`."""

    format: Any = None
    verbosity: Any = None


class ResponseStreamOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """No event is padded here."""

    include_obfuscation: bool | None = None


class ResponseBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked for, with all that was said before. `instructions` go first."""

    model: ModelName
    input: str | Annotated[list[InputItem], Meta(min_length=1, max_length=4096)]
    instructions: str | None = None
    max_output_tokens: MostTokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    text: ResponseText | None = None
    metadata: Metadata | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None
    access_programs: Any = None
    background: Any = None
    background_options: Any = None
    context_management: Any = None
    conversation: Any = None
    image: Any = None
    include: list[str] | None = None
    max_tool_calls: Any = None
    moderation: Any = None
    parallel_tool_calls: Any = None
    previous_response_id: Any = None
    prompt: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    reasoning: Any = None
    service_tier: Any = None
    store: Any = None
    tool_choice: Any = None
    tools: Any = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    truncation: Any = None


class AskedResponse(Struct, frozen=True, kw_only=True):
    """A response, ready to be asked for."""

    prompt: Prompt
    sampling: Sampling
    notes: Notes | None


def response_of(body: ResponseBody, model: NamedModel) -> AskedResponse:
    """The response that a body asks for.

    Raises:
        BadInput: it says what is not kept; `field` is its path.
    """
    refuse_unkept(body, UNKEPT, _REASONS)
    if body.text is not None:
        if body.text.format != {"type": "text"}:
            refuse(body.text.format, "text.format", 'It is {"type": "text"}: no other shape is enforced.')
        if body.text.verbosity != "medium":
            refuse(body.text.verbosity, "text.verbosity", "Leave it out.")
    if body.stream_options is not None and (not body.stream or body.stream_options.include_obfuscation):
        refuse(body.stream_options, "stream_options", "No event is padded: leave it out.")
    return AskedResponse(
        prompt=chat_prompt(_messages(body), (), model.chosen.task, "input"),
        sampling=Sampling(
            max_tokens=body.max_output_tokens or MOST_TOKENS,
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            top_logprobs=_top_logprobs(body),
        ),
        notes=notes_on(body, NOT_USED),
    )


def _top_logprobs(body: ResponseBody) -> int | None:
    """How many likely tokens are told with each; None where no probabilities are asked for.

    Raises:
        BadInput: something else is to be included.
    """
    for place, one in enumerate(body.include or ()):
        if one != LOGPROBS:
            refuse(one, f"include[{place}]", f"Of what may be included, {LOGPROBS} is kept.")
    return (body.top_logprobs or 0) if body.include or body.top_logprobs else None


def _messages(body: ResponseBody) -> list[Message]:
    """What is said, instructions first.

    Raises:
        BadInput: a part is of another role.
    """
    said: list[Message] = [] if body.instructions is None else [SystemMessage(content=body.instructions)]
    if isinstance(body.input, str):
        return [*said, UserMessage(content=body.input)]
    for place, item in enumerate(body.input):
        text = _text(item.content, item.role, f"input[{place}].content")
        match item.role:
            case "user":
                said.append(UserMessage(content=text))
            case "assistant":
                said.append(AssistantMessage(content=text))
            case "system" | "developer":
                said.append(SystemMessage(content=text))
    return said


def _text(content: str | Sequence[InputText | OutputText | RefusalPart], role: str, field: str) -> str:
    if isinstance(content, str):
        return content
    for place, part in enumerate(content):
        if isinstance(part, InputText) == (role == "assistant"):
            raise BadInput(
                "The part is of another role",
                "input_text is what users, systems and developers say; output_text and refusal are an assistant's.",
                field=f"{field}[{place}].type",
            )
        if isinstance(part, OutputText):
            refuse(part.annotations, f"{field}[{place}].annotations", "Leave it out.")
    return "".join(part.refusal if isinstance(part, RefusalPart) else part.text for part in content)
