"""The example of the demo: 150 questions with answers of three lines, and six questions that are held out."""

from importlib.resources import files
from pathlib import Path

import msgspec
from msgspec import Struct

TRAINED = Path(str(files(__name__) / "three_lines.jsonl"))
"""The records that the demo trains on."""


class _Question(Struct, frozen=True):
    input: str


def held_out_questions() -> list[str]:
    """Questions on topics that no record has."""
    lines = (files(__name__) / "held_out.jsonl").read_bytes()
    return [question.input for question in msgspec.json.Decoder(_Question).decode_lines(lines)]
