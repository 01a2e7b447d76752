"""Text generation: the loss is on the answers and on nothing else, whatever the chat template looks like.

A conversation is written out by the model's own template. Where the assistant's turns stand in that text is
found by writing it out up to each turn; the tokens that touch those spans carry the loss.
"""

import array
from collections.abc import Iterator
from typing import assert_never

import pyarrow as pa  # type: ignore[import-untyped]
from datasets import Dataset
from msgspec import Struct
from transformers import PreTrainedTokenizerBase

from trainer_entry.failures import NoChatTemplate, NoTrainableTokens
from trainer_entry.prompts import Message, end_tokens, plain_prompt, render
from trainer_entry.records import Conversation, InputOutput, Preference, Question, Record, Records
from trainer_entry.stdout import note

IGNORED = -100
"""The label of a token that carries no loss (torch's and transformers' own)."""

_BATCH = 1000
_SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])


class LabelledTokens(Struct, frozen=True, gc=False):
    """One training example."""

    input_ids: list[int]
    labels: list[int]


class TokenizedRecords(Struct, frozen=True, gc=False):
    """Records as the trainer takes them. `dropped`: examples without a token to learn from."""

    train: Dataset
    evaluation: Dataset | None
    tokens: int
    dropped: int


def tokenize(
    records: Records, held_out: frozenset[int], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> TokenizedRecords:
    """Tokenize and label every record; those at the places in `held_out` are for evaluation.

    Raises:
        NoTrainableTokens: nothing to learn from is left.
        NoChatTemplate: conversations, for a model that does not say how to write one.
    """
    train, evaluation = _Table(), _Table()
    dropped = shortened = 0
    for place, record in enumerate(records):
        for example in label(record, tokenizer):
            if any(token != IGNORED for token in example.labels[1:max_length]):
                (evaluation if place in held_out else train).add(example, max_length)
                shortened += len(example.input_ids) > max_length
            else:
                dropped += 1
    if shortened:
        note(f"{shortened} examples are longer than {max_length} tokens and were cut there.")
    if dropped:
        note(f"{dropped} examples were left out: no answer lies within their first {max_length} tokens.")
    if train.rows == 0:
        raise NoTrainableTokens(
            f"No record has an answer within its first {max_length} tokens. "
            "Raise max_seq_length, shorten the prompts, or fill the empty answers."
        )
    if held_out and evaluation.rows == 0:
        raise NoTrainableTokens(
            f"No record held out for evaluation has an answer within its first {max_length} tokens. "
            "Raise max_seq_length or eval_split."
        )
    return TokenizedRecords(
        train=train.dataset(),
        evaluation=evaluation.dataset() if evaluation.rows else None,
        tokens=train.tokens,
        dropped=dropped,
    )


def label(record: Record, tokenizer: PreTrainedTokenizerBase) -> Iterator[LabelledTokens]:
    """The record as tokens and labels: one example, or one for each answer where a template allows no more."""
    has_template = tokenizer.chat_template is not None
    match record:
        case InputOutput(input=prompt, output=answer) if has_template:
            yield from _label_turns([Message("user", prompt), Message("assistant", answer)], tokenizer)
        case InputOutput(input=prompt, output=answer):
            start = plain_prompt(prompt)
            yield _label_spans(start + answer, [(len(start), len(start) + len(answer))], tokenizer)
        case Conversation(messages=messages) if has_template:
            yield from _label_turns(messages, tokenizer)
        case Conversation():
            raise NoChatTemplate(
                "The records are conversations, and the model has no chat template to write them with. "
                "Use an instruction-tuned model, or records of input and output."
            )
        case Question() | Preference():
            raise TypeError(f"A {type(record).__name__} is no text to learn.")
        case _:
            assert_never(record)


def _label_turns(messages: list[Message], tokenizer: PreTrainedTokenizerBase) -> Iterator[LabelledTokens]:
    whole = render(tokenizer, messages, answer_follows=False)
    answers = [place for place, message in enumerate(messages) if message.role == "assistant"]
    texts = {place: render(tokenizer, messages[: place + 1], answer_follows=False) for place in answers}
    spans = {place: _answer_span(messages[:place], texts[place], tokenizer) for place in answers}
    if all(whole.startswith(texts[place][: spans[place][1]]) for place in answers):
        yield _label_spans(whole, list(spans.values()), tokenizer)
        return
    # The template writes earlier turns otherwise once later ones follow: each answer sees its own history.
    for place in answers:
        yield _label_spans(texts[place], [spans[place]], tokenizer)


def _answer_span(history: list[Message], text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Where the last answer stands in `text`: after what generation starts from, through its end token."""
    start = _common_length(text, render(tokenizer, history, answer_follows=True))
    # What follows the end token (a line break, mostly) is never generated.
    closed = len(text.rstrip())
    return start, closed if text[:closed].endswith(tuple(end_tokens(tokenizer))) else len(text)


def _common_length(text: str, other: str) -> int:
    """How far two texts are the same."""
    if text.startswith(other):
        return len(other)
    return next(place for place, (one, two) in enumerate(zip(text, other + "\0", strict=False)) if one != two)


def _label_spans(text: str, spans: list[tuple[int, int]], tokenizer: PreTrainedTokenizerBase) -> LabelledTokens:
    """The text's tokens; those that touch a span are their own label."""
    # A template writes the beginning token itself: a second one would be seen in training only.
    plain = tokenizer.chat_template is None
    encoded = tokenizer(text, add_special_tokens=plain, return_offsets_mapping=True, truncation=False)
    input_ids, labels = list(encoded["input_ids"]), []
    waiting = iter(sorted(spans))
    start, end = next(waiting, (len(text), len(text)))
    for token, (first, last) in zip(input_ids, encoded["offset_mapping"], strict=True):
        while first >= end and (span := next(waiting, None)):
            start, end = span
        labels.append(token if start < last and first < end and first < last else IGNORED)
    closes = bool(spans) and spans[-1][1] == len(text) and not text.endswith(tuple(end_tokens(tokenizer)))
    if closes and tokenizer.eos_token_id is not None:
        if input_ids[-1] == tokenizer.eos_token_id:
            labels[-1] = input_ids[-1]
        else:
            input_ids.append(tokenizer.eos_token_id)
            labels.append(tokenizer.eos_token_id)
    return LabelledTokens(input_ids, labels)


class _Table:
    """Rows of 32-bit integers: a record costs its tokens, not a Python object for each."""

    def __init__(self) -> None:
        self.rows = 0
        self.tokens = 0
        self._batches: list[pa.RecordBatch] = []
        self._input_ids: list[array.array[int]] = []
        self._labels: list[array.array[int]] = []

    def add(self, example: LabelledTokens, max_length: int) -> None:
        self._input_ids.append(array.array("i", example.input_ids[:max_length]))
        self._labels.append(array.array("i", example.labels[:max_length]))
        self.rows += 1
        self.tokens += len(self._input_ids[-1])
        if len(self._input_ids) == _BATCH:
            self._flush()

    def dataset(self) -> Dataset:
        self._flush()
        return Dataset(pa.Table.from_batches(self._batches, schema=_SCHEMA))

    def _flush(self) -> None:
        self._batches.append(
            pa.RecordBatch.from_arrays(
                [pa.array(self._input_ids, type=_SCHEMA.types[0]), pa.array(self._labels, type=_SCHEMA.types[1])],
                schema=_SCHEMA,
            )
        )
        self._input_ids.clear()
        self._labels.clear()
