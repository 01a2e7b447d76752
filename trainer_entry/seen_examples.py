"""A dataset as a model sees it: what the trainer makes of each record, found without the model's weights.

Everything here is made by the functions that a training makes it by; a test holds both to be the same.
"""
# mypy: allow-untyped-calls

from collections.abc import Iterator
from typing import assert_never

from msgspec import Struct

from trainer_entry.examples import IGNORED
from trainer_entry.failures import ModelUnavailable, kind_of, message_of, told_with_line
from trainer_entry.parameters import in_effect, with_model
from trainer_entry.providers.huggingface import Source, context_of, find, model_class
from trainer_entry.records import Line
from trainer_entry.tasks import answers, summarization, text_generation
from trainer_entry.wire import JobSpec, SequenceName, Sight, TrainingParameters


class Reading(Struct, frozen=True, gc=False):
    """How a job reads its dataset: with a model's config and tokenizer, and with every parameter in effect."""

    job: JobSpec
    source: Source
    parameters: TrainingParameters
    context: int
    max_length: int

    @property
    def sight(self) -> Sight:
        """The settings to tell."""
        job = self.job
        return Sight(
            task=job.task,
            strategy=job.strategy,
            provider=job.provider,
            model_name=job.model_name,
            max_seq_length=self.max_length,
            context=self.context,
            chat_template=self.source.tokenizer.chat_template is not None,
            doc_stride=self.parameters.doc_stride if job.task == "extractive-question-answering" else None,
            max_completion_length=self.parameters.max_completion_length if job.strategy == "rlhf" else None,
        )


class SequenceSeen(Struct, frozen=True, gc=False):
    """Tokens that are read at once, and which of them carry loss. `length`: before they were cut, at `limit`."""

    name: SequenceName
    ids: list[int]
    loss: list[bool]
    length: int
    limit: int
    start: int | None = None
    end: int | None = None


class ExampleSeen(Struct, frozen=True, gc=False):
    """A row of the trainer's dataset; `left_out`: why it is none."""

    line: int
    sequences: tuple[SequenceSeen, ...]
    left_out: str | None = None


def reading_of(job: JobSpec) -> Reading:
    """How a job would read its dataset.

    Raises:
        ModelUnavailable: the model is not to be had, not to be read, or not for the task.
        ConflictingParameters: two parameters cannot both be had.
    """
    parameters = in_effect(job)
    try:
        source = find(job.model_path)
    except ModelUnavailable:
        raise
    except Exception as error:
        raise ModelUnavailable(
            f"The config or the tokenizer of {job.model_name} cannot be read: {kind_of(error)}: {message_of(error)}"
        ) from error
    model_class(source.config, job.task)
    context = context_of(source.config, source.tokenizer)
    parameters = with_model(parameters, job, context, encoder_decoder=bool(source.config.is_encoder_decoder))
    return Reading(job, source, parameters, context, parameters.max_seq_length or context)


def examples_of(lines: Iterator[Line], reading: Reading) -> Iterator[ExampleSeen]:
    """What the trainer makes of the records in `lines`, in their order.

    Raises:
        NoChatTemplate: conversations, for a model that does not say how to write one.
        ChatTemplateFails: the model's template cannot write one of them; the message names its line.
    """
    if reading.job.strategy in {"dpo", "rlhf"}:
        from trainer_entry.seen_preferences import preferences_of  # with trl, which takes seconds to import

        yield from preferences_of(lines, reading)
        return
    for line in lines:
        with told_with_line(line.number):
            yield from _of_line(line, reading)


def _of_line(line: Line, reading: Reading) -> Iterator[ExampleSeen]:
    config = reading.source.config
    match reading.job.task:
        case "text-generation":
            return _texts(line, reading)
        case "summarization" if config.is_encoder_decoder:
            return iter([_pair(line, reading)])
        case "summarization":
            document = summarization.document_of(line.record)
            return _texts(Line(line.number, line.content, summarization.asked_for(document)), reading)
        case "extractive-question-answering":
            return _windows(line, reading)
        case _:
            assert_never(reading.job.task)


def _texts(line: Line, reading: Reading) -> Iterator[ExampleSeen]:
    limit = reading.max_length
    for example in text_generation.fitted(line.record, reading.source.tokenizer, limit):
        loss = [place > 0 and token != IGNORED for place, token in enumerate(example.labels)]
        told = None if example.teaches else f"There is no answer within its first {limit} tokens."
        yield ExampleSeen(
            line.number, (SequenceSeen("text", example.input_ids, loss, example.length, limit),), left_out=told
        )


def _pair(line: Line, reading: Reading) -> ExampleSeen:
    document, config, limit = summarization.document_of(line.record), reading.source.config, reading.max_length
    room = summarization.answer_room(config, limit)
    pair = summarization.pair_of(document, config, reading.source.tokenizer, limit, room)
    return ExampleSeen(
        line.number,
        (
            SequenceSeen("source", pair.source, [False] * len(pair.source), pair.source_length, limit),
            SequenceSeen("target", pair.target, [True] * len(pair.target), pair.target_length, room),
        ),
        left_out=None if document.output.strip() else "The summary is blank.",
    )


def _windows(line: Line, reading: Reading) -> Iterator[ExampleSeen]:
    limit = reading.max_length
    question = answers.question_of(line.record)
    cut = answers.labelled(question, reading.source.tokenizer, limit, reading.parameters.doc_stride)
    told = f"Every window of {limit} tokens cuts the answer apart." if answers.is_lost(question, cut) else None
    for window, (start, end) in cut:
        ids = window.input_ids
        loss = [place in {start, end} for place in range(len(ids))]
        yield ExampleSeen(line.number, (SequenceSeen("window", ids, loss, len(ids), limit, start, end),), left_out=told)
