"""Tables that say little and mean much are bounded."""

import io

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
