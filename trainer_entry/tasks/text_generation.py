"""Text generation: the loss is on the answers and on nothing else, whatever the chat template looks like.

A conversation is written out by the model's own template. Where the assistant's turns stand in that text is
found by writing it out up to each turn; the tokens that touch those spans carry the loss.
"""

from collections.abc import Iterator
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace
from transformers import PreTrainedTokenizerBase

from trainer_entry.data.examples import IGNORED, Examples, Measure, Rows, examples_of
from trainer_entry.data.prompts import end_tokens, plain_prompt, render
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
            start = plain_prompt(prompt)
            yield _label_spans(start + answer, [(len(start), len(start) + len(answer))], tokenizer)
        case Conversation() if has_template:
            try:
                examples = list(_label_turns(record, tokenizer))
            except ChatTemplateFails:
                joined = join_turns(record.messages)
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
            yield _label_whole(text, tokenizer)
        case Question() | Preference():
            raise WrongRecords(
                f"A {type(record).__name__.lower()} is no text to learn: choose another task or strategy."
            )
        case _:
            assert_never(record)


def _label_whole(text: str, tokenizer: PreTrainedTokenizerBase) -> LabelledTokens:
    """A text as it is, from the tokenizer's own beginning token to an end token: as trl does it, every token counts."""
    input_ids = list(tokenizer(text, truncation=False)["input_ids"])
    end = tokenizer.eos_token_id
    if end is not None and input_ids[-1:] != [end]:
        input_ids.append(end)
    return LabelledTokens(input_ids, list(input_ids))


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
    closed = len(text.rstrip())
    return start, closed if text[:closed].endswith(tuple(end_tokens(tokenizer))) else len(text)


def _common_length(text: str, other: str) -> int:
    """How far two texts are the same."""
    if text.startswith(other):
        return len(other)
    return next(place for place, (one, two) in enumerate(zip(text, other + "\0", strict=False)) if one != two)


def _label_spans(text: str, spans: list[tuple[int, int]], tokenizer: PreTrainedTokenizerBase) -> LabelledTokens:
    """The text's tokens; those that touch a span are their own label."""
    # A template writes the beginning token itself: a second one would be there in training only.
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
        if input_ids[-1:] == [tokenizer.eos_token_id]:
            labels[-1] = input_ids[-1]
        else:
            input_ids.append(tokenizer.eos_token_id)
            labels.append(tokenizer.eos_token_id)
    return LabelledTokens(input_ids, labels)
