"""Calls of tools in what a model writes: `<tool_call>{…}</tool_call>`, or an answer that is nothing but their JSON.

The first is how the templates of Hermes, Qwen and SmolLM2 have it, with one call or a list; the second is that of
Llama 3, and of templates whose marks are special tokens, which no answer shows. A call of what was not offered is text.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

_BEGIN, _END = "<tool_call>", "</tool_call>"
_BARE = re.compile(r'\[?\{"name":')
_BARE_BEGINS = ("[", "[{", '{"name":', '[{"name":')
_WHITE = re.compile(r"\s+")


class Call(Struct, frozen=True):
    """A call. `arguments`: the JSON of an object."""

    name: str
    arguments: str


class CallReader:
    """Takes an answer as it comes, and gives its text and its calls as soon as each is certain."""

    def __init__(self, offered: frozenset[str]) -> None:
        self._offered = offered
        self._held = ""
        self._white = ""
        self._said = False
        self.called = False

    def take(self, piece: str) -> Iterator[str | Call]:
        """What is certain with the next piece of the answer."""
        self._held += piece
        while self._held and not (not self._said and _may_be_bare(self._held)):
            begin = self._held.find(_BEGIN)
            if begin > 0:
                yield from self._say(self._held[:begin])
                self._held = self._held[begin:]
            elif begin == 0:
                end = self._held.find(_END)
                if end < 0:
                    return
                inside, self._held = self._held[len(_BEGIN) : end], self._held[end + len(_END) :]
                yield from self._call(inside, f"{_BEGIN}{inside}{_END}")
            else:
                held = next(size for size in range(len(_BEGIN) - 1, -1, -1) if self._held.endswith(_BEGIN[:size]))
                certain = self._held[: len(self._held) - held]
                self._held = self._held[len(certain) :]
                yield from self._say(certain)
                return

    def end(self) -> Iterator[str | Call]:
        """What is left once nothing follows: a call whose end the model left out, or text."""
        held, self._held = self._held, ""
        if held:
            yield from self._call(held.removeprefix(_BEGIN), held)
        if self._white and not self.called:
            yield self._white

    def _call(self, inside: str, written: str) -> Iterator[str | Call]:
        calls = self._read(inside)
        if calls is None:
            yield from self._say(written)
            return
        self._white, self._said, self.called = "", True, True
        yield from calls

    def _say(self, text: str) -> Iterator[str]:
        """Text, but for the white space at its end: beside a call it is none."""
        text = self._white + text
        kept = text.rstrip()
        self._white = text[len(kept) :]
        if kept:
            self._said = True
            yield kept

    def _read(self, text: str) -> list[Call] | None:
        try:
            found: Any = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return None
        calls = [self._one(call) for call in (found if isinstance(found, list) else [found])]
        whole = [call for call in calls if call is not None]
        return whole if whole and len(whole) == len(calls) else None

    def _one(self, found: Any) -> Call | None:
        if not isinstance(found, dict) or not isinstance(found.get("name"), str) or found["name"] not in self._offered:
            return None
        arguments = found.get("arguments", found.get("parameters", {}))
        text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
        try:
            msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            return None
        return Call(found["name"], text)


def _may_be_bare(text: str) -> bool:
    """Whether an answer that begins so may be nothing but the JSON of calls."""
    begins = _WHITE.sub("", text[:200])
    return bool(_BARE.match(begins)) or any(one.startswith(begins) for one in _BARE_BEGINS)
