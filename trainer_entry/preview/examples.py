"""A dataset as a model reads it: what the trainer makes of each record, found without the model's weights.

Everything here is made by the functions that a training makes it by; a test holds both to be the same.
"""
# mypy: allow-untyped-calls

from collections.abc import Iterable, Iterator
from typing import assert_never

from trainer_entry.data.examples import IGNORED
from trainer_entry.data.records import Line
from trainer_entry.preview.sequences import TokenizationContext, TokenizedExample, TokenizedSequence
from trainer_entry.runtime.bounds import PREVIEW_SECONDS
from trainer_entry.runtime.failures import naming_line
from trainer_entry.tasks import question_answering, summarization, text_generation


def examples_of(lines: Iterator[Line], context: TokenizationContext) -> Iterator[TokenizedExample]:
    """What the trainer makes of the records in `lines`, in their order.

    Raises:
        NoChatTemplate: conversations, for a model that does not say how to write one.
        ChatTemplateFails: the model's template cannot write one of them; the message names its line.
    """
    if context.job.strategy in {"dpo", "rlhf"}:
        from trainer_entry.preview import preferences  # with trl, which takes seconds to import

        compares = context.job.dataset.format == "preferences"
        yield from (preferences.preferences_of if compares else preferences.prompts_of)(lines, context)
        return
    for line in lines:
        with naming_line(line.number, PREVIEW_SECONDS):
            yield from _of_line(line, context)


def _of_line(line: Line, context: TokenizationContext) -> Iterator[TokenizedExample]:
    config = context.source.config
    match context.job.task:
        case "text-generation":
            tokenizer, limit, truncation = context.source.tokenizer, context.max_length, context.parameters.truncation
            return _texts(line.number, text_generation.fitted(line.record, tokenizer, limit, truncation), context)
        case "summarization" if config.is_encoder_decoder:
            return iter([_pair(line, context)])
        case "summarization":
            document = summarization.document_of(line.record)
            return _texts(
                line.number, [summarization.fitted(document, context.source.tokenizer, context.max_length)], context
            )
        case "extractive-question-answering":
            return _windows(line, context)
        case _:
            assert_never(context.job.task)


def _texts(
    line: int, examples: Iterable[text_generation.CutTokens], context: TokenizationContext
) -> Iterator[TokenizedExample]:
    for example in examples:
        loss = [place > 0 and token != IGNORED for place, token in enumerate(example.labels)]
        text = TokenizedSequence("text", example.input_ids, loss, example.length, context.max_length)
        yield TokenizedExample(line, (text,), left_out=example.left_out)


def _pair(line: Line, context: TokenizationContext) -> TokenizedExample:
    document, config, limit = summarization.document_of(line.record), context.source.config, context.max_length
    room = summarization.answer_room(config, limit)
    pair = summarization.pair_of(document, config, context.source.tokenizer, limit, room)
    return TokenizedExample(
        line.number,
        (
            TokenizedSequence("source", pair.source, [False] * len(pair.source), pair.source_length, limit),
            TokenizedSequence("target", pair.target, [True] * len(pair.target), pair.target_length, room),
        ),
        left_out=None if document.output.strip() else "The summary is blank.",
    )


def _windows(line: Line, context: TokenizationContext) -> Iterator[TokenizedExample]:
    limit = context.max_length
    question = question_answering.question_of(line.record)
    cut = question_answering.labelled(question, context.source.tokenizer, limit, context.parameters.doc_stride)
    left_out = (
        f"Every window of {limit} tokens cuts the answer apart." if question_answering.is_lost(question, cut) else None
    )
    for window, (start, end) in cut:
        ids = window.input_ids
        loss = [place in {start, end} for place in range(len(ids))]
        yield TokenizedExample(
            line.number, (TokenizedSequence("window", ids, loss, len(ids), limit, start, end),), left_out=left_out
        )
