"""How a model writes chats, as far as that can be said by what stands around each content.

A chat template is a program; this is what most of them do. It writes a chat in Python, and `go_template` prints it as a
template that does the same in Ollama.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, assert_never

from msgspec import Struct

if TYPE_CHECKING:
    from trainer_entry.artifacts.gguf.chats import Chat, Turn

SystemPlace = Literal["turn", "in_user", "in_last", "none"]
"""Where the system's words stand: in a turn of their own, at the beginning of the first user's, or of the last turn if
that is a user's, or nowhere."""


class Around(Struct, frozen=True, gc=False):
    """What stands around a content."""

    before: str = ""
    after: str = ""


class ToolForm(Struct, frozen=True, kw_only=True, gc=False):
    """How tools are told of, called and answered.

    They are told of before all other turns: `alone` where no system speaks, `after_system` where it does, and `end`
    through the end of that turn. `whole`: a tool is written with its type around it. A call that is said with nothing
    stands after `calls`, else after what is said; `call` is around the call, `arguments` between its name and those.
    Answers that follow each other stand in `answers`, each in `answer`.
    """

    alone: str
    after_system: str
    between: str
    end: str
    whole: bool
    calls: str
    call: Around
    arguments: str
    answers: Around
    answer: Around


class ChatForm(Struct, frozen=True, kw_only=True, gc=False):
    """How chats are written. `begin`: the token that begins a text; `default`: what stands for a system that is silent.

    `prompt`: what an answer begins after. `trims`: whose contents lose the spaces at their ends.
    """

    begin: str
    default: str
    system: Around
    system_place: SystemPlace
    user: Around
    assistant: Around
    prompt: str
    tools: ToolForm | None = None
    trims: frozenset[str] = frozenset()

    def write(self, chat: Chat) -> str:
        """The chat as a text, up to where the answer begins."""
        turns, tools = chat.turns, self.tools if chat.tools else None
        speaks = bool(turns) and turns[0].role == "system" and self.system_place == "turn"
        pieces = [self.begin]
        if not speaks:
            pieces.append(self.default if tools is None else self._told(chat, tools, tools.alone))
        before = ""
        for place, turn in enumerate(turns):
            pieces.append(self._closed(before, turn.role))
            pieces.append(self._turn(chat, turn, before, is_last=place == len(turns) - 1))
            if place == 0 and speaks:
                told = "" if tools is None else self._told(chat, tools, tools.after_system)
                pieces.append(told or self.system.after)
            before = turn.role
        if before != "assistant":
            pieces += [self._closed(before, ""), self.prompt]
        return "".join(pieces)

    def _told(self, chat: Chat, form: ToolForm, head: str) -> str:
        written = [_json(tool.schema() if form.whole else tool.function()) for tool in chat.tools]
        return f"{head}{form.between.join(written)}{form.end}"

    def _closed(self, before: str, role: str) -> str:
        """What ends the turn before, where that is only known by the next."""
        if before == "assistant":
            return self.assistant.after
        if before == "tool" and role != "tool" and self.tools is not None:
            return self.tools.answers.after
        return ""

    def _turn(self, chat: Chat, turn: Turn, before: str, *, is_last: bool) -> str:
        said = turn.content.strip() if turn.role in self.trims else turn.content
        match turn.role:
            case "system":
                if self.system_place not in {"turn", "in_user"}:
                    return ""
                is_first = before == "" and self.system_place == "turn"  # what ends that one depends on the tools
                return f"{self.system.before}{said}{'' if is_first else self.system.after}"
            case "user":
                opened = "" if self.system_place == "in_user" and before == "system" else self.user.before
                if self.system_place == "in_last" and is_last and chat.system:
                    words = chat.system.strip() if "system" in self.trims else chat.system
                    opened += f"{self.system.before}{words}{self.system.after}"
                return f"{opened}{said}{self.user.after}"
            case "assistant":
                return self._answer(turn, said)
            case "tool":
                form = self.tools
                if form is None:
                    return ""
                opened = "" if before == "tool" else form.answers.before
                return f"{opened}{form.answer.before}{said}{form.answer.after}"
            case _:
                assert_never(turn.role)

    def _answer(self, turn: Turn, said: str) -> str:
        form = self.tools
        if form is None or not turn.calls:
            return f"{self.assistant.before}{said}"
        opened = f"{self.assistant.before}{said}" if said else form.calls
        calls = (
            f"{form.call.before}{one.name}{form.arguments}{_json(one.arguments)}{form.call.after}" for one in turn.calls
        )
        return f"{opened}{''.join(calls)}"


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
