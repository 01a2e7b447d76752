"""The errors of prompts and of the answers to them: of completions, and of preferences."""

from collections.abc import Iterator

from modelforge.datasets.validation.conversation_errors import NOTHING_LEARNED, errors_of_tools, errors_of_turns
from modelforge.datasets.validation.error_types import RecordError, blank
from modelforge.datasets.validation.field_names import says_nothing
from trainer_entry.wire.formats import Message, Preference, Prompt, PromptCompletion
from trainer_entry.wire.turns import is_learned, is_system, preference_turns, prompt_turns, text_of

_BOTH_SYSTEMS = "The prompt begins with a system turn too. Leave one of both out."
_NOBODY_ASKS = "No user's turn at the end: the answer to it follows in a field of its own."


def errors_of_label(label: object) -> Iterator[RecordError]:
    """That a record says whether it is good: nothing learns from that."""
    if not says_nothing(label):
        yield RecordError(
            "label",
            "It says which answers are good and which are bad, and no strategy here learns from that: sft would learn "
            "all of them. Keep the good ones and take the field out; or pair both as preferences, for dpo.",
        )


def errors_of_completion(record: PromptCompletion) -> Iterator[RecordError]:
    """What is wrong with a prompt and its completion."""
    yield from _prompt(record.prompt, may_be_blank=True)
    if _says(record.system) and not isinstance(record.prompt, str) and is_system(record.prompt):
        yield RecordError("system", _BOTH_SYSTEMS)
    yield from _answer("completion", record.completion, "there is nothing to learn. Write the answer")
    if not isinstance(record.completion, str):
        answers = [turn for turn in record.completion if turn.role == "assistant"]
        if answers and not any(map(is_learned, answers)):
            yield RecordError("completion", NOTHING_LEARNED)
    yield from errors_of_tools(record.tools)
    yield from errors_of_label(record.label)


def _prompt(prompt: str | list[Message], *, may_be_blank: bool) -> Iterator[RecordError]:
    if isinstance(prompt, str):
        if not may_be_blank:
            yield from blank("prompt", prompt, "there is nothing to answer. Write the prompt")
    elif not prompt:
        yield RecordError("prompt", "It is empty. A prompt has a user's turn at its end.")
    elif (yield from errors_of_turns("prompt", prompt)) and prompt[-1].role not in {"user", "tool"}:
        yield RecordError("prompt", _NOBODY_ASKS)


def _answer(field: str, answer: str | list[Message], why_not_blank: str) -> Iterator[RecordError]:
    if isinstance(answer, str):
        yield from blank(field, answer, why_not_blank)
    else:
        yield from _answer_turns(field, answer, answer)


def _answer_turns(field: str, whole: list[Message], turns: list[Message]) -> Iterator[RecordError]:
    """The errors of an answer's turns; `whole`: with those of the prompt, if they stand before it."""
    begins = len(whole) - len(turns)
    if not turns:
        yield RecordError(field, "It is empty. An answer is an assistant's turn, or turns that end with one.")
    elif turns[0].role != "assistant":
        yield RecordError(f"{field}[{begins}].role", f"{turns[0].role!r} cannot stand here; expected assistant.")
    elif (yield from errors_of_turns(field, whole)) and turns[-1].role != "assistant":
        yield RecordError(field, "No assistant's turn at the end: an answer ends with one.")


def errors_of_preference(record: Preference) -> Iterator[RecordError]:
    """What is wrong with a preference, wherever its prompt stands."""
    prompt, chosen, rejected = preference_turns(record)
    if record.prompt is None and not prompt:
        yield RecordError(
            "prompt", "The field 'prompt' is missing. Write it, or begin both answers with the same turn of the user."
        )
    elif record.prompt is not None:
        yield from _prompt(record.prompt, may_be_blank=False)
        if isinstance(record.prompt, str) and prompt_turns(record.prompt)[-1].role == "assistant":
            yield RecordError("prompt", _NOBODY_ASKS)
        if not _is_in(record.prompt, prompt):
            yield RecordError("prompt", "It is not the prompt with which chosen and rejected begin. Leave one out.")
    if _says(record.system) and is_system(prompt[1:]):
        yield RecordError("system", _BOTH_SYSTEMS)
    for field, answer, turns in (("chosen", record.chosen, chosen), ("rejected", record.rejected, rejected)):
        yield from _errors_of_preferred(field, answer, turns)
    if _said(chosen) == _said(rejected):
        yield RecordError("rejected", "It is the same as chosen: nothing is preferred. Write the worse answer.")
    if record.tools:
        yield RecordError("tools", "No strategy learns calls of tools from preferences. Take the field out.")


def errors_of_prompt(record: Prompt) -> Iterator[RecordError]:
    """What is wrong with a prompt to which no answer is given."""
    yield from _prompt(record.prompt, may_be_blank=False)
    if not isinstance(record.prompt, str):
        if _says(record.system) and is_system(record.prompt):
            yield RecordError("system", _BOTH_SYSTEMS)
        if any(turn.tool_calls or turn.role == "tool" for turn in record.prompt):
            yield RecordError("prompt", "It has calls of tools, and no policy makes any. Take the record out.")


def _errors_of_preferred(field: str, answer: str | list[Message], turns: list[Message]) -> Iterator[RecordError]:
    if isinstance(answer, str):
        last = text_of(turns[-1].content) if turns else ""
        yield from blank(field, last, "there is nothing to compare. Write the answer")
        if turns and turns[-1].role != "assistant":
            yield RecordError(field, "The transcript ends with words of the user: an answer ends with the assistant's.")
        return
    yield from _answer_turns(field, answer, turns)
    if any(turn.tool_calls for turn in turns):
        yield RecordError(field, "It calls a tool, which no strategy learns from preferences. Take the record out.")
    if not all(map(is_learned, turns)):
        yield RecordError(
            field, "A turn has weight 0 or train false: answers are compared as a whole. Take it out, or the record."
        )


def _says(text: str | None) -> bool:
    return text is not None and bool(text.strip())


def _said(turns: list[Message]) -> list[tuple[str, str]]:
    return [(turn.role, text_of(turn.content)) for turn in turns]


def _is_in(given: str | list[Message], prompt: list[Message]) -> bool:
    """Whether what is given as a prompt is the one that is learned from.

    Some have only its first or last turn there, and some no system turn.
    """
    asked = [turn for turn in prompt if not is_system([turn])]
    if isinstance(given, str) and any(text_of(turn.content).strip() == given.strip() for turn in asked):
        return True
    turns = prompt_turns(given)
    return _said(turns) == _said(prompt[-len(turns) :] if is_system(turns) else asked)
