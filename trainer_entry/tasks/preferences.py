"""Preferences: two answers to a prompt, as trl's trainers take them.

A model with a chat template gets conversations, which trl writes out by it; one without gets plain texts.
"""

import msgspec
from datasets import Dataset
from msgspec import Struct
from transformers import PreTrainedTokenizerBase

from trainer_entry.attempt_trainer import in_words
from trainer_entry.examples import Examples
from trainer_entry.failures import NoChatTemplate, NoTrainableTokens, WrongRecords
from trainer_entry.prompts import Message, plain_prompt, render, summarization_prompt
from trainer_entry.records import Preference, Record, Records
from trainer_entry.stdout import note
from trainer_entry.wire import Task


class _Row(Struct, frozen=True, gc=False):
    line: int
    prompt: str | list[Message]
    chosen: str | list[Message]
    rejected: str | list[Message]


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
    train: list[_Row] = []
    evaluation: list[_Row] = []
    dropped: list[int] = []
    tokens = 0
    for place, (line, record) in enumerate(records.by_line()):
        preference = _preference(record, task)
        row = _row(line, preference, tokenizer)
        size = _prompt_tokens(row.prompt, tokenizer)
        if size >= max_length:
            dropped.append(line)
            continue
        tokens += size
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
        train=_dataset(train), evaluation=_dataset(evaluation) if evaluation else None, tokens=tokens,
        dropped=len(dropped),
    )  # fmt: skip


def _preference(record: Record, task: Task) -> Preference:
    if not isinstance(record, Preference):
        raise WrongRecords(f"A {type(record).__name__.lower()} is no preference: send prompt, chosen and rejected.")
    if task != "summarization" or len(record.prompt) != 1:
        return record
    asked = Message("user", summarization_prompt(record.prompt[0].content))
    return msgspec.structs.replace(record, prompt=[asked])


def _row(line: int, preference: Preference, tokenizer: PreTrainedTokenizerBase) -> _Row:
    if tokenizer.chat_template is not None:
        return _Row(line, preference.prompt, preference.chosen, preference.rejected)
    parts = (preference.prompt, preference.chosen, preference.rejected)
    if any(len(turns) != 1 for turns in parts):
        raise NoChatTemplate(
            "The records are conversations, and the model has no chat template to write them with. "
            "Use an instruction-tuned model, or records whose prompts and answers are plain texts."
        )
    prompt, chosen, rejected = (turns[0].content for turns in parts)
    return _Row(line, plain_prompt(prompt), chosen, rejected)


def _prompt_tokens(prompt: str | list[Message], tokenizer: PreTrainedTokenizerBase) -> int:
    if isinstance(prompt, str):
        return len(tokenizer(prompt)["input_ids"])
    text = render(tokenizer, prompt, answer_follows=True)
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _dataset(rows: list[_Row]) -> Dataset:
    return Dataset.from_list([msgspec.to_builtins(row) for row in rows])
