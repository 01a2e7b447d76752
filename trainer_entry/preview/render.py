"""The first records of a dataset, with every token that a model reads of them."""

from collections.abc import Iterator
from itertools import groupby

import msgspec
from transformers import PreTrainedTokenizerBase

from trainer_entry.data.records import Line
from trainer_entry.preview.examples import examples_of
from trainer_entry.preview.sequences import TokenizationContext, TokenizedExample
from trainer_entry.preview.token_text import token_texts
from trainer_entry.wire import (
    MOST_PREVIEWED_BYTES,
    DatasetPreview,
    ExampleView,
    PreviewedRecord,
    PreviewRequest,
    SequenceView,
    TokenView,
)

_MOST_TOKENS = 50_000
"""A preview ends after the example in which so many were shown."""


def preview_of(request: PreviewRequest, context: TokenizationContext, lines: list[Line]) -> DatasetPreview:
    """The records in some lines, each with what a trainer makes of it, until too many tokens were shown."""
    tokenizer, dataset = context.source.tokenizer, request.job.dataset
    contents = {line.number: line.content.strip() for line in lines}
    records: list[PreviewedRecord] = []
    shown = 0
    for number, examples in groupby(examples_of(iter(lines), context), key=lambda example: example.line):
        if shown >= _MOST_TOKENS:
            break
        shown_examples: list[ExampleView] = []
        hidden = 0
        for example in examples:  # a long context has many windows
            if shown >= _MOST_TOKENS:
                hidden += 1
                continue
            shown_examples.append(_view_of(example, tokenizer))
            shown += sum(len(sequence.ids) for sequence in example.sequences)
        record = msgspec.Raw(contents[number])
        records.append(
            PreviewedRecord(line=number, record=record, examples=tuple(shown_examples), more_examples=hidden)
        )
    return DatasetPreview(
        filename=dataset.filename,
        revision=request.revision,
        format=dataset.format,
        num_examples=dataset.num_examples,
        records=tuple(records),
        has_more=len(records) < dataset.num_examples,
        columns=request.columns,
        seen_with=context.settings,
    )


def _view_of(example: TokenizedExample, tokenizer: PreTrainedTokenizerBase) -> ExampleView:
    return ExampleView(
        sequences=tuple(
            SequenceView(
                name=sequence.name,
                tokens=tuple(
                    TokenView(id=number, text=text, loss=loss)
                    for number, text, loss in zip(
                        sequence.ids, token_texts(tokenizer, sequence.ids), sequence.loss, strict=True
                    )
                ),
                length=sequence.length,
                start=sequence.start,
                end=sequence.end,
            )
            for sequence in example.sequences
        ),
        left_out=example.left_out,
    )


def first_lines(lines: Iterator[Line], limit: int) -> Iterator[Line]:
    """At most `limit` of the lines, and none after so many bytes that a person cannot read them anyway."""
    size = 0
    for count, line in enumerate(lines, start=1):
        yield line
        size += len(line.content)
        if count == limit or size >= MOST_PREVIEWED_BYTES:
            return
