"""Pages of a dataset's records: whole, in order, and read in bounded pieces."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelforge.datasets import record_pages
from modelforge.datasets.record_pages import RecordPages


def write(path: Path, records: list[object], between: str = "\n") -> Path:
    path.write_text(between.join(json.dumps(record) for record in records) + between)
    return path


def numbers(path: Path, pages: RecordPages, **asked: int | str) -> tuple[list[int], int | None]:
    page = pages.read(path, **{"offset": 0, "limit": 10, **asked})  # type: ignore[arg-type]
    return [json.loads(bytes(one.record))["n"] for one in page.records], page.next_offset


def all_numbers(path: Path, pages: RecordPages, **asked: int | str) -> list[int]:
    """What a client gets that goes on until there is no further page."""
    found: list[int] = []
    offset: int | None = 0
    while offset is not None:
        page, offset = numbers(path, pages, offset=offset, **asked)
        found += page
    return found


@pytest.fixture
def hundred(tmp_path: Path) -> Path:
    return write(tmp_path / "hundred", [{"n": n, "text": f"Nr. {n} ÄÖ"} for n in range(100)], "\n \r\n")


def test_pages_follow_each_other_and_the_last_one_says_so(hundred: Path) -> None:
    pages = RecordPages()
    assert numbers(hundred, pages) == ([*range(10)], 10)
    assert numbers(hundred, pages, offset=95) == ([*range(95, 100)], None)
    assert numbers(hundred, pages, offset=90) == ([*range(90, 100)], None)
    assert numbers(hundred, pages, offset=100) == ([], None)
    assert numbers(hundred, pages, offset=5000) == ([], None)
    assert pages.read(hundred, offset=3, limit=1).records[0].line == 7


@settings(max_examples=40)
@given(limit=st.integers(1, 13), each=st.integers(1, 400), searched=st.integers(1, 400), passed=st.integers(1, 400))
def test_whatever_is_read_at_once_every_record_comes_once(
    tmp_path_factory: pytest.TempPathFactory, limit: int, each: int, searched: int, passed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "twelve"
    if not path.exists():
        write(path, [{"n": n, "text": "odd" if n % 2 else "even"} for n in range(12)], "\n\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_pages, "_APART", each)
        patch.setattr(record_pages, "MOST_SEARCHED_BYTES", searched)
        patch.setattr(record_pages, "MOST_PASSED_BYTES", passed)
        pages = RecordPages()
        assert all_numbers(path, pages, limit=limit) == [*range(12)]
        assert all_numbers(path, pages, limit=limit, search="ODD") == [*range(1, 12, 2)]


def test_a_text_is_found_in_values_at_any_depth_and_in_no_name(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mixed",
        [
            {"n": 0, "needle": "hay"},
            {"n": 1, "turns": [{"content": 'a \u00c4hre\n"quoted" NeeDLE'}]},
            {"n": 2, "more": {"deep": [[7321, None, True]]}},
            {"n": 3, "text": "STRASSE"},
        ],
    )
    for search, found in (
        ("needle", [1]), ("ähre", [1]), ('\n"quoted"', [1]), ("732", [2]), ("straße", [3]), ("true", []), (".*", []),
    ):  # fmt: skip
        assert numbers(path, RecordPages(), search=search) == (found, None), search


def test_a_search_stops_where_it_has_read_enough_and_says_where(hundred: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_pages, "MOST_SEARCHED_BYTES", 300)
    pages = RecordPages()
    found, next_offset = numbers(hundred, pages, search="nr. 99")
    assert (found, next_offset is not None and 0 < next_offset < 20) == ([], True)
    assert all_numbers(hundred, pages, search="nr. 99") == [99]


def test_only_so_many_files_and_places_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_pages, "_APART", 100)
    pages = RecordPages()
    for name in range(20):
        path = write(tmp_path / str(name), [{"n": n} for n in range(60)])
        for offset in (10, 11, 12, 40, 13):
            assert numbers(path, pages, offset=offset, limit=5)[0] == [*range(offset, offset + 5)]
    remembered = pages._places  # noqa: SLF001 - what it keeps is the promise
    assert len(remembered) == 16
    for places in remembered.values():
        assert places == sorted(places)
        assert all(after.size - before.size >= 100 for before, after in itertools.pairwise(places))
