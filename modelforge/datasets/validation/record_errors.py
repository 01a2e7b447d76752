"""The errors of a record: what is wrong, and what would be right."""

import re
from collections.abc import Generator, Iterator
from typing import assert_never

import msgspec

from modelforge.datasets.validation.error_types import RecordError
from modelforge.datasets.validation.recognition import fields_of, format_shown_by, required_fields
from modelforge.fields import field_error
from trainer_entry import wire
from trainer_entry.wire.formats import (
    FORMATS,
    ROLES,
    Alpaca,
    ArticleHighlights,
    Conversation,
    DocumentSummary,
    InputOutput,
    Message,
    Preference,
    PromptCompletion,
    QuestionAnswer,
    Record,
    SharedConversation,
    SharedTurn,
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
_SHOWN = 60  # characters of a text in a message

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
                yield from _blank("instruction", record.instruction, "there is nothing to do. Write the instruction")
            yield from _blank("output", answer, "there is nothing to learn. Write the answer")
        case PromptCompletion():
            yield from _errors_of_completion(record)
        case Conversation(messages=turns):
            yield from _conversation("messages", turns)
        case SharedConversation(conversations=turns):
            yield from _errors_of_shared(turns)
        case Text(text=text):
            yield from _blank("text", text, "there is nothing to learn. Write the text")
        case DocumentSummary(document=text, summary=summary):
            yield from _blank("document", text, "there is nothing to summarise")
            yield from _blank("summary", summary, "there is nothing to learn. Write the summary")
        case ArticleHighlights(article=text, highlights=summary):
            yield from _blank("article", text, "there is nothing to summarise")
            yield from _blank("highlights", summary, "there is nothing to learn. Write the summary")
        case QuestionAnswer():
            yield from _errors_of_answer(record)
        case Squad():
            yield from _errors_of_answers(record)
        case Preference():
            yield from _errors_of_preference(record)
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
        return f"{short(value[1])} is no role; expected system, user or assistant"
    return message


def _blank(field: str, text: str, why: str) -> Iterator[RecordError]:
    if not text.strip():
        yield RecordError(field, f"It is blank: {why}.")


def _conversation(field: str, turns: list[Message]) -> Iterator[RecordError]:
    if not turns:
        yield RecordError(field, "It is empty. A conversation has a user's turn and an assistant's.")
    elif (yield from _turns(field, turns, ("system", "user"))) and turns[-1].role != "assistant":
        yield RecordError(field, "No assistant's turn at the end: there is nothing to learn.")


def _turns(field: str, turns: list[Message], first: tuple[str, ...]) -> Generator[RecordError, None, bool]:
    """The errors of turns one by one; whether each stands where it can."""
    expected = first
    for index, turn in enumerate(turns):
        if turn.role not in expected:
            wanted = " or ".join(expected)
            yield RecordError(f"{field}[{index}].role", f"{turn.role!r} cannot stand here; expected {wanted}.")
            return False
        if turn.role == "assistant":
            yield from _blank(f"{field}[{index}].content", turn.content, "there is nothing to learn")
        expected = ("assistant",) if turn.role == "user" else ("user",)
    return True


def _asked(record: QuestionAnswer | Squad) -> Iterator[RecordError]:
    yield from _blank("context", record.context, "answers are looked for in it. Write the text")
    yield from _blank("question", record.question, "there is nothing to answer. Write the question")


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
    there = context[start : start + len(text)] if start >= 0 else ""
    return RecordError(
        f"answers.answer_start[{index}]",
        f"At character {start} stands {short(there)}, not {short(text)}, which stands at {found}. "
        "Characters count from 0.",
    )


def _errors_of_completion(record: PromptCompletion) -> Iterator[RecordError]:
    yield from _prompt(record.prompt, may_be_blank=True)
    yield from _answer("completion", record.completion, "there is nothing to learn. Write the answer")


def _errors_of_shared(shared: list[SharedTurn]) -> Iterator[RecordError]:
    turns: list[Message] = []
    for index, turn in enumerate(shared):
        where = f"conversations[{index}]"
        speaker, said = ("from", "value") if turn.sender is not None else ("role", "content")
        name, text = (turn.sender, turn.value) if turn.sender is not None else (turn.role, turn.content)
        if name is None:
            yield RecordError(f"{where}.from", 'The field \'from\' is missing: it says who speaks, "human" or "gpt".')
            return
        role = ROLES.get(name)
        if role is None:
            known = ", ".join(ROLES)
            yield RecordError(f"{where}.{speaker}", f"{short(name)} is nobody who can speak; expected one of {known}.")
            return
        if text is None:
            yield RecordError(f"{where}.{said}", f"The field {said!r} is missing: it has what is said.")
            return
        turns.append(Message(role, text))
    for problem in _conversation("conversations", turns):
        speaks = problem.field or ""
        for index, turn in enumerate(shared):
            if turn.sender is not None:
                head = f"conversations[{index}]"
                speaks = speaks.replace(f"{head}.role", f"{head}.from").replace(f"{head}.content", f"{head}.value")
        yield RecordError(speaks, problem.message)


def _prompt(prompt: str | list[Message], *, may_be_blank: bool) -> Iterator[RecordError]:
    if isinstance(prompt, str):
        if not may_be_blank:
            yield from _blank("prompt", prompt, "there is nothing to answer. Write the prompt")
    elif not prompt:
        yield RecordError("prompt", "It is empty. A prompt has a user's turn at its end.")
    elif (yield from _turns("prompt", prompt, ("system", "user"))) and prompt[-1].role != "user":
        yield RecordError("prompt", "No user's turn at the end: the answer to it follows in a field of its own.")


def _answer(field: str, answer: str | list[Message], why_not_blank: str) -> Iterator[RecordError]:
    if isinstance(answer, str):
        yield from _blank(field, answer, why_not_blank)
    elif not answer:
        yield RecordError(field, "It is empty. An answer is an assistant's turn, or turns that end with one.")
    elif (yield from _turns(field, answer, ("assistant",))) and answer[-1].role != "assistant":
        yield RecordError(field, "No assistant's turn at the end: an answer ends with one.")


def _errors_of_preference(record: Preference) -> Iterator[RecordError]:
    yield from _prompt(record.prompt, may_be_blank=False)
    for field, answer in (("chosen", record.chosen), ("rejected", record.rejected)):
        yield from _answer(field, answer, "there is nothing to compare. Write the answer")
    if _as_turns(record.chosen) == _as_turns(record.rejected):
        yield RecordError("rejected", "It is the same as chosen: nothing is preferred. Write the worse answer.")


def _as_turns(answer: str | list[Message]) -> list[Message]:
    return [Message("assistant", answer)] if isinstance(answer, str) else answer


def short(text: str) -> str:
    """A text as a message shows it."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
