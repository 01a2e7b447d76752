"""Chats as Ollama has them, and as a chat template of transformers gets them."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, json

Role = Literal["system", "user", "assistant", "tool"]


class Call(Struct, frozen=True, gc=False):
    """The call of a tool."""

    name: str
    arguments: dict[str, Any]


class Turn(Struct, frozen=True, gc=False):
    """One turn: what is said, and what an assistant calls. A `tool` says what a call gave."""

    role: Role
    content: str = ""
    calls: tuple[Call, ...] = ()

    def message(self) -> dict[str, Any]:
        """The turn as transformers has it."""
        calls = [{"type": "function", "function": {"name": one.name, "arguments": one.arguments}} for one in self.calls]
        return {"role": self.role, "content": self.content} | ({"tool_calls": calls} if calls else {})


class Tool(Struct, frozen=True, gc=False):
    """A tool that can be called. `parameters`: the JSON schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]

    def schema(self) -> dict[str, Any]:
        """The tool as transformers has it."""
        return {"type": "function", "function": self.function()}

    def function(self) -> dict[str, Any]:
        """What is called."""
        return {"name": self.name, "description": self.description, "parameters": self.parameters}


class Chat(Struct, frozen=True, gc=False):
    """What a model is to answer. Where the last turn is an assistant's, its words are to be gone on with."""

    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...] = ()

    @property
    def system(self) -> str:
        """All that the system says, as Ollama puts it together."""
        return "\n\n".join(turn.content for turn in self.turns if turn.role == "system")


def objects_in(text: str) -> list[tuple[int, int, dict[str, Any]]]:
    """The JSON objects in a text that lie in no other: where each begins and ends, and what it says."""
    from json import JSONDecodeError, JSONDecoder

    decoder, found, place = JSONDecoder(), list[tuple[int, int, dict[str, Any]]](), 0
    while (begin := text.find("{", place)) >= 0:
        try:
            value, end = decoder.raw_decode(text, begin)
        except (JSONDecodeError, RecursionError):
            place = begin + 1
            continue
        found.append((begin, end, value))
        place = end
    return found


def with_plain_json(text: str) -> str:
    """The text with its JSON objects written one way: how they are laid out is each server's own business."""
    pieces, place = [], 0
    for begin, end, value in objects_in(text):
        pieces += [text[place:begin], json.encode(value, order="sorted").decode()]
        place = end
    return "".join([*pieces, text[place:]])
