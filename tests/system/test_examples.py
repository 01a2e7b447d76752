"""Every example file is what it says."""

from collections import Counter
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

EXAMPLES = Path(__file__).parents[2] / "examples"
PREFIXES = ("What: ", "Why: ", "Try: ")


class Question(Struct, frozen=True, forbid_unknown_fields=True):
    input: str


class Pair(Question, frozen=True, forbid_unknown_fields=True):
    output: str


PAIRS = msgspec.json.Decoder(Pair).decode_lines((EXAMPLES / "three_lines.jsonl").read_bytes())
HELD_OUT = msgspec.json.Decoder(Question).decode_lines((EXAMPLES / "held_out.jsonl").read_bytes())


def topic(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def test_there_are_two_example_files() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.jsonl")) == ["held_out.jsonl", "three_lines.jsonl"]


@pytest.mark.parametrize("name", ["held_out.jsonl", "three_lines.jsonl"])
def test_an_example_file_is_utf8_with_one_record_a_line(name: str) -> None:
    data = (EXAMPLES / name).read_bytes()
    assert data.decode("utf-8").endswith("}\n")
    assert b"\r" not in data
    assert all(line.startswith(b"{") for line in data.splitlines())


def test_the_examples_are_150_pairs_and_6_questions() -> None:
    assert (len(PAIRS), len(HELD_OUT)) == (150, 6)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.input)
def test_an_answer_is_three_short_lines(pair: Pair) -> None:
    lines = pair.output.split("\n")
    assert len(lines) == 3
    for line, prefix in zip(lines, PREFIXES, strict=True):
        assert line.startswith(prefix)
        assert line == line.strip()
        assert len(line) <= 110
        assert line.endswith(".")
    assert 25 <= len(pair.output.split()) <= 55


def test_no_question_and_no_line_of_an_answer_is_given_twice() -> None:
    for texts in (
        [pair.input for pair in PAIRS] + [question.input for question in HELD_OUT],
        [line for pair in PAIRS for line in pair.output.split("\n")],
    ):
        assert [text for text, times in Counter(map(topic, texts)).items() if times > 1] == []


def test_questions_end_as_questions_or_requests() -> None:
    for question in (*PAIRS, *HELD_OUT):
        assert question.input[-1] in "?."
        assert question.input == question.input.strip()


def test_questions_take_several_forms() -> None:
    forms = Counter(pair.input.split()[0] for pair in PAIRS)
    assert len(forms) >= 6
    assert max(forms.values()) <= len(PAIRS) / 2


def test_the_held_out_questions_are_on_topics_that_were_not_trained() -> None:
    topics = ("salty", "hiccups", "tides", "thermos", "volcano", "map")
    trained = {word for pair in PAIRS for word in topic(f"{pair.input} {pair.output}").split()}
    for question, subject in zip(HELD_OUT, topics, strict=True):
        assert subject in topic(question.input).split()
        assert subject not in trained
