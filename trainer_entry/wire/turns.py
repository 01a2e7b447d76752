"""What the turns of records say, whichever way they are spelled: who speaks, what is called, where a prompt ends."""

import re
from typing import Any, Literal

from msgspec import DecodeError, ValidationError, convert, json

from trainer_entry.wire.formats import (
    ContentPart,
    Conversation,
    FunctionCall,
    Message,
    Preference,
    PromptCompletion,
    Record,
    Role,
    SharedConversation,
    SharedTurn,
    ToolCall,
)

SharedRole = Literal["system", "user", "assistant", "function_call", "tool"]

ROLES: dict[str, SharedRole] = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "function_call": "function_call",
    "tool_call": "function_call",
    "observation": "tool",
    "tool": "tool",
    "ipython": "tool",
    "tool_response": "tool",
    "function_response": "tool",
}
"""The roles of the speakers in a ShareGPT conversation; a `function_call` is an assistant's turn that calls a tool."""

_Schemas = list[dict[str, Any]]
_SPOKEN = re.compile(r"(?:\A|\r?\n\r?\n)(Human|Assistant):")
_THOUGHT = re.compile(r"\s*(<think>.*?</think>)", re.DOTALL)
_SPEAKERS: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
_CALL_IN_TEXT = ("<tool_call>", "<functioncall>")
"""How an assistant's words call a tool, where its turn has no field for that."""


def speaker_of(turn: SharedTurn) -> SharedRole | None:
    """The role of who speaks; None for nobody that is known."""
    return role_named(turn.sender or turn.role or "")


def role_named(name: str) -> SharedRole | None:
    """The role of a speaker's name, in capitals or not, with `-` or `_`; None for nobody that is known."""
    return ROLES.get(name.lower().replace("-", "_"))


def shared_message(turn: SharedTurn) -> Message:
    """A ShareGPT turn as OpenAI spells it.

    Raises:
        msgspec.DecodeError: nobody speaks who is known, nothing is said, or what is called is no JSON of calls.
    """
    role, said = speaker_of(turn), turn.content if turn.value is None else turn.value
    if role is None:
        raise ValidationError(f"{turn.sender or turn.role!r} is nobody who can speak.")
    if said is None and not turn.tool_calls:
        raise ValidationError("A turn of a conversation says nothing.")
    calls = turn.tool_calls
    if role == "function_call":
        thought, call = split_thought(text_of(said))
        role, said, calls = "assistant", thought or None, [ToolCall(one) for one in calls_of(call)]
    return Message(
        role=role,
        content=said,
        tool_calls=calls,
        tool_call_id=turn.tool_call_id,
        name=turn.name,
        reasoning_content=turn.reasoning_content,
        weight=turn.weight,
        train=turn.train,
    )


def preference_turns(record: Preference) -> tuple[list[Message], list[Message], list[Message]]:
    """The prompt, the chosen and the rejected answer, each as turns; no turns of a prompt where there is none.

    The prompt may be the turns with which both answers begin. A system turn that only the prompt has is kept.
    """
    chosen, rejected = _answers(record)
    within = 0
    for place, (one, other) in enumerate(zip(chosen, rejected, strict=False), start=1):
        if one != other:
            break
        if one.role in {"user", "tool"}:
            within = place
    given, prompt = prompt_turns(record.prompt), chosen[:within]
    if not prompt:
        prompt = given
    elif is_system(given[:1]) and not is_system(prompt[:1]):
        prompt = [given[0], *prompt]
    if record.system is not None and record.system.strip() and prompt:
        prompt = [Message("system", record.system), *prompt]
    return prompt, chosen[within:], rejected[within:]


def is_system(turns: list[Message]) -> bool:
    """Whether turns begin with one of the system."""
    return bool(turns) and turns[0].role in {"system", "developer"}


def prompt_turns(prompt: str | list[Message] | None) -> list[Message]:
    """A prompt's turns; a transcript (Human: …, Assistant: …) has several, up to the answer that it asks for."""
    if prompt is None or not isinstance(prompt, str):
        return prompt or []
    turns = transcript(prompt)
    if turns is None or turns[0].role != "user":
        return [Message("user", prompt)]
    return turns[:-1] if turns[-1] == Message("assistant", "") else turns


def _answers(record: Preference) -> tuple[list[Message], list[Message]]:
    """Both answers' turns; transcripts have those of the prompt too. A text is none if the other is none."""
    both = [transcript(answer) if isinstance(answer, str) else None for answer in (record.chosen, record.rejected)]
    are_transcripts = None not in both
    chosen, rejected = (
        turns
        if turns is not None and are_transcripts
        else ([Message("assistant", answer)] if isinstance(answer, str) else answer)
        for turns, answer in zip(both, (record.chosen, record.rejected), strict=True)
    )
    return chosen, rejected


def transcript(text: str) -> list[Message] | None:
    """The turns of a conversation that is written as one text; None for any other text."""
    parts = _SPOKEN.split(text.strip())
    if len(parts) < 5 or parts[0]:  # noqa: PLR2004 - nothing, and at least two speakers with what they say
        return None
    return [Message(_SPEAKERS[speaker], said.strip()) for speaker, said in zip(parts[1::2], parts[2::2], strict=True)]


def text_of(content: str | list[ContentPart] | None) -> str:
    """What is said in a turn; its parts follow each other."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text or "" for part in content)


def is_learned(turn: Message | SharedTurn) -> bool:
    """Whether a turn is to be learned, where it is an assistant's."""
    return turn.weight != 0 and turn.train is not False


def tool_calls_of(turn: Message) -> list[FunctionCall]:
    """What an assistant's turn calls.

    Raises:
        msgspec.DecodeError: it is no JSON of calls.
    """
    return [function_of(call) for call in listed_calls(turn)]


def listed_calls(turn: Message) -> list[ToolCall]:
    """The calls of a turn, be they JSON in a text or not.

    Raises:
        msgspec.DecodeError: they are no JSON of calls.
    """
    calls = turn.tool_calls or []
    if not isinstance(calls, str):
        return calls
    return json.decode(calls, type=list[ToolCall] | None) or [] if calls.strip() else []


def function_of(call: ToolCall) -> FunctionCall:
    """What a call calls, which may stand in the call itself.

    Raises:
        msgspec.DecodeError: it has no name.
    """
    if call.function is not None:
        return call.function
    if call.name is None:
        raise ValidationError("A call of a tool has no name.")
    return FunctionCall(call.name, call.arguments, call.parameters)


def arguments_of(call: FunctionCall) -> dict[str, Any]:
    """The arguments of a call by their names.

    Raises:
        msgspec.DecodeError: they are no JSON object.
    """
    given = call.parameters if call.arguments is None else call.arguments
    if not isinstance(given, str):
        return given or {}
    return json.decode(given, type=dict[str, Any] | None) or {} if given.strip() else {}


def has_tools(record: Record) -> bool:
    """Whether a record has tools, or calls one: then the model's chat template has to know tools."""
    match record:
        case Conversation(tools=tools, messages=turns):
            return bool(tools) or _calls(turns)
        case PromptCompletion(tools=tools, prompt=prompt, completion=completion):
            return bool(tools) or any(_calls(turns) for turns in (prompt, completion) if not isinstance(turns, str))
        case SharedConversation(tools=tools, conversations=shared):
            return bool(tools) or any(
                turn.tool_calls or speaker_of(turn) in {"function_call", "tool"} for turn in shared
            )
        case _:
            return False


def _calls(turns: list[Message]) -> bool:
    return any(turn.tool_calls or turn.role == "tool" for turn in turns)


def calls_in_words(turn: Message) -> bool:
    """Whether an assistant's words have the call of a tool in them, as some models write it."""
    said = text_of(turn.content)
    return turn.role == "assistant" and any(mark in said for mark in _CALL_IN_TEXT)


def split_thought(value: str) -> tuple[str, str]:
    """What is thought before a call, with its marks, and the call."""
    found = _THOUGHT.match(value)
    return (found[1], value[found.end() :]) if found is not None else ("", value)


def calls_of(value: str) -> list[FunctionCall]:
    """The calls in a ShareGPT turn of the role `function_call`: one, or a list; each as itself or in `function`.

    Raises:
        msgspec.DecodeError: it is no JSON of calls.
    """
    found = json.decode(value)
    if not found:
        raise DecodeError("There is no call.")
    return [function_of(convert(call, ToolCall)) for call in (found if isinstance(found, list) else [found])]


def schemas_of(tools: _Schemas | str | None) -> _Schemas:
    """The schemas of tools, each as `{"type": "function", "function": …}`.

    Raises:
        msgspec.DecodeError: they are no JSON list of objects.
    """
    if tools is None:
        return []
    if isinstance(tools, str):
        tools = json.decode(tools, type=_Schemas) if tools.strip() else []
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
