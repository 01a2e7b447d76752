"""The errors of a record: what is wrong, and what would be right."""

import json
import re
from collections.abc import Iterator
from typing import Any, assert_never

import msgspec

from modelforge.datasets.validation.answer_errors import (
    errors_of_completion,
    errors_of_label,
    errors_of_preference,
    errors_of_prompt,
)
from modelforge.datasets.validation.conversation_errors import errors_of_conversation, errors_of_shared
from modelforge.datasets.validation.error_types import RecordError, blank, short
from modelforge.datasets.validation.field_names import may_be_ignored, unknown_fields
from modelforge.datasets.validation.fields import another_format
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
    Prompt,
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
    "prompts": '{"prompt": "…"}, a text or a list of messages',
}
_INDEX = re.compile(r"\[\d+\]")
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
    whole = msgspec.json.decode(line, type=dict[str, Any])
    twice = _stands_twice(line)
    if twice is not None:
        yield RecordError(twice, "The field stands twice in the record. Leave one of both out.")
    other = another_format(dataset_format, whole)
    if other is not None:
        yield RecordError(
            None, f"This record is of another format ({other}) than the first, which is {dataset_format}."
        )
        return
    try:
        wrong = [*errors_of(decoders[dataset_format].decode(line))]
    except msgspec.ValidationError as error:
        wrong = [_explained(dataset_format, error)]
    yield from wrong
    places = {_INDEX.sub("[]", error.field) for error in wrong if error.field is not None}
    for path, place, value in unknown_fields(FORMATS[dataset_format], whole):
        if not may_be_ignored(place, value) and not any(path.startswith(f"{told}.") for told in places):
            yield RecordError(
                path,
                f"A record of this format ({dataset_format}) has no {place[1]!r}. It would change what is learned, and "
                "is not passed over: take it out, or send the records in a format that has it.",
            )


def _stands_twice(line: bytes) -> str | None:
    """A field that one object of the line has twice; a decoder would take the last."""
    found: list[str] = []

    def note(pairs: list[tuple[str, object]]) -> None:
        names = [name for name, _ in pairs]
        if len({*names}) < len(names):
            found.append(next(name for name in names if names.count(name) > 1))

    json.loads(line, object_pairs_hook=note)
    return found[0] if found else None


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
        case Prompt():
            yield from errors_of_prompt(record)
        case _:
            assert_never(record)


def _explained(dataset_format: wire.DatasetFormat, error: msgspec.ValidationError) -> RecordError:
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
    if record.is_impossible and record.answer:
        yield _not_impossible("answer")
    elif record.answer and not record.answer.strip():
        yield RecordError("answer", 'It is blank. Write an answer from the context, or "" where the context has none.')
    elif record.answer not in record.context:
        yield RecordError(
            "answer",
            f"{short(record.answer)} does not stand in the context. Copy the answer from it, letter by letter, "
            'or write "" where the context has none. Where the answers are to be written freely, send '
            'columns={"input": ["context", "question"], "output": "answer"} with the file.',
        )
    elif (start := record.answer_start) is not None:
        if not record.answer:
            if start not in {-1, 0}:
                yield RecordError("answer_start", 'There is no answer that begins there: leave it out beside "".')
        elif start < 0 or not record.context.startswith(record.answer, start):
            yield RecordError("answer_start", _otherwise(record.context, record.answer, start))


def _errors_of_answers(record: Squad) -> Iterator[RecordError]:
    yield from _asked(record)
    answers = record.answers
    is_list = isinstance(answers, list)
    if not isinstance(answers, list) and len(answers.text) != len(answers.answer_start):
        yield RecordError(
            "answers",
            f"text has {len(answers.text)} and answer_start {len(answers.answer_start)}: each text has its start, and "
            "a question without an answer has two empty lists.",
        )
        return
    if record.is_impossible and record.listed:
        yield _not_impossible("answers")
    for index, answer in enumerate(record.listed):
        text, start = answer.text, answer.answer_start
        at_text = f"answers[{index}].text" if is_list else f"answers.text[{index}]"
        at_start = f"answers[{index}].answer_start" if is_list else f"answers.answer_start[{index}]"
        if not text.strip():
            lists = "an empty list" if is_list else "two empty lists"
            yield RecordError(at_text, f"It is blank. A question without an answer has {lists}.")
        elif text not in record.context:
            yield RecordError(
                at_text, f"{short(text)} does not stand in the context. Copy the answer from it, letter by letter."
            )
        elif start < 0 or not record.context.startswith(text, start):
            yield RecordError(at_start, _otherwise(record.context, text, start))


def _not_impossible(field: str) -> RecordError:
    return RecordError(field, "The record says is_impossible, and has an answer. Take out what is not so.")


def _otherwise(context: str, text: str, start: int) -> str:
    """What stands where an answer was said to begin, and where it stands."""
    there = context[start : start + len(text)] if start >= 0 else ""
    return (
        f"At character {start} stands {short(there)}, not {short(text)}, which stands at {context.find(text)}. "
        "Characters count from 0."
    )
