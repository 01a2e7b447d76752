"""Whoever changes the file behind the log's back is found out."""

from pathlib import Path

import pytest
from support.running_log import COLUMNS, first_break, rows_of, sqlite, write
from support.scenario import launching, records_of, register_dataset, requested, start, uploaded

PAST = records_of(start(), requested(), launching(), register_dataset(), uploaded())


@pytest.mark.parametrize("position", [1, 3, 5])
@pytest.mark.parametrize("column", COLUMNS)
def test_any_changed_column_of_any_row_breaks_the_chain(path: Path, column: str, position: int) -> None:
    write(path, PAST)
    assert first_break(rows_of(path)) is None
    changed = {
        "position": "100 + position",
        "version": "version + 100",
        "at": "at + 1",
        "cause": "coalesce(cause, 0) + 1",
        "kind": "CASE kind WHEN 'event' THEN 'command' ELSE 'event' END",
        "data": "replace(data, 'three_lines', 'other_lines')",
    }.get(column, f"{column} || 'x'")
    sqlite(path, f"UPDATE records SET {column} = {changed} WHERE position = {position}")  # noqa: S608 - constants
    broken = first_break(rows_of(path))
    if (column, position) == ("data", 3):  # nothing of it stands in that row
        assert broken is None
    else:
        assert broken == position


def test_a_row_that_was_taken_out_breaks_the_chain(path: Path) -> None:
    write(path, PAST)
    sqlite(path, "DELETE FROM records WHERE position = 2")
    assert first_break(rows_of(path)) == 2


def test_rows_that_changed_places_break_the_chain(path: Path) -> None:
    write(path, PAST)
    sqlite(
        path,
        "UPDATE records SET position = 99 WHERE position = 4",
        "UPDATE records SET position = 4 WHERE position = 5",
        "UPDATE records SET position = 5 WHERE position = 99",
    )
    assert first_break(rows_of(path)) == 4
