"""The errors of a record: what is wrong, and what would be right."""

import re
from collections.abc import Iterator
from typing import assert_never

import msgspec

from modelforge.datasets.validation.conversation_errors import (
    errors_of_completion,
    errors_of_conversation,
    errors_of_label,
    errors_of_preference,
    errors_of_shared,
)
from modelforge.datasets.validation.error_types import RecordError, blank, short
from modelforge.datasets.validation.recognition import fields_of, format_shown_by, required_fields
from modelforge.fields import field_error
from trainer_entry import wire
from trainer_entry.wire.formats import (
    FORMATS,
    Alpaca,
    ArticleHighlights,
    Conversation,
    DocumentSummary,
    InputOutput,
    Preference,
    PromptCompletion,
    QuestionAnswer,
    Record,
    SharedConversation,
    Squad,
    Text,
)

EXAMPLES: dict[wire.DatasetFormat, str] = {
    "input_output": '{"input": "…", "output": "…"}',
    "prompt_completion": '{"prompt": "…", "completion": "…"}, each a text or a list of messages',
    "alpaca": '{"instruction": "…", "input": "…", "output": "…"}, where the input may be left out',
    "messages": '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}',
    "conversations": '{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}',
    "text": '{"text": "…"}',
    "document_summary": '{"document": "…", "summary": "…"}',
    "article_highlights": '{"article": "…", "highlights": "…"}',
    "question_answer": '{"context": "…", "question": "…", "answer": "…"}, with "" for no answer',
    "squad": '{"context": "…", "question": "…", "answers": {"text": ["…"], "answer_start": [0]}}',
    "preferences": '{"prompt": "…", "chosen": "…", "rejected": "…"}, each a text or a list of messages',
}
_TYPES = re.compile(r"Expected (.+), got (.+)")
_ENUM = re.compile(r"Invalid enum value '(.*)'", re.DOTALL)
_KINDS_OF_VALUES = {
    "str": "a text",
    "array": "a list",
    "object": "an object",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
}

decoders: dict[wire.DatasetFormat, msgspec.json.Decoder[Record]] = {
    name: msgspec.json.Decoder(kind) for name, kind in FORMATS.items()
}


def errors_in_line(line: bytes, dataset_format: wire.DatasetFormat) -> Iterator[RecordError]:
    """What is wrong with a record of a file of this format.

    Raises:
        msgspec.DecodeError: it is no JSON; msgspec.ValidationError: it is no object.
    """
    try:
        record = decoders[dataset_format].decode(line)
    except msgspec.ValidationError as error:
        yield _explained(line, dataset_format, error)
        return
    yield from errors_of(record)


def errors_of(record: Record) -> Iterator[RecordError]:
    """What is wrong with a record whose fields have the right types."""
    match record:
        case InputOutput(output=answer) | Alpaca(output=answer):
            if isinstance(record, Alpaca):
                yield from blank("instruction", record.instruction, "there is nothing to do. Write the instruction")
            yield from blank("output", answer, "there is nothing to learn. Write the answer")
            if isinstance(record, InputOutput):
                yield from errors_of_label(record.label)
        case PromptCompletion():
            yield from errors_of_completion(record)
        case Conversation(messages=turns, tools=tools):
            if record.system and turns and turns[0].role in {"system", "developer"}:
                yield RecordError("system", "The messages begin with a system turn too. Leave one of both out.")
            yield from errors_of_conversation("messages", turns, tools)
        case SharedConversation():
            yield from errors_of_shared(record)
        case Text(text=text):
            yield from blank("text", text, "there is nothing to learn. Write the text")
        case DocumentSummary(document=text, summary=summary):
            yield from blank("document", text, "there is nothing to summarise")
            yield from blank("summary", summary, "there is nothing to learn. Write the summary")
        case ArticleHighlights(article=text, highlights=summary):
            yield from blank("article", text, "there is nothing to summarise")
            yield from blank("highlights", summary, "there is nothing to learn. Write the summary")
        case QuestionAnswer():
            yield from _errors_of_answer(record)
        case Squad():
            yield from _errors_of_answers(record)
        case Preference():
            yield from errors_of_preference(record)
        case _:
            assert_never(record)


def _explained(line: bytes, dataset_format: wire.DatasetFormat, error: msgspec.ValidationError) -> RecordError:
    fields = fields_of.decode(line).keys()
    shown = format_shown_by(fields)
    if shown is not None and shown != dataset_format and set(required_fields(shown)) <= fields:
        return RecordError(
            None, f"This record is of another format ({shown}) than the first, which is {dataset_format}."
        )
    problem = field_error(error, FORMATS[dataset_format])
    return RecordError(
        problem.field, f"{_in_words(problem.message)}. A record of this format is {EXAMPLES[dataset_format]}."
    )


def _in_words(message: str) -> str:
    """What msgspec says of a wrong type, for people who do not know Python's."""
    if (types := _TYPES.fullmatch(message)) is not None:
        wanted = " or ".join(_KINDS_OF_VALUES.get(name, name) for name in types[1].split(" | "))
        return f"It is {_KINDS_OF_VALUES.get(types[2], types[2])}; expected {wanted}"
    if (value := _ENUM.fullmatch(message)) is not None:
        return f"{short(value[1])} is no role; expected system, developer, user, assistant or tool"
    return message


def _asked(record: QuestionAnswer | Squad) -> Iterator[RecordError]:
    yield from blank("context", record.context, "answers are looked for in it. Write the text")
    yield from blank("question", record.question, "there is nothing to answer. Write the question")


def _errors_of_answer(record: QuestionAnswer) -> Iterator[RecordError]:
    yield from _asked(record)
    if record.answer and not record.answer.strip():
        yield RecordError("answer", 'It is blank. Write an answer from the context, or "" where the context has none.')
    elif record.answer not in record.context:
        yield RecordError(
            "answer",
            f"{short(record.answer)} does not stand in the context. Copy the answer from it, letter by letter, "
            'or write "" where the context has none.',
        )
    elif (start := record.answer_start) is not None:
        if not record.answer:
            if start not in {-1, 0}:
                yield RecordError("answer_start", 'There is no answer that begins there: leave it out beside "".')
        elif start < 0 or not record.context.startswith(record.answer, start):
            yield RecordError("answer_start", _otherwise(record.context, record.answer, start))


def _errors_of_answers(record: Squad) -> Iterator[RecordError]:
    yield from _asked(record)
    texts, starts = record.answers.text, record.answers.answer_start
    if len(texts) != len(starts):
        yield RecordError(
            "answers",
            f"text has {len(texts)} and answer_start {len(starts)}: each text has its start, and a question without "
            "an answer has two empty lists.",
        )
        return
    for index, (text, start) in enumerate(zip(texts, starts, strict=True)):
        if not text.strip():
            yield RecordError(
                f"answers.text[{index}]", "It is blank. A question without an answer has two empty lists."
            )
        elif start < 0 or not record.context.startswith(text, start):
            yield _misplaced(record.context, text, start, index)


def _misplaced(context: str, text: str, start: int, index: int) -> RecordError:
    found = context.find(text)
    if found < 0:
        where = f"{short(text)} does not stand in the context. Copy the answer from it, letter by letter."
        return RecordError(f"answers.text[{index}]", where)
    return RecordError(f"answers.answer_start[{index}]", _otherwise(context, text, start))


def _otherwise(context: str, text: str, start: int) -> str:
    """What stands where an answer was said to begin, and where it stands."""
    there = context[start : start + len(text)] if start >= 0 else ""
    return (
        f"At character {start} stands {short(there)}, not {short(text)}, which stands at {context.find(text)}. "
        "Characters count from 0."
    )
