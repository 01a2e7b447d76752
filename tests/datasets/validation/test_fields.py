"""No field of a record vanishes: each is read, or named as one that is not, or refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.checked import checked

from modelforge.datasets.validation.columns import FIELDS
from modelforge.datasets.validation.field_names import REFUSED
from modelforge.datasets.validation.proposals import propose

if TYPE_CHECKING:
    from trainer_entry import wire

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
EXAMPLES: dict[wire.DatasetFormat, dict[str, object]] = {
    "input_output": {"input": "a", "output": "b"},
    "prompt_completion": {"prompt": "a", "completion": "b"},
    "alpaca": {"instruction": "a", "output": "b"},
    "messages": {"messages": TURNS},
    "conversations": {"conversations": TURNS},
    "text": {"text": "a"},
    "document_summary": {"document": "a", "summary": "b"},
    "article_highlights": {"article": "a", "highlights": "b"},
    "question_answer": {"context": "a", "question": "b", "answer": "a"},
    "squad": {"context": "a", "question": "b", "answers": {"text": ["a"], "answer_start": [0]}},
    "preferences": {"prompt": "a", "chosen": "b", "rejected": "c"},
    "prompts": {"prompt": "a"},
}
EVERY = sorted({*FIELDS, *REFUSED, "id", "persona"})


def line_of(record: dict[str, object]) -> bytes:
    return json.dumps(record).encode() + b"\n"


@pytest.mark.parametrize("dataset_format", EXAMPLES)
def test_a_field_is_read_or_named_or_refused(dataset_format: wire.DatasetFormat) -> None:
    record = EXAMPLES[dataset_format]
    for name in EVERY:
        if name in record:
            continue
        found, _ = checked(line_of({**record, name: "some text"}) * 2)
        named = {*found.columns.used, *found.columns.ignored, *(error.field for error in found.report.errors)}
        assert name in named or not found.report.valid, (dataset_format, name)


def test_a_field_of_a_turn_is_named_by_its_place() -> None:
    turns = [{"role": "user", "content": "a", "id": 1}, {"role": "assistant", "content": "b", "lang": "en"}]
    found, _ = checked(line_of({"messages": turns, "score": 3}) * 3)
    assert found.report.valid
    assert found.columns.used == ("messages",)
    assert found.columns.ignored == ("messages[].id", "messages[].lang", "score")


@pytest.mark.parametrize("name", ['x"y', "x\\y", "x\ny", "\x00", '"', ""])
def test_a_field_may_have_any_name(name: str) -> None:
    turns = [{"role": "user", "content": "a", name: 1}, {"role": "assistant", "content": "b"}]
    for record, place in (({"input": "a", "output": "b"}, name), ({"messages": turns}, f"messages[].{name}")):
        found, _ = checked((line_of({**record, name: 1}) + line_of({**record, "id": 1})) * 3)
        assert found.report.valid
        assert found.num_examples == 6
        assert {place, "id"} <= {*found.columns.ignored}


def test_a_column_is_named_as_the_file_names_it() -> None:
    found, _ = checked(b"nr,question,reply\n1,a,b\n", "data.csv", {"input": "question", "output": "reply"})
    assert (found.columns.used, found.columns.ignored) == (("question", "reply"), ("nr",))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_would_change_what_is_learned_is_refused_by_name(name: str) -> None:
    line = line_of({"document": "A long text", "summary": "Short", name: ["x"]})
    found, _ = checked(line_of({"document": "Another text", "summary": "Short"}) + line)
    assert [(error.line, error.field) for error in found.report.errors] == [(2, name)]
    empty, _ = checked(line_of({"document": "A long text", "summary": "Short", name: None}))
    assert empty.report.valid


@pytest.mark.parametrize("name", ["train_on_turn", "loss_weight", "is_trainable", "ignore", "Reasoning", "Mask"])
def test_what_says_of_a_turn_whether_it_is_learned_is_refused(name: str) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", name: 0}]
    found, _ = checked(line_of({"messages": turns}))
    assert [(error.line, error.field) for error in found.report.errors] == [(1, f"messages[].{name}")]


def test_a_field_that_usually_matters_is_a_warning() -> None:
    found, _ = checked(line_of({"input": "a", "output": "b", "context": "c"}))
    assert [(warning.line, warning.field) for warning in found.report.warnings] == [(1, "context")]


@pytest.mark.parametrize(
    ("columns", "mapping"),
    [
        (["instruction", "context", "response", "category"], {"output": "response", "input": "context"}),
        (["system", "question", "chosen", "rejected"], {"prompt": "question"}),
        (["system", "question", "response"], {"input": "question", "output": "response"}),
        (["dialogue", "summary", "id"], {"document": "dialogue"}),
        (["query", "reply", "images"], None),
        (["question", "history", "response"], None),
    ],
)
def test_a_mapping_that_is_proposed_loses_nothing(columns: list[str], mapping: dict[str, str] | None) -> None:
    assert propose(dict.fromkeys(columns), alone=False) == mapping
