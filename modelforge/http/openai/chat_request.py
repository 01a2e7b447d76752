"""What OpenAI's clients ask of a chat, and the prompt that it is here."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from modelforge.errors import BadInput
from modelforge.http.openai.chat_messages import Messages, Tools, chat_prompt
from modelforge.http.openai.named_models import NamedModel
from modelforge.http.openai.sampling import MOST_TOKENS, MostTokens, Prompt, SampledBody, Sampling, sampling_of
from modelforge.http.openai.unkept import Harmless, Notes, notes_on, refuse, refuse_unkept

UNKEPT: Harmless = {
    "audio": (),
    "function_call": (),
    "functions": (),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (True,),
    "prediction": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Fields of a chat that are refused, but for these values."""
_REASONS = {
    "functions": "tools has them by their new name.",
    "response_format": "No shape is enforced: ask for it in a message.",
    "store": "Nothing is stored.",
}
NOT_USED = ("metadata", "prompt_cache_key", "safety_identifier", "user")
"""Fields of a chat that change nothing, and are named in the answer."""


class ChatBody(SampledBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A chat to go on with. `max_tokens` is the old name of `max_completion_tokens`."""

    messages: Messages
    max_completion_tokens: MostTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Tools | None = None
    tool_choice: Any = None
    metadata: dict[str, Any] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    audio: Any = None
    function_call: Any = None
    functions: Any = None
    modalities: Any = None
    moderation: Any = None
    parallel_tool_calls: Any = None
    prediction: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    reasoning_effort: Any = None
    response_format: Any = None
    service_tier: Any = None
    store: Any = None
    verbosity: Any = None
    web_search_options: Any = None


class AskedChat(Struct, frozen=True, kw_only=True):
    """A chat, ready to be asked. `offered`: the functions that may be called."""

    prompt: Prompt
    sampling: Sampling
    offered: frozenset[str]
    notes: Notes | None


def chat_of(body: ChatBody, model: NamedModel) -> AskedChat:
    """The chat that a body asks for.

    Raises:
        BadInput: it says what is not kept, or what does not go together; `field` is its path.
    """
    refuse_unkept(body, UNKEPT, _REASONS)
    if not isinstance(body.tool_choice, str) or body.tool_choice not in {"auto", "none"}:
        refuse(body.tool_choice, "tool_choice", "auto or none: no call can be made sure of.")
    tools = [] if body.tool_choice == "none" else body.tools or []
    most = body.max_completion_tokens or body.max_tokens or MOST_TOKENS
    if body.max_tokens not in {None, most}:
        raise BadInput(
            "The same parameter is there twice",
            "max_tokens is the old name of max_completion_tokens: send one.",
            field="max_tokens",
        )
    if body.top_logprobs is not None and not body.logprobs:
        raise BadInput("No probabilities are asked for", "Send logprobs: true with it.", field="top_logprobs")
    return AskedChat(
        prompt=chat_prompt(body.messages, tools, model.chosen.task),
        sampling=sampling_of(body, most, (body.top_logprobs or 0) if body.logprobs else None),
        offered=frozenset(tool.function.name for tool in tools),
        notes=notes_on(body, NOT_USED),
    )
