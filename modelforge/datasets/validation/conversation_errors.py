"""The errors of conversations: of turns, calls of tools, prompts and answers."""

import re
from collections.abc import Generator, Iterator
from typing import Any

import msgspec

from modelforge.datasets.validation.error_types import RecordError, blank, short
from trainer_entry.wire.formats import (
    ROLES,
    Message,
    Preference,
    PromptCompletion,
    SharedConversation,
    SharedTurn,
    ToolCall,
    arguments_of,
    calls_of,
    preference_turns,
    schemas_of,
    text_of,
)


def errors_of_conversation(
    field: str, turns: list[Message], tools: list[dict[str, Any]] | str | None
) -> Iterator[RecordError]:
    """What is wrong with turns, of which an assistant's is to be learned."""
    if not turns:
        yield RecordError(field, "It is empty. A conversation has a user's turn and an assistant's.")
        return
    yield from _errors_of_tools(tools)
    if not (yield from _turns(field, turns)):
        return
    answers = [turn for place, turn in enumerate(turns) if turn.role == "assistant" and _asks(turns[:place])]
    if not answers:
        yield RecordError(field, "No assistant's turn answers a user's: there is nothing to learn.")
    elif not any(turn.weight != 0 and turn.train is not False for turn in answers):
        yield RecordError(field, "Every assistant's turn has weight 0 or train false: there is nothing to learn.")


def _asks(turns: list[Message]) -> bool:
    return any(turn.role in {"user", "tool"} for turn in turns)


def _turns(field: str, turns: list[Message]) -> Generator[RecordError, None, bool]:
    """The errors of turns one by one; whether each stands where it can."""
    before: Message | None = None
    for index, turn in enumerate(turns):
        where = f"{field}[{index}]"
        if turn.role in {"system", "developer"} and before is not None:
            yield RecordError(f"{where}.role", f"{turn.role!r} cannot stand here; expected user or assistant.")
            return False
        if turn.role == "tool" and (before is None or (before.role != "tool" and not before.tool_calls)):
            yield RecordError(f"{where}.role", "'tool' cannot stand here: no call of a tool comes before it.")
            return False
        yield from _errors_of_turn(where, turn)
        before = turn
    return True


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
    for place, call in enumerate(turn.tool_calls or ()):
        try:
            arguments_of(call.function)
        except msgspec.DecodeError:
            yield RecordError(
                f"{where}.tool_calls[{place}].function.arguments",
                f"{short(str(call.function.arguments))} is no JSON object: write the arguments by their names.",
            )
    if turn.weight is not None and turn.weight not in {0, 1}:
        yield RecordError(f"{where}.weight", f"It is {turn.weight:g}; expected 0 or 1.")


def _errors_of_tools(tools: list[dict[str, Any]] | str | None) -> Iterator[RecordError]:
    try:
        schemas_of(tools)
    except msgspec.DecodeError:
        yield RecordError("tools", "It is no list of tools: write the schema of each as an object.")


def errors_of_label(label: object) -> Iterator[RecordError]:
    """That a record says whether it is good: nothing learns from that."""
    if label is not None:
        yield RecordError(
            "label",
            "It says which answers are good and which are bad, and no strategy here learns from that: sft would learn "
            "all of them. Keep the good ones and take the field out; or pair both as preferences, for dpo.",
        )


def errors_of_completion(record: PromptCompletion) -> Iterator[RecordError]:
    """What is wrong with a prompt and its completion."""
    yield from _prompt(record.prompt, may_be_blank=True)
    yield from _answer("completion", record.completion, "there is nothing to learn. Write the answer")
    yield from _errors_of_tools(record.tools)
    yield from errors_of_label(record.label)


def errors_of_shared(record: SharedConversation) -> Iterator[RecordError]:
    """What is wrong with a conversation as ShareGPT spells it, by its own fields."""
    turns: list[Message] = []
    system = record.system is not None and bool(record.system.strip())
    if system:
        turns.append(Message("system", record.system))
    for index, turn in enumerate(record.conversations):
        where = f"conversations[{index}]"
        speaker, said = ("from", "value") if turn.sender is not None else ("role", "content")
        name, text = (turn.sender, turn.value) if turn.sender is not None else (turn.role, turn.content)
        if name is None:
            yield RecordError(f"{where}.from", 'The field \'from\' is missing: it says who speaks, "human" or "gpt".')
            return
        role = ROLES.get(name)
        if role is None:
            known = ", ".join(ROLES)
            yield RecordError(f"{where}.{speaker}", f"{short(name)} is nobody who can speak; expected one of {known}.")
            return
        if text is None:
            yield RecordError(f"{where}.{said}", f"The field {said!r} is missing: it has what is said.")
            return
        if role != "function_call":
            turns.append(Message(role, text, weight=turn.weight, train=turn.train))
            continue
        try:
            calls = [ToolCall(call) for call in calls_of(text)]
        except msgspec.DecodeError:
            wanted = '{"name": "…", "arguments": {…}}'
            yield RecordError(f"{where}.{said}", f"{short(text)} is no call of a tool; write {wanted}, as JSON.")
            return
        turns.append(Message("assistant", tool_calls=calls, weight=turn.weight, train=turn.train))
    if system and not record.conversations:
        turns = []
    for problem in errors_of_conversation("conversations", turns, record.tools):
        yield RecordError(_shared_field(problem.field or "", record.conversations, system), problem.message)


def _shared_field(field: str, shared: list[SharedTurn], system: bool) -> str:  # noqa: FBT001 - it stands before them
    """A field of a conversation as ShareGPT spells it."""
    found = re.fullmatch(r"conversations\[(\d+)\](.*)", field)
    if found is None:
        return field
    index, rest = int(found[1]) - system, found[2]
    if shared[index].sender is not None:
        rest = rest.replace(".role", ".from").replace(".content", ".value")
    return f"conversations[{index}]{rest}"


def _prompt(prompt: str | list[Message], *, may_be_blank: bool) -> Iterator[RecordError]:
    if isinstance(prompt, str):
        if not may_be_blank:
            yield from blank("prompt", prompt, "there is nothing to answer. Write the prompt")
    elif not prompt:
        yield RecordError("prompt", "It is empty. A prompt has a user's turn at its end.")
    elif (yield from _turns("prompt", prompt)) and prompt[-1].role not in {"user", "tool"}:
        yield RecordError("prompt", "No user's turn at the end: the answer to it follows in a field of its own.")


def _answer(
    field: str, answer: str | list[Message], why_not_blank: str, *, begins: int = 0, calls: bool = True
) -> Iterator[RecordError]:
    """The errors of an answer; `begins`: how many turns of the prompt stand before it, `calls`: it may call tools."""
    if isinstance(answer, str):
        yield from blank(field, answer, why_not_blank)
        return
    turns = answer[begins:]
    if not turns:
        yield RecordError(field, "It is empty. An answer is an assistant's turn, or turns that end with one.")
    elif turns[0].role != "assistant":
        yield RecordError(f"{field}[{begins}].role", f"{turns[0].role!r} cannot stand here; expected assistant.")
    elif (yield from _turns(field, answer)) and turns[-1].role != "assistant":
        yield RecordError(field, "No assistant's turn at the end: an answer ends with one.")
    elif not calls and any(turn.tool_calls for turn in turns):
        yield RecordError(field, "It calls a tool, which no strategy learns from preferences. Take the record out.")


def errors_of_preference(record: Preference) -> Iterator[RecordError]:
    """What is wrong with a preference, wherever its prompt stands."""
    prompt, chosen, rejected = preference_turns(record)
    if record.prompt is None and not prompt:
        yield RecordError(
            "prompt", "The field 'prompt' is missing. Write it, or begin both answers with the same turn of the user."
        )
    elif record.prompt is not None:
        yield from _prompt(record.prompt, may_be_blank=False)
        if not _is_in(record.prompt, prompt):
            yield RecordError("prompt", "It is not the prompt with which chosen and rejected begin. Leave one out.")
    for field, answer, turns in (("chosen", record.chosen, chosen), ("rejected", record.rejected, rejected)):
        begins = len(answer) - len(turns) if isinstance(answer, list) else 0
        why = "there is nothing to compare. Write the answer"
        yield from _answer(field, answer, why, begins=begins, calls=False)
    if _said(chosen) == _said(rejected):
        yield RecordError("rejected", "It is the same as chosen: nothing is preferred. Write the worse answer.")
    if record.tools:
        yield RecordError("tools", "No strategy learns calls of tools from preferences. Take the field out.")


def _said(turns: list[Message]) -> list[tuple[str, str]]:
    return [(turn.role, text_of(turn.content)) for turn in turns]


def _is_in(given: str | list[Message], prompt: list[Message]) -> bool:
    """Whether what is given as a prompt is the one that is learned from; some have only its first or last turn."""
    asked = [turn for turn in prompt if turn.role != "system"]
    if isinstance(given, str):
        return any(text_of(turn.content).strip() == given.strip() for turn in asked)
    return _said([turn for turn in given if turn.role != "system"]) == _said(asked)
