"""The messages and tools of a chat as OpenAI's clients send them, and as the worker reads them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from modelforge.errors import BadInput, ContextExceeded
from modelforge.http.openai.sampling import Prompt
from modelforge.http.openai.unkept import refuse
from trainer_entry import wire

_MOST_MESSAGES = 4096
_MOST_TOOLS = 128
MOST_CHARACTERS = 500_000
"""Of all that is said in a chat: no model here reads more, and longer ones take their time to be told so."""

Name = Annotated[str, Meta(min_length=1, max_length=64)]
CallId = Annotated[str, Meta(min_length=1, max_length=200)]


class TextPart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="text"):
    """A part of what is said. Images, sounds and files are not read."""

    text: str


class RefusalPart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="refusal"):
    """Words with which an assistant refused."""

    refusal: str


Said = str | Annotated[list[TextPart], Meta(min_length=1, max_length=1000)]


class SystemMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="system"):
    """What the model is told of its part."""

    content: Said
    name: Name | None = None


class DeveloperMessage(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="developer"
):
    """The same, by its newer name."""

    content: Said
    name: Name | None = None


class UserMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="user"):
    """What is asked."""

    content: Said
    name: Name | None = None


class CalledFunction(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function that was called. `arguments`: the JSON of an object."""

    name: Name
    arguments: str
    parsed_arguments: Any = None


class MessageToolCall(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call in an assistant's message; one that came in a stream has its `index`."""

    id: CallId
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class AssistantMessage(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="assistant"
):
    """What a model answered before, as it was given; `parsed` is what the client makes of a schema, and null here."""

    content: str | Annotated[list[TextPart | RefusalPart], Meta(min_length=1, max_length=1000)] | None = None
    refusal: str | None = None
    name: Name | None = None
    tool_calls: Annotated[list[MessageToolCall], Meta(max_length=_MOST_TOOLS)] | None = None
    function_call: Any = None
    audio: Any = None
    annotations: Any = None
    parsed: Any = None


class ToolMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="role", tag="tool"):
    """What came of a call."""

    content: Said
    tool_call_id: CallId


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage
Messages = Annotated[list[Message], Meta(min_length=1, max_length=_MOST_MESSAGES)]


class Function(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A function that the model may call. `parameters`: a JSON schema."""

    name: Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9_.-]+$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool that the model may call."""

    type: Literal["function"]
    function: Function


Tools = Annotated[list[Tool], Meta(max_length=_MOST_TOOLS)]


def chat_prompt(messages: Sequence[Message], tools: Sequence[Tool], task: wire.Task, field: str = "messages") -> Prompt:
    """A chat as the model reads it; of a summary it is what the user said last.

    Raises:
        BadInput: a message answers no call, a call has no arguments, or the model has no use for tools.
    """
    if sum(_characters(message) for message in messages) > MOST_CHARACTERS:
        raise ContextExceeded(
            "The chat is too long", f"It may have {MOST_CHARACTERS} characters: leave earlier turns out.", field=field
        )
    if task == "summarization":
        refuse(list(tools), "tools", "The model summarizes, and calls none.")
        documents = [_text(message.content) for message in messages if isinstance(message, UserMessage)]
        if not documents or not documents[-1].strip():
            raise BadInput("There is no document", "A summary is made of what the user says last.", field=field)
        return Prompt(text=documents[-1])
    called: dict[str, str] = {}
    turns = tuple(_turn(message, f"{field}[{place}]", called) for place, message in enumerate(messages))
    return Prompt(turns=turns, tools=_schemas(tools))


def _schemas(tools: Sequence[Tool]) -> str | None:
    for place, tool in enumerate(tools):
        if tool.function.strict:
            refuse(True, f"tools[{place}].function.strict", "No schema is enforced: leave it out.")  # noqa: FBT003
    return msgspec.json.encode(tools).decode() if tools else None


def _turn(message: Message, field: str, called: dict[str, str]) -> wire.ChatTurn:
    """One message as a turn. `called`: the names of the functions that were called so far, by the ids of the calls."""
    match message:
        case SystemMessage() | DeveloperMessage():
            return wire.ChatTurn(role="system", content=_text(message.content), name=message.name)
        case UserMessage():
            return wire.ChatTurn(role="user", content=_text(message.content), name=message.name)
        case AssistantMessage():
            return _assistant_turn(message, field, called)
        case ToolMessage():
            if message.tool_call_id not in called:
                raise BadInput(
                    "No call has this id", "It is that of a call in an earlier message.", field=f"{field}.tool_call_id"
                )
            return wire.ChatTurn(
                role="tool",
                content=_text(message.content),
                tool_call_id=message.tool_call_id,
                name=called[message.tool_call_id],
            )


def _assistant_turn(message: AssistantMessage, field: str, called: dict[str, str]) -> wire.ChatTurn:
    for name in ("function_call", "audio"):
        refuse(getattr(message, name), f"{field}.{name}", "Leave it out; calls are tool_calls.")
    for name in ("annotations", "parsed"):
        refuse(getattr(message, name), f"{field}.{name}", "Leave it out.")
    calls = []
    for place, call in enumerate(message.tool_calls or ()):
        at = f"{field}.tool_calls[{place}]"
        refuse(None if call.index == place else call.index, f"{at}.index", "It is the place in the list.")
        refuse(call.function.parsed_arguments, f"{at}.function.parsed_arguments", "Leave it out.")
        try:
            msgspec.json.decode(call.function.arguments or "{}", type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadInput(
                "The arguments are no JSON object",
                "They are those of the function by their names.",
                field=f"{at}.function.arguments",
            ) from error
        called[call.id] = call.function.name
        calls.append(
            wire.ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments or "{}"),
        )
    said = _text(message.content) or message.refusal or ""
    if not said and not calls and message.content is None:
        raise BadInput(
            "The message says nothing", "An assistant's has content or tool_calls.", field=f"{field}.content"
        )
    return wire.ChatTurn(role="assistant", content=said, tool_calls=tuple(calls), name=message.name)


def _text(content: str | Sequence[TextPart | RefusalPart] | None) -> str:
    """What is said in a message; its parts follow each other."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text if isinstance(part, TextPart) else part.refusal for part in content)


def _characters(message: Message) -> int:
    calls = message.tool_calls or () if isinstance(message, AssistantMessage) else ()
    return len(_text(message.content)) + sum(len(call.function.arguments) for call in calls)
