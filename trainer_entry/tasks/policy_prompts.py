"""What a policy is asked, where functions or a given reward model judge it: prompts, and their records' fields.

An answer that a record has is not learned: it is what a completion may be compared with.
"""

from collections.abc import Callable, Mapping
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from trainer_entry.data.examples import Examples, Rows, in_words
from trainer_entry.data.prompts import asked_ids, plain_question, summarization_prompt
from trainer_entry.data.records import Conversation, InputOutput, Line, Prompt, Record, Records, Turn
from trainer_entry.data.reward_fields import FIELDS, fields_as_json, fields_of
from trainer_entry.runtime.failures import NoTrainableTokens, WrongRecords, naming_line, refuse
from trainer_entry.runtime.stdout import note
from trainer_entry.wire import Task, TrainingParameters
from trainer_entry.wire.obstacles import in_context

PolicyPrompt = str | list[dict[str, str]]
"""As trl takes it: turns, and a text for a model without a chat template."""
CheckFields = Callable[[int, Mapping[str, Any]], None]
"""Looks at a line's fields, and refuses those that cannot be rewarded by."""


def prepare(
    records: Records,
    held_out: frozenset[int],
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    room: int,
    check_fields: CheckFields,
) -> Examples:
    """Rows of prompts with their fields; those at the places in `held_out` are for evaluation.

    A prompt of `room` tokens or more is left out.

    Raises:
        NoTrainableTokens: no prompt is left, or none of those that were held out.
        NoChatTemplate: conversations, for a model that does not say how to write one.
        WrongRecords: a record has no prompt, or not what its completions are compared with.
    """
    train, evaluation = _PromptRows(), _PromptRows()
    dropped: list[int] = []
    for place, line in enumerate(records.lines()):
        with naming_line(line.number):
            turns = turns_of(line.record, tokenizer, task)
            ids = asked_ids(tokenizer, turns)
        fields = checked_fields(line, check_fields)
        if len(ids) >= room:
            dropped.append(line.number)
            continue
        rows = evaluation if place in held_out else train
        rows.add(line.number, ids, prompt_for_policy(turns, tokenizer), fields)
    if dropped:
        note(f"{len(dropped)} records were left out, whose prompts have {room} tokens or more: {in_words(dropped)}.")
    if not train.rows.count or (held_out and not evaluation.rows.count):
        raise NoTrainableTokens(
            f"No prompt leaves room for an answer within {room} tokens ({in_words(dropped)}). "
            "Raise max_seq_length, lower max_completion_length, or shorten the prompts."
        )
    return Examples(
        train=train.dataset(),
        evaluation=evaluation.dataset() if evaluation.rows.count else None,
        tokens=train.rows.tokens,
        dropped=len(dropped),
    )


def checked_fields(line: Line, check_fields: CheckFields) -> str:
    """A record's fields, as they stand in a row.

    Raises:
        WrongRecords: its completions cannot be rewarded by them.
    """
    fields = fields_of(line)
    check_fields(line.number, fields)
    return fields_as_json(fields)


def turns_of(record: Record, tokenizer: PreTrainedTokenizerBase, task: Task) -> list[Turn]:
    """The turns that a policy answers.

    Raises:
        WrongRecords: there are none, or tools, which no policy calls.
    """
    match record:
        case InputOutput(input=document) if task == "summarization":
            return [Turn("user", summarization_prompt(tokenizer, document))]
        case InputOutput(input=prompt):
            return [Turn("user", prompt)]
        case Prompt(turns=[asked]) if task == "summarization":
            return [Turn("user", summarization_prompt(tokenizer, asked.content))]
        case Prompt(turns=turns):
            return turns
        case Conversation(messages=turns, tools=None):
            last = max((place for place, turn in enumerate(turns) if turn.role == "assistant"), default=len(turns))
            if last == 0 or any(turn.tool_calls or turn.role == "tool" for turn in turns[:last]):
                raise WrongRecords("A conversation that a policy answers has a prompt before its answer, and no calls.")
            return turns[:last]
        case _:
            raise WrongRecords(
                f"A {type(record).__name__.lower()}{' with tools' if isinstance(record, Conversation) else ''} is no "
                "prompt for a policy: send prompts with answers."
            )


def prompt_for_policy(turns: list[Turn], tokenizer: PreTrainedTokenizerBase) -> PolicyPrompt:
    """The turns as trl takes them."""
    if tokenizer.chat_template is None:
        return plain_question(tokenizer, turns)
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def prompt_room(context: int, parameters: TrainingParameters) -> int:
    """How many tokens a policy's prompt can have: its completion stands in the same context.

    Raises:
        ConflictingParameters: none.
    """
    refuse(in_context(parameters, "rlhf", context))
    return context - parameters.max_completion_length


class _PromptRows:
    def __init__(self) -> None:
        self.rows = Rows("prompt_ids")
        self._prompts: list[PolicyPrompt] = []
        self._fields: list[str] = []

    def add(self, line: int, ids: list[int], prompt: PolicyPrompt, fields: str) -> None:
        self.rows.add(line=line, prompt_ids=ids)
        self._prompts.append(prompt)
        self._fields.append(fields)

    def dataset(self) -> Dataset:
        rows = self.rows.dataset().add_column("prompt", self._prompts)
        return rows.add_column(FIELDS, self._fields)
