"""The errors of conversations: of turns, and of calls of tools."""

import re
from collections.abc import Generator, Iterator
from typing import Any

import msgspec

from modelforge.datasets.validation.error_types import RecordError, blank, short
from modelforge.datasets.validation.field_names import says_nothing, unknown_fields
from trainer_entry.wire.formats import Message, SharedConversation, SharedTurn, ToolCall
from trainer_entry.wire.turns import (
    ROLES,
    arguments_of,
    calls_in_words,
    function_of,
    is_learned,
    listed_calls,
    role_named,
    schemas_of,
    shared_message,
    speaker_of,
    split_thought,
    text_of,
)

NOTHING_LEARNED = "Every assistant's turn has weight 0 or train false: there is nothing to learn."
_CALL = '{"name": "…", "arguments": {…}}'


def errors_of_conversation(
    field: str, turns: list[Message], tools: list[dict[str, Any]] | str | None
) -> Iterator[RecordError]:
    """What is wrong with turns, of which an assistant's is to be learned."""
    if not turns:
        yield RecordError(field, "It is empty. A conversation has a user's turn and an assistant's.")
        return
    yield from errors_of_tools(tools)
    if not (yield from errors_of_turns(field, turns)):
        return
    answers = [turn for place, turn in enumerate(turns) if turn.role == "assistant" and _asks(turns[:place])]
    if not answers:
        yield RecordError(field, "No assistant's turn answers a user's: there is nothing to learn.")
    elif not any(map(is_learned, answers)):
        yield RecordError(field, NOTHING_LEARNED)


def _asks(turns: list[Message]) -> bool:
    return any(turn.role in {"user", "tool"} for turn in turns)


def errors_of_turns(field: str, turns: list[Message]) -> Generator[RecordError, None, bool]:
    """The errors of turns one by one; whether each stands where it can."""
    before: Message | None = None
    for index, turn in enumerate(turns):
        where = f"{field}[{index}]"
        if turn.role in {"system", "developer"} and before is not None:
            yield RecordError(f"{where}.role", f"{turn.role!r} cannot stand here; expected user or assistant.")
            return False
        if turn.role == "tool" and not _calls_before(before):
            yield RecordError(f"{where}.role", "'tool' cannot stand here: no call of a tool comes before it.")
            return False
        yield from _errors_of_turn(where, turn)
        before = turn
    return True


def _calls_before(turn: Message | None) -> bool:
    return turn is not None and (turn.role == "tool" or bool(turn.tool_calls) or calls_in_words(turn))


def _errors_of_turn(where: str, turn: Message) -> Iterator[RecordError]:
    if turn.content is None and not turn.tool_calls:
        yield RecordError(f"{where}.content", "It is missing or null; expected a text.")
    elif isinstance(turn.content, list):
        for place, part in enumerate(turn.content):
            if part.text is None or part.type not in {"text", "input_text", "output_text"}:
                yield RecordError(
                    f"{where}.content[{place}]",
                    f"A part of the type {short(part.type)} is no text, and only text is learned. Take it out.",
                )
    if turn.role == "assistant" and not turn.tool_calls and turn.content is not None:
        yield from blank(f"{where}.content", text_of(turn.content), "there is nothing to learn")
    if turn.tool_calls and turn.role != "assistant":
        yield RecordError(f"{where}.tool_calls", "Only an assistant's turn calls tools.")
    yield from _errors_of_calls(where, turn)
    if turn.weight is not None and turn.weight not in {0, 1}:
        yield RecordError(f"{where}.weight", f"It is {turn.weight:g}; expected 0 or 1.")


def _errors_of_calls(where: str, turn: Message) -> Iterator[RecordError]:
    field = f"{where}.tool_calls"
    try:
        calls = listed_calls(turn)
    except msgspec.DecodeError:
        yield RecordError(field, f"{short(str(turn.tool_calls))} is no list of calls; write {_CALL} for each, as JSON.")
        return
    if isinstance(turn.tool_calls, str):
        yield from _lost_of_calls(field, turn.tool_calls)
    for place, call in enumerate(calls):
        at = f"{field}[{place}]" if call.function is None else f"{field}[{place}].function"
        try:
            function = function_of(call)
            arguments_of(function)
        except msgspec.DecodeError:
            if call.function is None and call.name is None:
                yield RecordError(f"{at}.name", f"The call has no name; write {_CALL}.")
            else:
                given = short(str((call.function or call).arguments))
                yield RecordError(f"{at}.arguments", f"{given} is no JSON object: write the arguments by their names.")
            continue
        if function.arguments is not None and function.parameters is not None:
            yield RecordError(f"{at}.parameters", "The call has arguments too. Leave one of both out.")


def _lost_of_calls(field: str, text: str) -> Iterator[RecordError]:
    """What would be lost of calls that are JSON in a text."""
    calls = msgspec.json.decode(text) if text.strip() else None
    for call in calls if isinstance(calls, list) else [calls]:
        for path, _, value in unknown_fields(ToolCall, call):
            if not says_nothing(value):
                yield RecordError(field, f"A call has the field {short(path)}, which would be lost; write {_CALL}.")


def errors_of_tools(tools: list[dict[str, Any]] | str | None) -> Iterator[RecordError]:
    """That tools are no list of objects."""
    try:
        schemas_of(tools)
    except msgspec.DecodeError:
        yield RecordError("tools", "It is no list of tools: write the schema of each as an object.")


def errors_of_shared(record: SharedConversation) -> Iterator[RecordError]:
    """What is wrong with a conversation as ShareGPT spells it, by its own fields."""
    turns: list[Message] = []
    system = record.system is not None and bool(record.system.strip())
    if system:
        turns.append(Message("system", record.system))
    for index, turn in enumerate(record.conversations):
        wrong = _error_of_shared(f"conversations[{index}]", turn)
        if wrong is not None:
            yield wrong
            return
        turns.append(shared_message(turn))
    if system and not record.conversations:
        turns = []
    for problem in errors_of_conversation("conversations", turns, record.tools):
        yield RecordError(_shared_field(problem.field or "", record.conversations, system), problem.message)


def _error_of_shared(where: str, turn: SharedTurn) -> RecordError | None:
    """Why a turn cannot be understood, where it cannot."""
    speaker, said = ("from" if turn.sender is not None else "role"), ("content" if turn.value is None else "value")
    if turn.sender is None and turn.role is None:
        return RecordError(f"{where}.from", 'The field \'from\' is missing: it says who speaks, "human" or "gpt".')
    if turn.value and turn.content and turn.value != turn.content:
        return RecordError(f"{where}.content", "The turn has another 'value'. Leave one of both out.")
    if turn.sender and turn.role and role_named(turn.sender) != role_named(turn.role):
        return RecordError(f"{where}.role", "The turn has another 'from'. Leave one of both out.")
    role = speaker_of(turn)
    if role is None:
        name = turn.sender if turn.sender is not None else turn.role
        known = ", ".join(ROLES)
        return RecordError(
            f"{where}.{speaker}", f"{short(name or '')} is nobody who can speak; expected one of {known}."
        )
    if turn.value is None and turn.content is None and (role == "function_call" or not turn.tool_calls):
        said = "value" if turn.sender is not None else "content"
        return RecordError(f"{where}.{said}", f"The field {said!r} is missing: it has what is said.")
    if role != "function_call":
        return None
    if turn.tool_calls:
        return RecordError(f"{where}.tool_calls", "What the turn says is a call too. Leave one of both out.")
    text = text_of(turn.content) if turn.value is None else turn.value
    try:
        shared_message(turn)
    except msgspec.DecodeError:
        return RecordError(f"{where}.{said}", f"{short(text)} is no call of a tool; write {_CALL}, as JSON.")
    return next(_lost_of_calls(f"{where}.{said}", split_thought(text)[1]), None)


def _shared_field(field: str, shared: list[SharedTurn], system: bool) -> str:  # noqa: FBT001 - it stands before them
    """A field of a conversation as ShareGPT spells it."""
    found = re.fullmatch(r"conversations\[(\d+)\](.*)", field)
    if found is None:
        return field
    index, rest = int(found[1]) - system, found[2]
    if shared[index].sender is not None:
        rest = rest.replace(".role", ".from").replace(".content", ".value")
    return f"conversations[{index}]{rest}"
