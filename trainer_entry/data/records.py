"""The records of a dataset file: the bytes that were accepted, and no others; read a line at a time."""

import hashlib
import random
from collections.abc import Container, Iterator
from pathlib import Path
from typing import assert_never

import msgspec
from msgspec import Struct

from trainer_entry.runtime.failures import DatasetChanged
from trainer_entry.wire import DatasetFile, formats
from trainer_entry.wire.formats import InputOutput, Message, Role, Text


class Conversation(Struct, frozen=True, gc=False):
    """Turns, of which the assistant's are to be learned, from the one at the place `learned_from` on."""

    messages: list[Message]
    learned_from: int = 0


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

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]


Record = InputOutput | Conversation | Text | Question | Preference


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
    """A dataset file whose bytes were verified. Its length is known; its records are read when asked for."""

    def __init__(self, dataset: DatasetFile) -> None:
        """Read the file once.

        Raises:
            DatasetChanged: its SHA-256 is not the one that the job was accepted with.
        """
        self._dataset = dataset
        digest = hashlib.sha256()
        self.count = 0
        with Path(dataset.path).open("rb") as file:
            for line in file:
                digest.update(line)
                self.count += not line.isspace()
        self.sha256 = digest.hexdigest()
        expected = dataset.content
        if self.sha256 != expected:
            raise DatasetChanged(
                f"{dataset.filename} has changed since the job was accepted: its SHA-256 is {self.sha256} and was "
                f"{expected}. Upload it again and start a new job."
            )

    def __iter__(self) -> Iterator[Record]:
        return (record for _, record in self.by_line())

    def by_line(self) -> Iterator[tuple[int, Record]]:
        """The records with the lines of the file in which they stand."""
        return ((line.number, line.record) for line in read_lines(self._dataset))


def _record_of(line: formats.Record) -> Record:
    """What a line means, whichever spelling it has."""
    match line:
        case InputOutput() | Text():
            return line
        case formats.PromptCompletion(prompt=str(prompt), completion=str(completion)):
            return InputOutput(prompt, completion)
        case formats.PromptCompletion(prompt=prompt, completion=completion):
            asked = _turns(prompt, "user")
            return Conversation([*asked, *_turns(completion, "assistant")], learned_from=len(asked))
        case formats.Alpaca(instruction=instruction, input=given, output=output):
            return InputOutput(f"{instruction}\n\n{given}" if given and not given.isspace() else instruction, output)
        case formats.Conversation(messages=messages):
            return Conversation(messages)
        case formats.SharedConversation(conversations=turns):
            return Conversation([_message_of(turn) for turn in turns])
        case (
            formats.DocumentSummary(document=text, summary=summary)
            | formats.ArticleHighlights(article=text, highlights=summary)
        ):
            return InputOutput(text, summary)
        case formats.QuestionAnswer(context=context, question=question, answer=answer):
            start = context.find(answer)
            spans = [Span(answer, start)] if answer and start >= 0 else []
            return Question(context, question, spans)
        case formats.Squad(context=context, question=question, answers=answers):
            spans = [Span(text, start) for text, start in zip(answers.text, answers.answer_start, strict=False)]
            return Question(context, question, spans)
        case formats.Preference(prompt=prompt, chosen=chosen, rejected=rejected):
            return Preference(_turns(prompt, "user"), _turns(chosen, "assistant"), _turns(rejected, "assistant"))
        case _:
            assert_never(line)


def _turns(content: str | list[Message], role: Role) -> list[Message]:
    return [Message(role, content)] if isinstance(content, str) else content


def _message_of(turn: formats.SharedTurn) -> Message:
    is_shared = turn.sender is not None
    role, content = (turn.sender, turn.value) if is_shared else (turn.role, turn.content)
    if role is None or content is None:
        raise msgspec.ValidationError('A turn of a conversation has no "from" and "value".')
    if role not in formats.ROLES:
        raise msgspec.ValidationError(f"{role!r} is not a role.")
    return Message(formats.ROLES[role], content)


def split_eval(count: int, fraction: float, seed: int) -> frozenset[int]:
    """Which of `count` records are kept for evaluation: at least one if a fraction is asked for, never all."""
    size = min(max(1, round(count * fraction)), count - 1) if fraction > 0 else 0
    return frozenset(random.Random(seed).sample(range(count), max(0, size)))  # noqa: S311 - no secret
