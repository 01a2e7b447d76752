"""Text generation: the loss is on the answers and on nothing else, whatever the chat template looks like.

A conversation is written out by the model's own template. Where the assistant's turns stand in that text is
found by writing it out up to each turn; the tokens that touch those spans carry the loss.
"""

from collections.abc import Iterator, Sequence
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace
from transformers import PreTrainedTokenizerBase

from trainer_entry.data.edges import bare, edges_of, text_ids
from trainer_entry.data.examples import IGNORED, Examples, Measure, Rows, examples_of
from trainer_entry.data.prompts import opening_of, plain_prompt, render, trimmed_turn
from trainer_entry.data.records import Conversation, InputOutput, Preference, Question, Record, Records, Turn
from trainer_entry.runtime.failures import ChatTemplateFails, NoChatTemplate, WrongRecords, naming_line
from trainer_entry.runtime.stdout import note
from trainer_entry.wire.formats import Text


class LabelledTokens(Struct, frozen=True, gc=False):
    """One training example."""

    input_ids: list[int]
    labels: list[int]


class CutTokens(Struct, frozen=True, gc=False):
    """A training example as far as there was room for it. `length`: in tokens, of all of it."""

    input_ids: list[int]
    labels: list[int]
    length: int

    @property
    def is_cut(self) -> bool:
        """Whether its end is missing."""
        return self.length > len(self.input_ids)

    @property
    def teaches(self) -> bool:
        """Whether there is a loss: the first token is never predicted."""
        return any(token != IGNORED for token in self.labels[1:])


def prepare(
    records: Records, held_out: frozenset[int], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Examples:
    """Tokenize and label every record; those at the places in `held_out` are for evaluation.

    Raises:
        NoTrainableTokens: nothing to learn from is left.
        NoChatTemplate: conversations, for a model that does not say how to write one.
    """
    return label_all(records.by_line(), held_out, tokenizer, max_length)


def label_all(
    records: Iterator[tuple[int, Record]],
    held_out: frozenset[int],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    measure: Measure | None = None,
) -> Examples:
    """Records with their lines as labelled tokens."""
    train, evaluation = Rows("input_ids", "labels"), Rows("input_ids", "labels")
    dropped: list[int] = []
    shortened = 0
    for place, (line, record) in enumerate(records):
        with naming_line(line):
            examples = list(fitted(record, tokenizer, max_length))
        for example in examples:
            if example.teaches:
                rows = evaluation if place in held_out else train
                rows.add(line=line, input_ids=example.input_ids, labels=example.labels)
                shortened += example.is_cut
            else:
                dropped.append(line)
    if shortened:
        note(f"{shortened} examples are longer than {max_length} tokens and were cut there.")
    return examples_of(train, evaluation, dropped, max_length, held_out=bool(held_out), measure=measure)


def fitted(record: Record, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Iterator[CutTokens]:
    """The record's examples, cut where `max_length` tokens end; one that teaches nothing then is not trained on."""
    for example in label(record, tokenizer):
        yield CutTokens(example.input_ids[:max_length], example.labels[:max_length], len(example.input_ids))


def label(record: Record, tokenizer: PreTrainedTokenizerBase) -> Iterator[LabelledTokens]:
    """The record as tokens and labels: one example, or one for each answer where a template allows no more."""
    has_template = tokenizer.chat_template is not None
    match record:
        case InputOutput(input=prompt, output=answer) if has_template:
            yield from _label_turns(Conversation([Turn("user", prompt), Turn("assistant", answer)]), tokenizer)
        case InputOutput(input=prompt, output=answer):
            start, answer = plain_prompt(bare(tokenizer, prompt)), bare(tokenizer, answer)
            span = len(start), len(start) + len(answer)
            yield _label_spans(start + answer, [span], tokenizer, opening_of(tokenizer, prompt))
        case Conversation() if has_template:
            try:
                examples = list(_label_turns(record, tokenizer))
            except ChatTemplateFails:
                joined = join_turns([trimmed_turn(tokenizer, turn) for turn in record.messages])
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
        case Question() | Preference():
            raise WrongRecords(
                f"A {type(record).__name__.lower()} is no text to learn: choose another task or strategy."
            )
        case _:
            assert_never(record)


def _label_turns(conversation: Conversation, tokenizer: PreTrainedTokenizerBase) -> Iterator[LabelledTokens]:
    messages, tools = conversation.messages, conversation.tools
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
