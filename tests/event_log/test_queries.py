"""Whatever part of a log is asked for comes back as from a list of its records, and by an index."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.running_log import write
from support.scenario import launching, logged, records_of, register_dataset, requested, start, step, training_started

from modelforge.domain import job
from modelforge.domain.messages import Message, Record
from modelforge.event_log.queries import last_row, rows_backwards, select_rows
from modelforge.event_log.sqlite import LogReader

OTHER = "train_000002"
STREAMS = ("train_000001", OTHER, "dataset:a.jsonl", "none")
TYPES = ("MetricsLogged", "TrainingRequested", "CheckpointRequested", "RegisterDataset", "none")


def _messages() -> Iterator[Message]:
    yield from (start(), requested(), launching(), training_started())
    yield from (start(OTHER), requested(OTHER))
    for number in range(1, 40):
        yield logged(step(number))
        if number % 3 == 0:
            yield job.CheckpointRequested(job_id=OTHER, attempt=1)
        if number % 7 == 0:
            yield register_dataset(filename="a.jsonl")
            yield job.CheckpointRequested(job_id="train_000001", attempt=1)


PAST = records_of(*_messages())
positions = st.integers(0, len(PAST) + 2)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "events.sqlite"
    write(path, PAST)
    return path


def _asked(record: Record, streams: list[str], types: list[str]) -> bool:
    return (not streams or record.stream in streams) and (not types or record.type in types)


@given(
    after=positions,
    until=positions | st.none(),
    streams=st.lists(st.sampled_from(STREAMS), max_size=3),
    types=st.lists(st.sampled_from(TYPES), max_size=3),
    limit=st.integers(-1, 30),
)
def test_any_part_of_the_log_is_what_a_list_of_its_records_would_give(
    log: Path, after: int, until: int | None, streams: list[str], types: list[str], limit: int
) -> None:
    between = PAST[after : len(PAST) if until is None else max(after, until)]
    wanted = [record for record in between if _asked(record, streams, types)]
    with closing(LogReader(log)) as reader:
        found = reader.records(after=after, until=until, streams=(*streams,), types=(*types,), limit=limit)
        assert list(found) == (wanted if limit < 0 else wanted[:limit])


@given(stream=st.sampled_from(STREAMS), tag=st.sampled_from(TYPES), until=positions)
def test_the_last_record_of_a_type_is_that_before_a_position(log: Path, stream: str, tag: str, until: int) -> None:
    found = [record for record in PAST[:until] if (record.stream, record.type) == (stream, tag)]
    with closing(LogReader(log)) as reader:
        assert reader.last_record(stream, tag, until=until) == (found[-1] if found else None)


@given(stream=st.sampled_from(STREAMS), types=st.lists(st.sampled_from(TYPES), max_size=3), until=positions)
def test_a_stream_read_backwards_is_the_same_one_turned_round(
    log: Path, stream: str, types: list[str], until: int
) -> None:
    wanted = [record for record in PAST[:until] if _asked(record, [stream], types)]
    with closing(LogReader(log)) as reader:
        assert [*reader.records_backwards(stream, (*types,), until=until)] == wanted[::-1]


@pytest.mark.parametrize(
    ("streams", "types"),
    [
        ((), ("TrainingRequested",)),
        ((), ("TrainingRequested", "CheckpointRequested")),
        ((OTHER,), ()),
        (STREAMS, ()),
        ((OTHER,), ("TrainingRequested", "CheckpointRequested")),
        (("train_000001",), ("MetricsLogged", "EvaluationLogged")),
    ],
)
def test_a_page_reads_no_more_of_the_log_than_it_shows(
    log: Path, streams: tuple[str, ...], types: tuple[str, ...]
) -> None:
    assert _plans(log, streams, types, limit=10)
    for plan in _plans(log, streams, types, limit=10):
        assert plan.startswith("SEARCH records USING"), plan
        assert "=?" in plan, plan  # not the whole of what comes after a position


def _plans(log: Path, streams: tuple[str, ...], types: tuple[str, ...], *, limit: int) -> list[str]:
    """What SQLite says of each statement that such a page is read by."""
    statements: list[str] = []
    with closing(sqlite3.connect(log)) as connection:
        connection.set_trace_callback(statements.append)
        list(select_rows(connection, after=5, until=None, streams=streams, types=types, limit=limit))
        list(rows_backwards(connection, OTHER, types, 40))
        last_row(connection, OTHER, "MetricsLogged", 40)
        last_row(connection, OTHER, "CheckpointRequested", 40)
        connection.set_trace_callback(None)
        return [row[3] for one in statements for row in connection.execute(f"EXPLAIN QUERY PLAN {one}")]
