"""Summaries: by encoder-decoder models from the text itself, by causal models from a prompt that asks for one."""
# mypy: allow-untyped-calls

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from trainer_entry.data.edges import bare
from trainer_entry.data.examples import MEASURED_RECORDS, Examples, Measure, Rows, examples_of
from trainer_entry.data.prompts import prompt_ids, summarization_prompt, summarization_source
from trainer_entry.data.records import InputOutput, Record, Records
from trainer_entry.providers.huggingface import decoder_positions
from trainer_entry.runtime.failures import WrongRecords
from trainer_entry.tasks.greedy import write_greedily
from trainer_entry.tasks.metrics import rouge
from trainer_entry.tasks.text_generation import CutTokens, cut_tokens, gather, label

_ANSWERED_AT_ONCE = 8


class Pair(Struct, frozen=True, gc=False):
    """A text and its summary as an encoder-decoder model takes them; their lengths, in tokens, before they were cut."""

    source: list[int]
    target: list[int]
    source_length: int
    target_length: int

    @property
    def is_cut(self) -> bool:
        """Whether the end of either is missing."""
        return self.source_length > len(self.source) or self.target_length > len(self.target)


def prepare(
    records: Records,
    held_out: frozenset[int],
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> Examples:
    """Tokenize texts and summaries; those at the places in `held_out` are for evaluation, and for ROUGE.

    Raises:
        NoTrainableTokens: nothing to learn from is left.
        WrongRecords: a record is no text with a summary.
    """
    documents = [(line, document_of(record)) for line, record in records.by_line()]
    measured = [document for place, (_, document) in enumerate(documents) if place in held_out][:MEASURED_RECORDS]
    longest = max((len(tokenizer(document.output)["input_ids"]) for _, document in documents), default=1)
    room = answer_room(config, max_length)
    limit = min(longest + 1, room)  # and an end token
    if not config.is_encoder_decoder:
        found = ((line, iter([fitted(document, tokenizer, max_length)])) for line, document in documents)
        return gather(found, held_out, max_length, _measure(measured, tokenizer, max_length, limit))
    columns = ("input_ids", "labels")
    train, evaluation = Rows(*columns), Rows(*columns)
    dropped: list[int] = []
    cut = 0
    for place, (line, document) in enumerate(documents):
        if not document.output.strip():
            dropped.append(line)
            continue
        pair = pair_of(document, config, tokenizer, max_length, room)
        cut += pair.is_cut
        (evaluation if place in held_out else train).add(line=line, input_ids=pair.source, labels=pair.target)
    measure = _measure(measured, tokenizer, max_length, limit)
    return examples_of(train, evaluation, dropped, max_length, held_out=bool(held_out), cut=cut, measure=measure)


def answer_room(config: PreTrainedConfig, max_length: int) -> int:
    """How long a summary can be: as the decoder allows; in one context with its text, half of it."""
    if not config.is_encoder_decoder:
        return max(1, max_length // 2)
    positions = decoder_positions(config)
    return max_length if positions is None else min(max_length, positions)


def pair_of(
    document: InputOutput, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, max_length: int, room: int
) -> Pair:
    """The text in at most `max_length` tokens, and its summary in at most `room`, which carries the loss."""
    asked, summary = bare(tokenizer, document.input), bare(tokenizer, document.output)
    source = tokenizer(summarization_source(config, asked), truncation=True, max_length=max_length)
    target = tokenizer(text_target=summary, truncation=True, max_length=room)
    around = tokenizer.num_special_tokens_to_add()
    lengths = [
        len(tokens["input_ids"])
        + sum(len(part.ids) - around for encoding in tokens.encodings or [] for part in encoding.overflowing)
        for tokens in (source, target)
    ]
    return Pair(list(source["input_ids"]), list(target["input_ids"]), *lengths)


def asked_for(tokenizer: PreTrainedTokenizerBase, document: InputOutput) -> InputOutput:
    """The record as a causal model takes it: a prompt that asks for the summary, and the summary."""
    return InputOutput(summarization_prompt(tokenizer, document.input), document.output)


def fitted(document: InputOutput, tokenizer: PreTrainedTokenizerBase, max_length: int) -> CutTokens:
    """The text, cut to what the whole summary leaves room for in `max_length` tokens; half of them are a summary's."""
    (whole,) = label(asked_for(tokenizer, document), tokenizer)
    length = len(whole.input_ids)
    if length <= max_length:
        return cut_tokens(whole, tokenizer, max_length)
    answer = length - len(prompt_ids(tokenizer, summarization_prompt(tokenizer, document.input)))
    least = max_length - max(1, max_length // 2)
    room, text = max(least, max_length - answer), document.input
    while True:
        text, _ = _text_within(room, tokenizer, text)
        (example,) = label(asked_for(tokenizer, InputOutput(text, document.output)), tokenizer)
        missing = len(example.input_ids) - max_length
        if missing <= 0 or room == least:
            break
        room = max(least, room - missing)  # what stands before a summary decides about its first tokens
    return msgspec.structs.replace(cut_tokens(example, tokenizer, max_length), length=length)


def document_of(record: Record) -> InputOutput:
    """The record, if it is a text with a summary.

    Raises:
        WrongRecords: it is not.
    """
    if isinstance(record, InputOutput):
        return record
    raise WrongRecords(f"A {type(record).__name__.lower()} is no text with a summary.")


def _measure(
    documents: list[InputOutput], tokenizer: PreTrainedTokenizerBase, max_length: int, limit: int
) -> Measure | None:
    """ROUGE of the summaries that a model writes of `documents`, greedily, in `limit` tokens at most."""
    if not documents:
        return None

    def measure(model: Any, alive: Callable[[], None]) -> dict[str, float | None]:
        written: list[str] = []
        for begin in range(0, len(documents), _ANSWERED_AT_ONCE):
            alive()
            written += summarize(model, tokenizer, documents[begin : begin + _ANSWERED_AT_ONCE], max_length, limit)
        return rouge(written, [document.output for document in documents])

    return measure


def summarize(
    model: Any, tokenizer: PreTrainedTokenizerBase, documents: list[InputOutput], max_length: int, limit: int
) -> list[str]:
    """The model's summaries of some texts."""
    if model.config.is_encoder_decoder:
        sources = [summarization_source(model.config, document.input) for document in documents]
        prompts = [tokenizer(source, truncation=True, max_length=max_length)["input_ids"] for source in sources]
    else:
        prompts = [_text_within(max_length - limit, tokenizer, document.input)[1] for document in documents]
    answers = write_greedily(model, tokenizer, prompts, limit)
    return [str(text).strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]


def _text_within(room: int, tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[str, list[int]]:
    """As much of the text as its prompt has room for, and the prompt: what stands after the text begins the answer."""
    while len(ids := prompt_ids(tokenizer, summarization_prompt(tokenizer, text))) > room and text:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = encoded["offset_mapping"]
        kept = max(0, len(offsets) - (len(ids) - room))
        text = text[: min(offsets[kept][0], len(text) - 1)] if offsets else ""
    return text, ids
