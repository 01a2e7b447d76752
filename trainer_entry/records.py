"""The records of a dataset file: the bytes that were accepted, and no others; read a line at a time."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar, assert_never

import msgspec
from msgspec import Struct

from trainer_entry.failures import DatasetChanged
from trainer_entry.prompts import Message
from trainer_entry.wire import DatasetFile


class InputOutput(Struct, frozen=True, gc=False):
    """A prompt and its answer."""

    input: str
    output: str


class Conversation(Struct, frozen=True, gc=False):
    """Turns, of which the assistant's are to be learned."""

    messages: list[Message]


Record = InputOutput | Conversation
_RecordType = TypeVar("_RecordType", InputOutput, Conversation)


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
        if self.sha256 != dataset.sha256:
            raise DatasetChanged(
                f"{dataset.filename} has changed since the job was accepted: its SHA-256 is {self.sha256} and was "
                f"{dataset.sha256}. Upload it again and start a new job."
            )

    def __iter__(self) -> Iterator[Record]:
        with Path(self._dataset.path).open("rb") as file:
            match self._dataset.format:
                case "input_output":
                    yield from _decode(file, InputOutput)
                case "messages":
                    yield from _decode(file, Conversation)
                case _:
                    assert_never(self._dataset.format)


def held_out(count: int, fraction: float, seed: int) -> frozenset[int]:
    """Which of `count` records are kept for evaluation: at least one if a fraction is asked for, never all."""
    size = min(max(1, round(count * fraction)), count - 1) if fraction > 0 else 0
    return frozenset(random.Random(seed).sample(range(count), max(0, size)))  # noqa: S311 - no secret


def _decode(file: BinaryIO, record_type: type[_RecordType]) -> Iterator[_RecordType]:
    decoder = msgspec.json.Decoder(record_type)
    for number, line in enumerate(file, start=1):
        if line.isspace():
            continue
        try:
            yield decoder.decode(line)
        except msgspec.ValidationError as error:
            raise ValueError(f"Line {number} of the dataset: {error}") from error
