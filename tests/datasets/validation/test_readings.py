"""Columns under their usual names are taken where only one reading is possible, and what was taken is said."""

import json
from typing import Any

import pytest
from support.checked import checked

from modelforge.datasets.validation.columns import Columns

ASKED = [{"role": "user", "content": "Hi?"}]
SHARED = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Ho."}]
TURNS = [*ASKED, {"role": "assistant", "content": "Ho."}]
READ: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"question": "a", "answer": "b"}, "input_output", {"input": "a", "output": "b"}),
    ({"Question": "a", "Answer": "b", "id": 3}, "input_output", {"input": "a", "output": "b"}),
    ({"prompt": "a", "response": "b"}, "prompt_completion", {"prompt": "a", "completion": "b"}),
    ({"prompt": "a", "output": "b"}, "prompt_completion", {"prompt": "a", "completion": "b"}),
    (
        {"query": "a", "response": "b", "system_prompt": "s"},
        "input_output",
        {"input": "a", "output": "b", "system": "s"},
    ),
    ({"system": "s", "question": "a", "response": "b"}, "input_output", {"input": "a", "output": "b", "system": "s"}),
    (
        {"instruction": "a", "context": "c", "response": "b", "category": "qa"},
        "alpaca",
        {"instruction": "a", "input": "c", "output": "b"},
    ),
    ({"instruction": "a", "response": "b"}, "alpaca", {"instruction": "a", "output": "b"}),
    (
        {"instruction": "a", "input": "c", "response": "b"},
        "alpaca",
        {"instruction": "a", "input": "c", "output": "b"},
    ),
    (
        {"query": "a", "response": "b", "history": [["c", "d"]]},
        "alpaca",
        {"instruction": "a", "output": "b", "history": [["c", "d"]]},
    ),
    ({"instruction": "a", "context": "c", "output": "b"}, "alpaca", {"instruction": "a", "input": "c", "output": "b"}),
    ({"id": "1", "dialogue": "a", "summary": "b"}, "document_summary", {"document": "a", "summary": "b"}),
    ({"text": "a", "summary": "b", "title": "t"}, "document_summary", {"document": "a", "summary": "b"}),
    ({"article": "a", "abstract": "b"}, "document_summary", {"document": "a", "summary": "b"}),
    ({"content": "a", "url": "x"}, "text", {"text": "a"}),
    ({"conversation": TURNS}, "messages", {"messages": TURNS}),
    ({"messages": SHARED}, "conversations", {"conversations": SHARED}),
    (
        {"system": "s", "question": "a", "chosen": "b", "rejected": "c"},
        "preferences",
        {"prompt": "a", "chosen": "b", "rejected": "c", "system": "s"},
    ),
    (
        {"conversations": SHARED[:1], "chosen": SHARED[1], "rejected": {"from": "gpt", "value": "No."}},
        "preferences",
        {"prompt": ASKED, "chosen": TURNS[1:], "rejected": [{"role": "assistant", "content": "No."}]},
    ),
    (
        {"prompt": "Hi?", "chosen": TURNS[1], "rejected": {"role": "assistant", "content": "No."}},
        "preferences",
        {"prompt": "Hi?", "chosen": TURNS[1:], "rejected": [{"role": "assistant", "content": "No."}]},
    ),
    (
        {"instruction": "a", "input": "i", "chosen": "b", "rejected": "c", "system": "s"},
        "preferences",
        {"prompt": "a\n\ni", "chosen": "b", "rejected": "c", "system": "s"},
    ),
    (
        {"messages": ASKED, "chosen": "b", "rejected": "c"},
        "preferences",
        {"prompt": ASKED, "chosen": "b", "rejected": "c"},
    ),
    (
        {"input": ASKED, "output": "b", "system_prompt": "s"},
        "prompt_completion",
        {"prompt": ASKED, "completion": "b", "system": "s"},
    ),
    (
        {"instruction": "a", "input": "i", "system_prompt": "s", "chosen": "b", "rejected": "c"},
        "preferences",
        {"prompt": "a\n\ni", "chosen": "b", "rejected": "c", "system": "s"},
    ),
    (
        {"messages": SHARED[:1], "chosen": SHARED[1], "rejected": {"from": "gpt", "value": "No."}},
        "preferences",
        {"prompt": ASKED, "chosen": TURNS[1:]},
    ),
    ({"messages": SHARED, "system_prompt": "s"}, "conversations", {"conversations": SHARED, "system": "s"}),
    ({"dialog": TURNS, "system_prompt": "s"}, "messages", {"messages": TURNS, "system": "s"}),
    ({"Prompt": "a", "Completion": "b"}, "prompt_completion", {"prompt": "a", "completion": "b"}),
    (
        {"Context": "a b", "Question": "q", "Answer": "b"},
        "question_answer",
        {"context": "a b", "question": "q", "answer": "b"},
    ),
    ({"question": "a", "answer": "b", "source": "wiki"}, "input_output", {"input": "a", "output": "b"}),
    ({"source": "a", "target": "b"}, "input_output", {"input": "a", "output": "b"}),
    ({"user": "a", "assistant": "b"}, "input_output", {"input": "a", "output": "b"}),
    (
        {
            "input": {"messages": ASKED, "tools": [], "parallel_tool_calls": True},
            "preferred_output": TURNS[1:],
            "non_preferred_output": [{"role": "assistant", "content": "No."}],
        },
        "preferences",
        {"prompt": ASKED, "chosen": TURNS[1:], "rejected": [{"role": "assistant", "content": "No."}]},
    ),
]
REFUSED: list[dict[str, Any]] = [
    {"question": "a", "answer": "b", "response": "c"},
    {"question": "a", "prompt": "p", "response": "c"},
    {"question": "a", "choices": ["x", "y"], "answer": "b"},
    {"Question": "a", "Complex_CoT": "c", "Response": "b"},
    {"role": "user", "content": "hi"},
    {"message_id": "1", "parent_id": None, "role": "prompter", "text": "hi"},
    {"message_id": "1", "parent_id": None, "role": "prompter", "content": "hi"},
    {"query": "a", "images": ["x.png"], "response": "b"},
    {"title": "a", "body": "b", "label": 1},
    {"context": "c", "question": "a", "chosen": "b", "rejected": "d"},
    {"instruction": "a", "context": "c", "chosen": "b", "rejected": "d"},
    {"instruction": "a", "question": "c", "chosen": "b", "rejected": "d"},
    {"inputs": [1, 2], "targets": [3]},
    {"text": "a", "tldr": "b"},
    {"text": "a", "question": "b"},
    {"question": "a", "A": "x", "B": "y", "answer": "x"},
    {"question": "a", "option_1": "x", "option_2": "y", "answer": "x"},
    {"question": "a", "context": "c", "response": "b"},
]


def lines(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


@pytest.mark.parametrize(("record", "dataset_format", "read"), READ)
def test_usual_names_are_read_and_that_is_said(
    record: dict[str, Any], dataset_format: str, read: dict[str, Any]
) -> None:
    found, records = checked(lines(record))
    assert found.report.valid, found.report.errors
    assert found.format == dataset_format
    made = json.loads(records.splitlines()[0])
    assert {name: value for name, value in made.items() if name in read} == read
    if found.columns.mapping is not None:
        assert "The columns are read as" in found.report.warnings[0].message
    named = {name.split("[")[0].split(".")[0] for name in (*found.columns.used, *found.columns.ignored)}
    assert named >= {name for name, value in record.items() if value}


@pytest.mark.parametrize("record", REFUSED)
def test_what_could_be_read_in_two_ways_or_lose_something_is_refused(record: dict[str, Any]) -> None:
    found, _ = checked(lines(record))
    assert not found.report.valid


def test_turns_without_an_object_around_them_are_a_conversation() -> None:
    for spelled, dataset_format in ((TURNS, "messages"), (SHARED, "conversations")):
        found, records = checked(lines(spelled, [*spelled, *spelled]))
        assert (found.format, found.num_examples, found.report.valid) == (dataset_format, 2, True)
        assert json.loads(records.splitlines()[0]) == {dataset_format: spelled}


def test_a_table_and_a_parquet_file_are_read_by_their_usual_names(tmp_path: Any) -> None:
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    found, records = checked(b"Frage;question;answer\nx;a;b\n", "a.csv")
    assert json.loads(records)["input"] == "a"
    assert (found.columns.used, found.columns.ignored) == (("answer", "question"), ("Frage",))
    parquet.write_table(pa.table({"dialogue": ["a"], "summary": ["b"], "id": [1]}), tmp_path / "a.parquet")
    found, records = checked((tmp_path / "a.parquet").read_bytes(), "a.parquet")
    assert json.loads(records) == {"document": "a", "summary": "b"}
    assert found.columns.ignored == ("id",)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (["instruction", "context"], "Say it.\n\nIn rhyme."),
        ("{instruction} ({context})", "Say it. (In rhyme.)"),
        ("{{{number}}} {instruction}", "{7} Say it."),
        ("nested.name", "Ada"),
    ],
)
def test_columns_are_put_together_as_they_are_given(source: str | list[str], text: str) -> None:
    record = {"instruction": "Say it.", "context": "In rhyme.", "number": 7, "nested": {"name": "Ada"}, "response": "b"}
    found, records = checked(lines(record), columns={"input": source, "output": "response"})
    assert found.report.valid, found.report.errors
    assert json.loads(records)["input"] == text
    assert found.columns.mapping == {"input": source, "output": "response"}


def test_what_is_no_text_is_put_into_none() -> None:
    found, _ = checked(lines({"a": {"x": 1}, "b": "y"}), columns={"input": ["a"], "output": "b"})
    assert [(error.line, error.field) for error in found.report.errors] == [(1, "a")]
    found, _ = checked(lines({"a": "x", "b": "y"}), columns={"input": "{a} {gone}", "output": "b"})
    assert "There is no column 'gone'" in found.report.errors[0].message


def test_a_column_that_only_later_records_have_is_read_too() -> None:
    first, later = {"instruction": "a", "response": "b"}, {"instruction": "a", "context": "c", "response": "d"}
    found, records = checked(lines(first, {**first, "context": None}, later))
    assert [json.loads(line).get("input") for line in records.splitlines()] == [None, None, "c"]
    assert found.report.valid
    closed = {"question": "a", "answer": "b", "choices": None}
    assert checked(lines(closed, {"question": "a", "answer": "b"}))[0].report.valid
    found, _ = checked(lines(closed, {**closed, "choices": ["b", "c"]}))
    assert not found.report.valid


@pytest.mark.parametrize(
    ("first", "later", "learned"),
    [
        ({"question": "a", "answer": "b"}, {"system_prompt": "s"}, {"input": "a", "output": "b", "system": "s"}),
        ({"instruction": "a", "response": "b"}, {"context": "c"}, {"instruction": "a", "input": "c", "output": "b"}),
        ({"question": "a", "answer": "b", "system_prompt": None}, {"system_prompt": "s"}, {"system": "s"}),
        ({"input": "", "question": "a", "output": "b"}, {"input": "c"}, None),
        ({"question": "a", "answer": "b"}, {"context": "c"}, None),
        ({"question": "a", "answer": "b"}, {"choices": ["c"]}, None),
        ({"question": "a", "answer": "b", "choices": None}, {"choices": ["c"]}, None),
    ],
)
def test_a_column_that_comes_after_very_many_records_is_read_or_said(
    first: dict[str, Any], later: dict[str, Any], learned: dict[str, Any] | None
) -> None:
    found, records = checked(lines(*[first] * 300, first | later))
    if learned is not None:
        assert found.report.valid
        last = json.loads(records.splitlines()[-1])
        assert {name: last[name] for name in learned} == learned
    else:
        (name,) = later
        assert not found.report.valid or any(warning.field == "question" for warning in found.report.warnings)
        assert name in {*found.columns.used, *found.columns.ignored}


@pytest.mark.parametrize(
    "record",
    [
        {"question": "Which?", "choices": ["x", "y"], "answer": "x"},
        {"question": "Is it?", "passage": "It is.", "answer": True},
        {"question": "Who?", "story": "Ada wrote.", "answer": "Ada"},
        {"question": "How many?", "context": "CREATE TABLE a", "response": "SELECT 1"},
        {"problem": "1+1?", "solution": "It is 2.", "answer": "2"},
        {"Question": "a", "Complex_CoT": "c", "Response": "b"},
        {"text": "a", "response": "b"},
        {"text": "a", "headline": "b"},
        {"question": "Which?", "A": "x", "B": "y", "answer": "x"},
        {"definition": "c", "inputs": "a", "targets": "b"},
        {"instruction": "c", "inputs": "a", "targets": "b"},
        {"instruction": "a", "context": ["c", "d"], "response": "b"},
        {"question": "a", "thinking_trajectories": ["c"], "solution": "b"},
        {"query": "a", "schema": "c", "reply": "b"},
    ],
)
def test_what_a_refusal_proposes_is_taken_and_loses_nothing(record: dict[str, Any]) -> None:
    refused, _ = checked(lines(record))
    said = refused.report.errors[0].message
    assert not refused.report.valid
    given = json.loads(said.partition("send columns=")[2].removesuffix(" with the file."))
    found, records = checked(lines(record), columns=given)
    assert found.report.valid, found.report.errors
    assert {*found.columns.used} == {*record}
    made = " ".join(str(value) for value in json.loads(records).values())
    assert all(
        str(part).lower() in made.lower()
        for value in record.values()
        for part in (value if isinstance(value, list) else [value])
    )


def test_a_number_is_put_into_a_text_as_it_is_written() -> None:
    line = b'{"q": {"n": 1.10, "deep": {"m": 12345678901234567890123, "o": 2}}, "a": "b"}\n'
    found, records = checked(line, columns={"input": "{q.n} {q.deep.m}", "output": "a"})
    assert json.loads(records)["input"] == "1.10 12345678901234567890123"
    assert found.columns.ignored == ("q.deep.o",)


def test_an_empty_part_leaves_no_gap() -> None:
    columns = Columns({"input": ["a", "b", "c"], "output": "d"})
    assert columns.compose({"a": "1", "b": None, "c": "3", "output": "x"}) == {"input": "1\n\n3", "output": "x"}
