"""The records that are trained on, drawn from a fixed seed: short ones to learn, and long ones that fill a length."""

from __future__ import annotations

import hashlib
import json
import random
from typing import TYPE_CHECKING, Any

from trainer_entry import wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SEED = 7
_LETTERS = "abcdefghiklmnoprstuvwy"
_COMMON = 40
"""Words that most of a long text is made of, so that there is something to learn."""

Record = dict[str, Any]


def sums(count: int) -> list[Record]:
    """Questions whose answers have one form."""
    draw = random.Random(_SEED)  # noqa: S311 - no secret
    return [
        {"input": f"What is {one} plus {other}?", "output": f"Sum: {one + other}. Thank you for asking!"}
        for one, other in ((draw.randrange(10), draw.randrange(10)) for _ in range(count))
    ]


def preferences(count: int, words: int = 24) -> list[Record]:
    """A short answer is preferred to one of so many words. Prompts end as a model without a template is given them."""
    draw, vocabulary = random.Random(_SEED), _words()  # noqa: S311
    return [
        {
            "prompt": f"Are there {' '.join(draw.choices(vocabulary, k=3))}?\n",
            "chosen": draw.choice(("Yes.", "No.", "Yes, some.", "Not many.")),
            "rejected": " ".join(draw.choices(vocabulary[:_COMMON], k=words)),
        }
        for _ in range(count)
    ]


def long_texts(count: int, tokens: int) -> list[Record]:
    """Questions with answers of at least so many tokens: a token has no more than one word of these."""
    draw, vocabulary = random.Random(_SEED), _words()  # noqa: S311
    return [
        {"input": f"Write {place}", "output": " ".join(draw.choices(vocabulary[:_COMMON], k=tokens))}
        for place in range(count)
    ]


def long_preferences(count: int, tokens: int) -> list[Record]:
    """Preferences both of whose answers have at least so many tokens."""
    draw, vocabulary = random.Random(_SEED), _words()  # noqa: S311
    return [
        {
            "prompt": f"Write {place}\n",
            "chosen": " ".join(draw.choices(vocabulary[:_COMMON], k=tokens)),
            "rejected": " ".join(draw.choices(vocabulary[_COMMON:], k=tokens)),
        }
        for place in range(count)
    ]


def write_records(path: Path, records: list[Record]) -> wire.DatasetFile:
    """Write them as JSON lines, and say what they are."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return wire.DatasetFile(
        filename=path.name,
        path=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        format="preferences" if "chosen" in records[0] else "input_output",
        num_examples=len(records),
    )


def corpus() -> Iterator[str]:
    """Texts of all that the records are made of, for a tokenizer."""
    for record in (*sums(50), *preferences(50), *long_texts(10, 50)):
        yield from record.values()
    yield " ".join(_words())


def _words() -> list[str]:
    draw = random.Random(_SEED)  # noqa: S311
    return ["".join(draw.choices(_LETTERS, k=draw.randint(5, 9))) for _ in range(400)]
