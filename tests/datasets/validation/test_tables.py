"""Tables that say little and mean much are bounded."""

import io
import json
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from pyarrow import parquet
from support.checked import checked

from modelforge.datasets.validation import tables


def test_records_that_are_larger_than_a_file_may_be_are_refused() -> None:
    rows = "text," + "h" * 1000 + "\n" + "a,b\n" * 1000
    out = io.BytesIO()
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 1000), pa.array(["long " * 200]))
    parquet.write_table(pa.table({"text": text}), out)
    for content, name in ((rows.encode(), "a.csv"), (out.getvalue(), "a.parquet")):
        assert len(content) < 20_000
        found, records = checked(content, name, limit=20_000)
        assert "larger than 20000 bytes" in found.report.errors[0].message
        assert len(records) <= 20_000


TABLE = "input\toutput\na\tb, c\né\td\n"


@pytest.mark.parametrize("name", ["a.tsv", "a.tab", "a.csv", "a.txt", "a", "a.dat", "a.tab.gz", "a.json"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_a_table_is_seen_by_its_header(name: str, encoding: str) -> None:
    for content in (TABLE, TABLE.replace("\n", "\r\n"), TABLE.replace("\n", "\n\t\n\n"), f"sep=\t\n{TABLE}"):
        found, records = checked(content.encode(encoding), name)
        assert (found.report.errors, found.container) == ((), "csv")
        assert [json.loads(line) for line in records.splitlines()] == [
            {"input": "a", "output": "b, c"},
            {"input": "é", "output": "d"},
        ]


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\r\ninput;output\r\na,1;b\r\n",
        '"sep=;"\ninput;output\na,1;b\n',
        "SEP=;\n\ninput;output;;\n\na,1;b;;\n;;;\n",
        "input;output\na,1;b;;\n;\n",
        "input|output\na,1|b\n",
    ],
)
def test_a_table_of_excel_is_read(content: str) -> None:
    for name in ("a.csv", "a.txt"):
        found, records = checked(content.encode(), name)
        assert found.report.errors == ()
        assert json.loads(records) == {"input": "a,1", "output": "b"}


def test_the_line_of_a_row_counts_from_the_first_of_the_file() -> None:
    found, _ = checked(b"sep=;\n\ninput;output\na;b\n\nc;\n", "a.csv")
    assert [(error.line, error.field) for error in found.report.errors] == [(6, "output")]
    found, _ = checked(b"input;output\na;b;c\n", "a.csv")
    assert "The row has 3 cells, the header 2" in found.report.errors[0].message


def test_a_cell_in_a_column_without_a_name_is_told() -> None:
    found, _ = checked(b",input,output,,\n1,a,b,,\n2,c,d,,x\n", "a.csv")
    assert (found.report.errors, found.columns.ignored) == ((), ("column 1", "column 5"))


@pytest.mark.parametrize(("content", "columns"), [("question,reply", None), ("q,r", {"input": "q", "output": "r"})])
def test_a_table_without_a_name_is_one_by_columns_that_are_near_or_given(
    content: str, columns: dict[str, str] | None
) -> None:
    found, _ = checked(f"{content}\na,b\n".encode(), "a.txt", columns)
    assert found.container == "csv"
    assert found.report.valid
    assert found.columns.mapping == (columns or {"input": "question", "output": "reply"})


@pytest.mark.parametrize("content", ["Dear reader, this is a text.\nIt has commas, too.\n", "a,b\nc,d\n", "text\na\n"])
def test_a_text_that_is_no_table_is_refused_as_json(content: str) -> None:
    found, _ = checked(content.encode(), "a.txt")
    assert "not valid JSON" in found.report.errors[0].message


def test_a_row_of_a_table_is_no_longer_than_a_line_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST_LINE", 100)
    found, _ = checked(b"input,output\n" + b'"\n",' * 1000 + b"\n", "a.csv")
    assert "longer than 100 bytes" in found.report.errors[0].message
    assert found.report.errors[0].line < 100
    rows = b'"a\n",b\n' * 100
    assert checked(b"input,output\n" + rows, "a.csv")[0].report.valid


def test_a_date_that_no_calendar_has_is_a_fault_of_the_file() -> None:
    out = io.BytesIO()
    when = pa.array([2**62], pa.timestamp("us"))
    parquet.write_table(pa.table({"input": ["a"], "output": ["b"], "text": when}), out)
    found, _ = checked(out.getvalue(), "a.parquet")
    assert "The Parquet file cannot be read" in found.report.errors[0].message


def test_rows_that_unpaired_quotes_make_one_are_said() -> None:
    found, _ = checked(b'input,output\na,"5 inch\nb,c\nd,5"\ne,"x\ny,z"\n', "a.csv")
    assert found.report.valid
    said = [(warning.line, warning.message) for warning in found.report.warnings if "quote" in warning.message]
    assert said == [(2, "The lines 2 to 4 are one row, and look like several: is a quote missing, or too many?")]
    found, _ = checked(b'input,output\na,"first\nsecond, with, commas\nthird"\n', "a.csv")
    assert not found.report.warnings


def test_a_table_of_markdown_is_refused_by_its_name() -> None:
    found, _ = checked(b"| input | output |\n|:---|---|\n| a | b |\n", "a.csv")
    assert [(error.line, error.message) for error in found.report.errors] == [
        (2, "The table is one of Markdown; save it as CSV.")
    ]
    assert checked(b"input|output\na|b\n", "a.csv")[0].report.valid


def test_lines_that_a_carriage_return_ends_are_read() -> None:
    found, records = checked(b'input,output\ra,"b\rc"\rd,e\r', "a.csv")
    assert found.report.valid
    assert [json.loads(line) for line in records.splitlines()] == [
        {"input": "a", "output": "b\nc"},
        {"input": "d", "output": "e"},
    ]


def test_a_space_after_each_separator_is_no_part_of_a_cell() -> None:
    found, records = checked(b'input, output\nx, "y, z"\n', "a.csv")
    assert found.report.valid
    assert json.loads(records) == {"input": "x", "output": "y, z"}
    _, records = checked(b"input,output\nx, y\n", "a.csv")
    assert json.loads(records)["output"] == " y"


def parquet_of(**columns: Any) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table(columns), file)
    return file.getvalue()


def test_what_other_rows_have_in_an_object_is_no_argument_of_a_call() -> None:
    def turns(**arguments: str) -> list[dict[str, Any]]:
        call = {"function": {"name": "weather", "arguments": arguments}}
        return [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": [call]}]

    found, records = checked(parquet_of(messages=[turns(city="Oslo"), turns(unit="C")]), "a.parquet")
    assert found.report.valid, found.report.errors
    called = [json.loads(line)["messages"][1]["tool_calls"][0] for line in records.splitlines()]
    assert [call["function"]["arguments"] for call in called] == [{"city": "Oslo"}, {"unit": "C"}]


def test_a_short_float_keeps_its_own_digits() -> None:
    for kind in (pa.float16(), pa.float32(), pa.float64()):
        _, records = checked(parquet_of(input=["a"], output=pa.array([0.1]).cast(kind)), "a.parquet")
        assert json.loads(records)["output"] == "0.1"


def test_columns_in_capitals_are_read_of_parquet_too() -> None:
    found, records = checked(parquet_of(input=["a"], output=["b"], System=["s"]), "a.parquet")
    assert json.loads(records) == {"input": "a", "output": "b", "system": "s"}
    assert found.columns.used == ("System", "input", "output")
    found, _ = checked(parquet_of(text=["a"], Label=[0]), "a.parquet")
    assert [error.field for error in found.report.errors] == ["label"]
    found, _ = checked(parquet_of(input=["a"], output=["b"], passage=["c"]), "a.parquet")
    assert [warning.field for warning in found.report.warnings] == ["passage"]


def test_a_place_and_what_is_impossible_are_read_of_a_table() -> None:
    table = b"context,question,answer,answer_start,is_impossible\na a,q,a,002,False\nb,q,,,TRUE\n"
    found, records = checked(table, "a.csv")
    assert found.report.valid, found.report.errors
    assert [json.loads(line)["answer_start"] for line in records.splitlines()] == [2, None]
    assert [json.loads(line)["is_impossible"] for line in records.splitlines()] == [False, True]
    found, _ = checked(b"context,question,answer,answer_start\na a,q,a,second\n", "a.csv")
    assert [(error.line, error.field) for error in found.report.errors] == [(2, "answer_start")]
