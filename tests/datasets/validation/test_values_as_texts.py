"""A number or a boolean for a text is read as it is written, and said once; nothing else is made a text."""

import io
import json

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from pyarrow import parquet
from support.checked import checked

from modelforge.datasets.validation.fields import Fields

PLAIN = b'{"input": "a", "output": "b"}\n'


@pytest.mark.parametrize(
    ("value", "text"),
    [(value, value) for value in ("1", "-7", "true", "false", "1.50", "1e3", "0.1000", "12345678901234567890123")],
)
@pytest.mark.parametrize(("record", "field"), [('{"input": "a", "output": %s}', "output"), ('{"text": %s}', "text")])
def test_a_value_is_read_as_it_is_written(value: str, text: str, record: str, field: str) -> None:
    line = (record % value).encode()
    plain = (record % '"b"').encode()
    found, records = checked(b"\n".join([plain, line, line, b""]))
    assert (found.report.errors, found.num_examples, found.container) == ((), 3, "jsonl")
    assert [json.loads(row)[field] for row in records.splitlines()] == ["b", text, text]
    assert found.records_sha256 is not None
    first = found.report.warnings[0]
    assert (first.line, first.field) == (2, field)
    assert first.message == f'It is {text}, and no text: it is read as "{text}"; so are such values in 1 more.'


@pytest.mark.parametrize(
    ("record", "field", "text"),
    [
        ({"context": "Ada, in 1843.", "question": "When?", "answer": 1843}, "answer", "1843"),
        ({"prompt": "Is it?", "completion": True}, "completion", "true"),
        ({"prompt": 1, "chosen": 2, "rejected": 3}, "prompt", "1"),
        ({"instruction": "Add.", "input": 5, "output": 6}, "input", "5"),
        ({"document": "a", "summary": 1}, "summary", "1"),
    ],
)
def test_each_field_of_a_text_may_have_one(record: dict[str, object], field: str, text: str) -> None:
    for content, name in (
        (json.dumps(record).encode() + b"\n", "a.jsonl"),
        (json.dumps([record], indent=1).encode(), "a.json"),
        (json.dumps(record).encode("utf-16"), "a.jsonl"),
    ):
        found, records = checked(content, name)
        assert (found.report.errors, found.num_examples) == ((), 1)
        (row,) = map(json.loads, records.splitlines())
        assert row[field] == text
        assert all(isinstance(value, str) for value in row.values())
        said = [warning for warning in found.report.warnings if "and no text" in warning.message]
        assert [warning.field for warning in said] == [field]


def test_a_column_of_numbers_is_read_so_too() -> None:
    for values, texts in (([1, 2], ["1", "2"]), ([True, False], ["true", "false"]), ([0.5, 2.0], ["0.5", "2.0"])):
        out = io.BytesIO()
        parquet.write_table(pa.table({"q": ["a", "b"], "r": values}), out)
        found, records = checked(out.getvalue(), "a.parquet", {"input": "q", "output": "r"})
        assert found.report.errors == ()
        assert [json.loads(row)["output"] for row in records.splitlines()] == texts
        (warning,) = found.report.warnings
        assert (warning.line, warning.field) == (1, "output")


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"input": "a", "output": None}, "output"),
        ({"input": "a", "output": [1]}, "output"),
        ({"input": "a", "output": {"a": 1}}, "output"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": 1}]}, "messages[1].content"),
        ({"messages": 1}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}], "tools": 1}, "tools"),
        ({"prompt": "a", "completion": 1, "label": True}, "label"),
        (
            {"context": "1843", "question": "b", "answers": {"text": ["1843"], "answer_start": ["0"]}},
            "answers.answer_start[0]",
        ),
    ],
)
def test_nothing_else_is_made_a_text(record: dict[str, object], field: str) -> None:
    found, _ = checked(json.dumps(record).encode() + b"\n")
    assert [error.field for error in found.report.errors] == [field]


def test_errors_are_those_of_the_lines_of_the_file() -> None:
    bad = b'{"input": "c", "output": ""}\n'
    found, _ = checked(PLAIN + b"\n" + b'{"input": "a", "output": 1}\n' + bad + b'{"input": 2}\n')
    assert [(error.line, error.field) for error in found.report.errors] == [(4, "output"), (5, "output")]


def test_a_file_of_texts_is_decoded_once_and_kept_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    decode_lines = Fields.decode_lines

    def counting(fields: Fields, data: bytes) -> object:
        decoded.append(len(data))
        return decode_lines(fields, data)

    monkeypatch.setattr(Fields, "decode_lines", counting)
    found, _ = checked(PLAIN * 10)
    assert (found.records_sha256, decoded) == (None, [len(PLAIN) * 10])
