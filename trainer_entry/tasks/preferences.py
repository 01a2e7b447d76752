"""Preferences: two answers to a prompt, as trl's trainers take them.

A model with a chat template gets conversations, which trl writes out by it; one without gets plain texts.
"""

import msgspec
from datasets import Dataset
from msgspec import Struct
from transformers import PreTrainedTokenizerBase

from trainer_entry.data.examples import Examples, in_words
from trainer_entry.data.prompts import plain_prompt, render, summarization_prompt
from trainer_entry.data.records import Preference, Record, Records, Turn
from trainer_entry.runtime.failures import (
    ConflictingParameters,
    NoChatTemplate,
    NoTrainableTokens,
    WrongRecords,
    naming_line,
)
from trainer_entry.runtime.stdout import note
from trainer_entry.wire import Task, TrainingParameters

_TEXTS = ("prompt", "chosen", "rejected")


class Row(Struct, frozen=True, gc=False):
    """A preference as trl's trainers take it. `size`: how many tokens its prompt has."""

    line: int
    size: int
    prompt: str | list[Turn]
    chosen: str | list[Turn]
    rejected: str | list[Turn]


def prepare(
    records: Records,
    held_out: frozenset[int],
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    max_length: int,
) -> Examples:
    """Rows of prompt, chosen and rejected; those at the places in `held_out` are for evaluation.

    A prompt that leaves no room in `max_length` tokens for an answer is left out.

    Raises:
        NoTrainableTokens: nothing to learn from is left.
        NoChatTemplate: conversations, for a model that does not say how to write one.
        WrongRecords: a record is no preference.
    """
    train: list[Row] = []
    evaluation: list[Row] = []
    dropped: list[int] = []
    tokens = 0
    for place, (line, record) in enumerate(records.by_line()):
        with naming_line(line):
            row = row_of(line, record, tokenizer, task)
        if row.size >= max_length:
            dropped.append(line)
            continue
        tokens += row.size
        (evaluation if place in held_out else train).append(row)
    if dropped:
        note(f"{len(dropped)} records were left out, whose prompts have {max_length} tokens or more: "
             f"{in_words(dropped)}.")  # fmt: skip
    if not train or (held_out and not evaluation):
        raise NoTrainableTokens(
            f"No prompt leaves room for an answer within {max_length} tokens ({in_words(dropped)}). "
            "Raise max_seq_length, or shorten the prompts."
        )
    return Examples(
        train=dataset_of(train), evaluation=dataset_of(evaluation) if evaluation else None, tokens=tokens,
        dropped=len(dropped),
    )  # fmt: skip


def row_of(line: int, record: Record, tokenizer: PreTrainedTokenizerBase, task: Task) -> Row:
    """The record as a row: of conversations for a model with a chat template, else of plain texts.

    Raises:
        NoChatTemplate: conversations, for a model that does not say how to write one.
        WrongRecords: it is no preference.
    """
    preference = _preference(record, task)
    parts = (preference.prompt, preference.chosen, preference.rejected)
    if tokenizer.chat_template is not None:
        text = render(tokenizer, preference.prompt, answer_follows=True)
        return Row(line, len(tokenizer(text, add_special_tokens=False)["input_ids"]), *parts)
    if any(len(turns) != 1 for turns in parts):
        raise NoChatTemplate(
            "The records are conversations, and the model has no chat template to write them with. "
            "Use an instruction-tuned model, or records whose prompts and answers are plain texts."
        )
    prompt, chosen, rejected = (turns[0].content for turns in parts)
    asked = plain_prompt(prompt)
    return Row(line, len(tokenizer(asked)["input_ids"]), asked, chosen, rejected)


def dataset_of(rows: list[Row]) -> Dataset:
    """The rows as a dataset, each with its line."""
    return Dataset.from_list(
        [{"line": row.line, **{name: _for_trl(getattr(row, name)) for name in _TEXTS}} for row in rows]
    )


def _for_trl(part: str | list[Turn]) -> str | list[dict[str, str]]:
    return part if isinstance(part, str) else [{"role": turn.role, "content": turn.content} for turn in part]


def prompt_room(context: int, parameters: TrainingParameters) -> int:
    """How many tokens a policy's prompt can have: its completion stands in the same context.

    Raises:
        ConflictingParameters: none.
    """
    room = context - parameters.max_completion_length
    if room < 1:
        raise ConflictingParameters(
            f"max_completion_length {parameters.max_completion_length} leaves no room for a prompt: the model takes "
            f"{context} tokens. Lower it."
        )
    return room


def _preference(record: Record, task: Task) -> Preference:
    if not isinstance(record, Preference):
        raise WrongRecords(f"A {type(record).__name__.lower()} is no preference: send prompt, chosen and rejected.")
    if task != "summarization" or len(record.prompt) != 1:
        return record
    asked = Turn("user", summarization_prompt(record.prompt[0].content))
    return msgspec.structs.replace(record, prompt=[asked])
