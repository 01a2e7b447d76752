"""Text generation: the loss is on the answers and on nothing else, whatever the chat template looks like.

A conversation is written out by the model's own template. Where the assistant's turns stand in that text is
found by writing it out up to each turn; the tokens that touch those spans carry the loss.
"""

from collections.abc import Iterator, Sequence
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace
from transformers import PreTrainedTokenizerBase

from trainer_entry.data.edges import bare, edges_of, kept_places, text_ids
from trainer_entry.data.examples import IGNORED, Examples, Measure, Rows, examples_of
from trainer_entry.data.prompts import opened, render, trimmed_turns
from trainer_entry.data.records import Conversation, InputOutput, Preference, Prompt, Question, Record, Records, Turn
from trainer_entry.runtime.failures import ChatTemplateFails, NoChatTemplate, WrongRecords, naming_line
from trainer_entry.wire import Truncation
from trainer_entry.wire.formats import Text


class LabelledTokens(Struct, frozen=True, gc=False):
    """One training example."""

    input_ids: list[int]
    labels: list[int]


class CutTokens(Struct, frozen=True, gc=False):
    """A training example as far as there was room for it. `length`: in tokens, of all of it.

    `left_out`: why it is not trained on, where it is not.
    """

    input_ids: list[int]
    labels: list[int]
    length: int
    left_out: str | None = None

    @property
    def is_cut(self) -> bool:
        """Whether a part is missing."""
        return self.length > len(self.input_ids)


def prepare(
    records: Records,
    held_out: frozenset[int],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    truncation: Truncation = "right",
) -> Examples:
    """Tokenize and label every record; those at the places in `held_out` are for evaluation.

    Raises:
        NoTrainableTokens: nothing to learn from is left.
        NoChatTemplate: conversations, for a model that does not say how to write one.
    """
    found = ((line, fitted(record, tokenizer, max_length, truncation)) for line, record in records.by_line())
    return gather(found, held_out, max_length)


def gather(
    found: Iterator[tuple[int, Iterator[CutTokens]]],
    held_out: frozenset[int],
    max_length: int,
    measure: Measure | None = None,
) -> Examples:
    """The examples of records, with their lines."""
    train, evaluation = Rows("input_ids", "labels"), Rows("input_ids", "labels")
    dropped: list[int] = []
    cut = 0
    for place, (line, lazy) in enumerate(found):
        with naming_line(line):
            examples = list(lazy)
        for example in examples:
            if example.left_out is None:
                rows = evaluation if place in held_out else train
                rows.add(line=line, input_ids=example.input_ids, labels=example.labels)
                cut += example.is_cut
            else:
                dropped.append(line)
    return examples_of(train, evaluation, dropped, max_length, held_out=bool(held_out), cut=cut, measure=measure)


def fitted(
    record: Record, tokenizer: PreTrainedTokenizerBase, max_length: int, truncation: Truncation = "right"
) -> Iterator[CutTokens]:
    """The record's examples in at most `max_length` tokens each."""
    for example in label(record, tokenizer):
        yield cut_tokens(example, tokenizer, max_length, truncation)


def cut_tokens(
    example: LabelledTokens, tokenizer: PreTrainedTokenizerBase, max_length: int, truncation: Truncation = "right"
) -> CutTokens:
    """As much of the example as there is room for; what begins a text stays where the rest of the beginning goes."""
    length = len(example.input_ids)
    if truncation == "drop" and length > max_length:
        left_out = f"It has {length} tokens, and there is room for {max_length}."
        return CutTokens(example.input_ids[:max_length], example.labels[:max_length], length, left_out)
    places = kept_places(example.input_ids, tokenizer, max_length, truncation)
    input_ids, labels = [example.input_ids[at] for at in places], [example.labels[at] for at in places]
    # The first token is never predicted.
    teaches = any(token != IGNORED for token in labels[1:])
    where = "last" if truncation == "left" else "first"
    return CutTokens(
        input_ids, labels, length, None if teaches else f"There is no answer within its {where} {max_length} tokens."
    )


def label(record: Record, tokenizer: PreTrainedTokenizerBase) -> Iterator[LabelledTokens]:
    """The record as tokens and labels: one example, or one for each answer where a template allows no more."""
    has_template = tokenizer.chat_template is not None
    match record:
        case InputOutput(input=prompt, output=answer) if has_template:
            yield from _label_turns(Conversation([Turn("user", prompt), Turn("assistant", answer)]), tokenizer)
        case InputOutput(input=prompt, output=answer):
            opening, start = opened(tokenizer, prompt)
            whole = start + bare(tokenizer, answer)
            yield _label_spans(whole, [(len(start), len(whole))], tokenizer, opening)
        case Conversation() if has_template:
            try:
                examples = list(_label_turns(record, tokenizer))
            except ChatTemplateFails:
                joined = join_turns(trimmed_turns(tokenizer, record.messages))
                if len(joined) == len(record.messages):
                    raise
                examples = list(_label_turns(Conversation(joined, record.tools), tokenizer))
            yield from examples
        case Conversation():
            raise NoChatTemplate(
                "The records are conversations, and the model has no chat template to write them with. "
                "Use an instruction-tuned model, or records whose prompts and answers are plain texts."
            )
        case Text(text=text):
            input_ids = text_ids(tokenizer, text)
            yield LabelledTokens(input_ids, list(input_ids))  # as trl does it, every token counts
        case Question() | Preference() | Prompt():
            raise WrongRecords(
                f"A {type(record).__name__.lower()} is no text to learn: choose another task or strategy."
            )
        case _:
            assert_never(record)


def _label_turns(conversation: Conversation, tokenizer: PreTrainedTokenizerBase) -> Iterator[LabelledTokens]:
    messages, tools = trimmed_turns(tokenizer, conversation.messages), conversation.tools
    whole = render(tokenizer, messages, tools, answer_follows=False)
    answers = [place for place, turn in enumerate(messages) if turn.role == "assistant" and turn.learned]
    texts = {place: render(tokenizer, messages[: place + 1], tools, answer_follows=False) for place in answers}
    spans = {
        place: _answer_span(texts[place], render(tokenizer, messages[:place], tools, answer_follows=True), tokenizer)
        for place in answers
    }
    if all(whole.startswith(texts[place][: spans[place][1]]) for place in answers):
        yield _label_spans(whole, list(spans.values()), tokenizer)
        return
    # The template writes earlier turns otherwise once later ones follow: each answer sees its own history.
    for place in answers:
        yield _label_spans(texts[place], [spans[place]], tokenizer)


def join_turns(turns: list[Turn]) -> list[Turn]:
    """The turns of one speaker that follow each other as one, for a template that wants turns to alternate."""
    joined: list[Turn] = []
    for turn in turns:
        before = joined[-1] if joined else None
        if before is None or before.role != turn.role or before.learned != turn.learned or not _is_plain(before, turn):
            joined.append(turn)
        else:
            joined[-1] = replace(before, content=f"{before.content}\n\n{turn.content}")
    return joined


def _is_plain(*turns: Turn) -> bool:
    """Whether they have nothing but their contents; results of tools belong to one call each."""
    return all(turn == Turn(turn.role, turn.content, turn.learned) and turn.role != "tool" for turn in turns)


def _answer_span(text: str, asked: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Where the last answer stands in `text`: after what generation starts from, through its end token."""
    start = _common_length(text, asked)
    # What follows the end token (a line break, mostly) is never generated.
    closed = edges_of(tokenizer).closed_length(text)
    return start, len(text) if closed is None else closed


def _common_length(text: str, other: str) -> int:
    """How far two texts are the same."""
    if text.startswith(other):
        return len(other)
    return next(place for place, (one, two) in enumerate(zip(text, other + "\0", strict=False)) if one != two)


def _label_spans(
    text: str, spans: list[tuple[int, int]], tokenizer: PreTrainedTokenizerBase, opening: Sequence[int] | None = None
) -> LabelledTokens:
    """The text's tokens; those that touch a span are their own label. `opening`: where no template wrote the text."""
    # A template writes the beginning token itself: a second one would be there in training only.
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False)
    before = list(opening or ())
    input_ids, labels = [*before, *encoded["input_ids"]], [IGNORED] * len(before)
    waiting = iter(sorted(spans))
    start, end = next(waiting, (len(text), len(text)))
    for token, (first, last) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        while first >= end and (span := next(waiting, None)):
            start, end = span
        labels.append(token if start < last and first < end and first < last else IGNORED)
    is_closed = opening is None and edges_of(tokenizer).closed_length(text) is not None
    if spans and spans[-1][1] == len(text) and not is_closed and tokenizer.eos_token_id is not None:
        input_ids.append(tokenizer.eos_token_id)
        labels.append(tokenizer.eos_token_id)
    return LabelledTokens(input_ids, labels)
