"""The names of fields: which matter to what is learned, and which of a record its format does not know."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import Struct

from trainer_entry.wire.formats import FORMATS, FunctionCall, Text, ToolCall

REFUSED = frozenset(
    {
        *("audio", "audios", "function_call", "functions", "history", "label", "labels", "kto_tag", "mask"),
        *("image", "image_file", "image_files", "image_path", "image_paths", "image_url", "image_urls", "images"),
        *("img", "imgs", "video", "videos"),
        *("reasoning_content", "rejected_messages", "rejected_response", "rejected_responses"),
        *("available_tools", "system", "tool_calls", "tool_definitions", "tools", "tools_json", "train", "weight"),
    }
)
"""What would change what is learned: a format that does not know such a field refuses it."""
_REFUSED_IN_TURNS = frozenset(
    {
        *("cot", "ignore", "learn", "loss", "mask", "masked", "reasoning", "refusal", "think", "thinking", "thought"),
        *("train", "trainable", "training", "weight", "weights"),
    }
)
"""The same of the turns of a conversation: a word of a name is enough, as in `train_on_turn`."""
_OF_TURNS = frozenset({"message_tree_id", "parent_id", "parent_message_id", "role", "speaker"})
"""A text with one of these is a turn of a conversation that stands on several lines, and no text by itself."""
_ANSWERS = frozenset(
    {
        *("abstract", "answer", "answers", "completion", "headline", "highlights", "output", "query", "question"),
        *("reply", "response", "summary", "target", "tldr", "translation"),
    }
)
"""A text with one of these is half of a pair, and would be learned without the other half."""
_CALLS = (ToolCall, FunctionCall)
_OF_NO_CALL = frozenset({"index"})
"""What a call may have, and says nothing."""
Place = tuple[type[Struct], str]
"""A type, and the name of a field in it."""


def may_be_ignored(place: Place, value: object) -> bool:
    """Whether a field that nothing knows may be passed over; one that says nothing always may."""
    kind, name = place
    if says_nothing(value):
        return True
    plain = plain_name(name)
    if _squeezed(plain) in _SQUEEZED:
        return False
    if kind is Text:
        return plain not in _OF_TURNS | _ANSWERS
    if kind in _CALLS:
        return plain in _OF_NO_CALL
    if kind in FORMATS.values():
        return True
    return _REFUSED_IN_TURNS.isdisjoint(plain.split("_")) and plain not in _nested_fields(kind)


def says_nothing(value: object) -> bool:
    """Whether a value is missing, or empty; false and 0 are values."""
    return value is None or (isinstance(value, str | list | dict) and not value)


def plain_name(name: str) -> str:
    """A name as most would write it: `System Prompt` as `system_prompt`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _squeezed(plain: str) -> str:
    """A name without what stands between its words: `toolCalls` is `tool_calls`."""
    return plain.replace("_", "")


_SQUEEZED = frozenset(map(_squeezed, REFUSED))


def unknown_fields(kind: type[Struct], value: object, path: str = "") -> Iterator[tuple[str, Place, object]]:
    """The fields in an object that its type does not know: where they stand, whose they are, and what they hold."""
    if not isinstance(value, dict):
        return
    known = _nested_fields(kind)
    for name, item in value.items():
        if name not in known:
            yield f"{path}{name}", (kind, name), item
        elif (nested := known[name]) is None:
            continue
        elif isinstance(item, list):
            for element in item:
                yield from unknown_fields(nested, element, f"{path}{name}[].")
        else:
            yield from unknown_fields(nested, item, f"{path}{name}.")


@cache
def _nested_fields(kind: type[Struct]) -> dict[str, type[Struct] | None]:
    """The fields of a type by their names in JSON, with the type of the objects that stand in them."""
    hints = get_type_hints(kind)
    return {field.encode_name: nested_type(hints[field.name]) for field in msgspec.structs.fields(kind)}


def nested_type(annotation: Any) -> type[Struct] | None:
    """The type of the objects that stand in a field; None where it has none."""
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return annotation
    return next((found for part in get_args(annotation) if (found := nested_type(part)) is not None), None)
