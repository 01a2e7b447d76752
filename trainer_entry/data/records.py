"""The records of a dataset file: the bytes that were accepted, and no others; read a line at a time."""

import hashlib
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, assert_never

import msgspec
from msgspec import Struct

from trainer_entry.runtime.failures import DatasetChanged
from trainer_entry.wire import DatasetFile, formats
from trainer_entry.wire.formats import Message, Text
from trainer_entry.wire.mixture import Reading, readings_of
from trainer_entry.wire.turns import (
    arguments_of,
    function_of,
    is_learned,
    listed_calls,
    preference_turns,
    schemas_of,
    shared_message,
    text_of,
)

TurnRole = Literal["system", "user", "assistant", "tool"]


class ToolCall(Struct, frozen=True, gc=False):
    """A call in an assistant's turn. `arguments`: by name."""

    name: str
    arguments: dict[str, Any]
    id: str | None = None


class Turn(Struct, frozen=True, gc=False):
    """What one says in a conversation. `learned`: whether it carries loss, where it is an assistant's."""

    role: TurnRole
    content: str
    learned: bool = True
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None


class InputOutput(Struct, frozen=True, gc=False):
    """A prompt and the answer to learn."""

    input: str
    output: str


class Conversation(Struct, frozen=True, gc=False):
    """Turns, of which the assistant's are to be learned where they say so. `tools`: their schemas, as JSON Schema."""

    messages: list[Turn]
    tools: list[dict[str, Any]] | None = None


class Span(Struct, frozen=True, gc=False):
    """A text that stands in a context, from the character `start` on."""

    text: str
    start: int


class Question(Struct, frozen=True, gc=False):
    """A question on a context, and where its answers stand in it; without answers it has none."""

    context: str
    question: str
    answers: list[Span]


class Preference(Struct, frozen=True, gc=False):
    """Two answers to one prompt. A prompt in plain text is a user's turn; an answer is the turns that follow."""

    prompt: list[Turn]
    chosen: list[Turn]
    rejected: list[Turn]


class Prompt(Struct, frozen=True, gc=False):
    """What is asked, where no answer is given."""

    turns: list[Turn]


Record = InputOutput | Conversation | Text | Question | Preference | Prompt


class Line(Struct, frozen=True, gc=False):
    """A line of a dataset file: its number, from 1, the bytes that stand in it, and the record that they mean."""

    number: int
    content: bytes
    record: Record


def read_lines(dataset: DatasetFile, wanted: Container[int] | None = None) -> Iterator[Line]:
    """The lines of a dataset that hold records; `wanted`: only those records, counted from 0.

    Raises:
        ValueError: a line holds no record of the dataset's format.
    """
    decoder: msgspec.json.Decoder[formats.Record] = msgspec.json.Decoder(formats.FORMATS[dataset.format])
    place = -1
    with Path(dataset.path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.isspace():
                continue
            place += 1
            if wanted is not None and place not in wanted:
                continue
            try:
                record = _record_of(decoder.decode(line))
            except msgspec.ValidationError as error:
                raise ValueError(f"Line {number} of the dataset: {error}") from error
            yield Line(number, line, record)


class Records:
    """The records that a training reads: of files whose bytes were verified, a line at a time, as often as asked for.

    `held_out`: the places, in the order of the records, of those to evaluate on; they are the share `eval_split` of the
    dataset, or all of `validation`.
    """

    def __init__(
        self, dataset: DatasetFile, validation: DatasetFile | None = None, *, eval_split: float = 0.0, seed: int = 0
    ) -> None:
        """Read each file once.

        Raises:
            DatasetChanged: its SHA-256 is not the one that the job was accepted with.
        """
        counted = {file.path: _verified(file) for file in (*dataset.files, *(validation.files if validation else ()))}
        self.sha256 = dataset.content
        if not dataset.parts:
            dataset = msgspec.structs.replace(dataset, num_examples=counted[dataset.path].records)
        readings = [*readings_of(dataset, eval_split, seed)]
        if validation is not None:
            readings += [
                msgspec.structs.replace(reading, held_out=frozenset(reading.places))
                for reading in readings_of(validation, 0.0, 0)
            ]
        self._readings = readings
        self._lines = {path: counts.lines for path, counts in counted.items()}
        self.count = sum(len(reading.places) for reading in readings)
        self.held_out = frozenset(_places_of(readings))

    def __iter__(self) -> Iterator[Record]:
        return (record for _, record in self.by_line())

    def by_line(self) -> Iterator[tuple[int, Record]]:
        """The records with the lines of the file in which they stand."""
        return ((line.number, line.record) for line in self.lines())

    def lines(self) -> Iterator[Line]:
        """The lines that hold records; those of several files are counted as if these stood in one, in their order."""
        before, started = 0, dict[str, int]()
        for reading in self._readings:
            path = reading.dataset.path
            if path not in started:
                started[path] = before
                before += self._lines[path]
            wanted = None if isinstance(reading.places, range) else frozenset(reading.places)
            for line in read_lines(reading.dataset, wanted):
                first = started[path]
                yield msgspec.structs.replace(line, number=first + line.number) if first else line


class _Counted(Struct, frozen=True, gc=False):
    lines: int
    records: int


def _verified(file: DatasetFile) -> _Counted:
    """How many lines and records a file has, whose bytes are those that the job was accepted with."""
    digest = hashlib.sha256()
    lines = records = 0
    with Path(file.path).open("rb") as content:
        for line in content:
            digest.update(line)
            lines += 1
            records += not line.isspace()
    if digest.hexdigest() != file.content:
        raise DatasetChanged(
            f"{file.filename} has changed since the job was accepted: its SHA-256 is {digest.hexdigest()} and was "
            f"{file.content}. Upload it again and start a new job."
        )
    return _Counted(lines, records)


def _places_of(readings: Sequence[Reading]) -> Iterator[int]:
    """Where those held out stand among all records that are read."""
    first = 0
    for reading in readings:
        if reading.held_out:
            yield from (first + at for at, place in enumerate(reading.places) if place in reading.held_out)
        first += len(reading.places)


def _record_of(line: formats.Record) -> Record:
    """What a line means, whichever spelling it has."""
    match line:
        case Text():
            return line
        case formats.InputOutput(input=prompt, output=output, system=system):
            return _exchange(prompt, output, system)
        case formats.PromptCompletion(prompt=str(prompt), completion=str(completion), tools=None, system=system):
            return _exchange(prompt, completion, system)
        case formats.PromptCompletion(prompt=prompt, completion=completion, tools=tools, system=system):
            asked = [msgspec.structs.replace(turn, learned=False) for turn in _turns(prompt, "user")]
            return Conversation([*_system(system), *asked, *_turns(completion, "assistant")], _schemas(tools))
        case formats.Alpaca(instruction=instruction, input=given, output=output, system=system, history=history):
            prompt = f"{instruction}\n\n{given}" if given and not given.isspace() else instruction
            earlier = [
                turn
                for asked, answer in history or ()
                for turn in (Turn("user", asked), Turn("assistant", answer, learned=False))
            ]
            return _exchange(prompt, output, system, earlier)
        case formats.Conversation(messages=messages, tools=tools, system=system):
            return Conversation(_answered([*_system(system), *map(_turn_of, messages)]), _schemas(tools))
        case formats.SharedConversation(conversations=turns, system=system, tools=tools):
            said = map(_turn_of, map(shared_message, turns))
            return Conversation(_answered([*_system(system), *said]), _schemas(tools))
        case (
            formats.DocumentSummary(document=text, summary=summary)
            | formats.ArticleHighlights(article=text, highlights=summary)
        ):
            return InputOutput(text, summary)
        case formats.QuestionAnswer(context=context, question=question, answer=answer, answer_start=given):
            start = context.find(answer) if given is None else given
            spans = [Span(answer, start)] if answer and start >= 0 else []
            return Question(context, question, spans)
        case formats.Squad(context=context, question=question):
            return Question(context, question, [Span(answer.text, answer.answer_start) for answer in line.listed])
        case formats.Preference():
            prompt, chosen, rejected = preference_turns(line)
            return Preference(*([_turn_of(message) for message in part] for part in (prompt, chosen, rejected)))
        case formats.Prompt(prompt=prompt, system=system):
            return Prompt([*_system(system), *_turns(prompt, "user")])
        case _:
            assert_never(line)


def _exchange(prompt: str, answer: str, system: str | None, earlier: Sequence[Turn] = ()) -> Record:
    """A prompt and its answer; a conversation where something stands before them."""
    if not earlier and not _system(system):
        return InputOutput(prompt, answer)
    return Conversation([*_system(system), *earlier, Turn("user", prompt), Turn("assistant", answer)])


def _answered(turns: list[Turn]) -> list[Turn]:
    """The turns as far as the last of the assistant; one that opens the conversation answers nothing."""
    last = max((place for place, turn in enumerate(turns) if turn.role == "assistant"), default=len(turns))
    opens = next((place for place, turn in enumerate(turns) if turn.role != "system"), -1)
    return [
        msgspec.structs.replace(turn, learned=False) if place == opens and turn.role == "assistant" else turn
        for place, turn in enumerate(turns[: last + 1])
    ]


def _system(text: str | None) -> list[Turn]:
    return [] if text is None or not text.strip() else [Turn("system", text)]


def _turns(content: str | list[Message], role: TurnRole) -> list[Turn]:
    return [Turn(role, content)] if isinstance(content, str) else [_turn_of(message) for message in content]


def _turn_of(message: Message) -> Turn:
    called = [(function_of(call), call.id) for call in listed_calls(message)]
    return Turn(
        role="system" if message.role == "developer" else message.role,
        content=text_of(message.content),
        learned=is_learned(message),
        tool_calls=tuple(ToolCall(call.name, arguments_of(call), number) for call, number in called),
        tool_call_id=message.tool_call_id,
        name=message.name,
        reasoning_content=message.reasoning_content,
    )


def _schemas(tools: list[dict[str, Any]] | str | None) -> list[dict[str, Any]] | None:
    """The tools' schemas; None where there is no tool."""
    return schemas_of(tools) or None
