"""A log that was archived is the log that it was: read whole or in parts, killed at any line, damaged, and put back."""

import asyncio
import itertools
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.running_log import environment_of_tests, records_in, rows_of, running_log, standing_of, write
from support.scenario import (
    JOB,
    launching,
    logged,
    records_of,
    register_dataset,
    requested,
    start,
    step,
    uploaded,
)

from modelforge.archive import archive
from modelforge.audit import state_at, verify, verify_segment
from modelforge.backup.taking import take_backup
from modelforge.doctor.examination import directory_findings
from modelforge.domain import job
from modelforge.domain.messages import Record
from modelforge.errors import BadInput, DirectoryInUse, LogUnusable, NotFound, SegmentAway, SegmentDamaged
from modelforge.event_log import packing, segment
from modelforge.event_log.log_schema import log_schema
from modelforge.event_log.packing import packed, unpacked
from modelforge.event_log.sqlite import LogReader
from modelforge.layout import Layout

_BATCH = logged(*(step(seq) for seq in range(2, 60)))
_END = job.TrainingFailed(job_id=JOB, kind="OutOfMemory", message="8 GiB asked for")
_OTHERS = [message for number in range(6) for message in (register_dataset(filename=f"{number}.jsonl"), uploaded())]
PAST = records_of(start(), requested(), launching(), _BATCH, *_OTHERS, logged(step(60)), _END, second_from=5)
END = len(PAST)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A data directory with a log, of which the first records have digests of the first version."""
    found = Layout(tmp_path / "data")
    found.make_folders()
    write(found.log, PAST)
    return found


def segments(layout: Layout) -> list[Path]:
    return sorted(layout.segments.iterdir())


def test_an_archived_log_is_read_as_if_it_never_was(layout: Layout) -> None:
    before = state_at(layout, "9")
    done = archive(layout, "12", most=5)
    assert [path.name for path in segments(layout)] == [*done.segments]
    assert (done.records, done.last, len(done.segments)) == (11, 11, 3)
    assert [row[0] for row in rows_of(layout.log)] == [*range(12, END + 1)]
    assert records_in(layout.log) == PAST
    assert state_at(layout, "9") == before
    found = verify(layout)
    assert (found.records, found.archived, found.digest) == (END, 11, PAST[-1].digest)
    assert (found.faults, found.away) == ((), ())


def test_after_it_was_archived_a_log_goes_on(layout: Layout) -> None:
    later = records_of(*(record.message for record in PAST), uploaded(), uploaded(), second_from=5)
    archive(layout, str(END + 1))
    assert rows_of(layout.log) == []
    with closing(LogReader(layout.log)) as reader:
        assert reader.head() == (END, PAST[-1].digest)
    assert archive(layout, "3").segments == ()
    write(layout.log, later[END:])
    assert records_in(layout.log) == later
    archive(layout, str(END + 2))
    assert records_in(layout.log) == later
    assert verify(layout).faults == ()


@pytest.mark.parametrize("moment", ["0", "1"])
def test_before_the_first_record_there_is_nothing_to_archive(layout: Layout, moment: str) -> None:
    assert archive(layout, moment).segments == ()
    assert not layout.segments.exists()


def test_of_an_empty_log_nothing_is_archived(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with pytest.raises(LogUnusable, match="no event log"):
        archive(layout, "1")
    write(layout.log, [])
    assert archive(layout, "1").segments == archive(layout, "2030-01-01").segments == ()


def test_a_position_behind_the_end_is_refused_and_a_time_is_not(layout: Layout) -> None:
    with pytest.raises(BadInput, match=rf"the last one is {END}; {END + 1} archives all"):
        archive(layout, str(END + 2))
    with pytest.raises(BadInput, match="neither a position nor a time"):
        archive(layout, "yesterday")
    assert archive(layout, "2020-01-01").segments == ()
    assert archive(layout, "2200-01-01").last == END


async def test_a_log_that_is_in_use_is_not_archived(layout: Layout) -> None:
    from modelforge.data_directory import claimed

    with claimed(layout), pytest.raises(DirectoryInUse):
        archive(layout, "5")


def test_a_job_that_is_not_over_stays_in_the_log_with_what_came_after_its_start(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    past = records_of(register_dataset(), uploaded(), start(), requested(), launching(), _BATCH, _END)
    write(layout.log, past[:-1])
    done = archive(layout, "2200-01-01")
    assert (done.last, done.unfinished) == (2, JOB)
    done = archive(layout, "5")
    assert (done.segments, done.last, done.unfinished) == ((), 2, JOB)
    assert archive(layout, "2").unfinished is None
    write(layout.log, past[-1:])
    done = archive(layout, "2200-01-01")
    assert (done.last, done.unfinished) == (len(past), None)
    assert records_in(layout.log) == past


def test_a_time_is_found_in_segments(layout: Layout) -> None:
    at = PAST[0].at
    archive(layout, "8", most=3)
    with closing(LogReader(layout.log)) as reader:
        assert (reader.position_at(at - 1), reader.position_at(at)) == (0, END)
    archive(layout, str(END + 1))
    with closing(LogReader(layout.log)) as reader:
        assert (reader.position_at(at - 1), reader.position_at(at)) == (0, END)


def test_the_log_of_an_older_release_is_archived_and_verified(tmp_path: Path, layout: Layout) -> None:
    import sqlite3

    old = Layout(tmp_path / "old")
    old.make_folders()
    past = records_of(*(record.message for record in PAST), second_from=END + 1)
    with closing(sqlite3.connect(old.log)) as made:
        made.executescript(f"{log_schema(1)} PRAGMA user_version = 1; PRAGMA journal_mode = WAL")
        for record in past:
            row = (record.position, record.stream, record.version, record.kind, record.type, record.at)
            values = (*row, record.cause, record.actor, bytes(record.data).decode(), record.digest)
            made.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        made.commit()
    assert (verify(old).faults, records_in(old.log)) == ((), past)
    archive(old, "9", most=4)
    assert (verify(old).faults, records_in(old.log)) == ((), past)
    assert [verify_segment(path).faults for path in segments(old)] == [(), ()]


# ---- anything in any order ----


def filtered(past: list[Record], read: dict[str, Any]) -> list[Record]:
    until, limit = read["until"], read["limit"]
    found = [
        record
        for record in past
        if record.position > read["after"]
        and (until is None or record.position <= until)
        and (not read["streams"] or record.stream in read["streams"])
        and (not read["types"] or record.type in read["types"])
    ]
    return found if limit < 0 else found[:limit]


POSITIONS = st.integers(0, END + 1)
STREAMS, TYPES = ([*sorted({str(getattr(record, name)) for record in PAST}), "none"] for name in ("stream", "type"))
READS = st.fixed_dictionaries(
    {
        "after": POSITIONS,
        "until": st.none() | POSITIONS,
        "streams": st.sets(st.sampled_from(sorted({record.stream for record in PAST} | {"none"})), max_size=3).map(
            tuple
        ),
        "types": st.sets(st.sampled_from(TYPES), max_size=3).map(tuple),
        "limit": st.sampled_from([-1, 0, 1, 3, 100]),
    }
)
STEPS = st.lists(
    st.tuples(st.just("append"), st.integers(1, END))
    | st.tuples(st.just("archive"), st.tuples(POSITIONS, st.integers(1, 7)))
    | st.tuples(st.just("read"), READS),
    min_size=3,
    max_size=12,
)


@given(STEPS)
@settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
def test_whatever_is_appended_archived_and_read_in_turn_a_log_is_as_one_that_never_was_archived(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    layout = Layout(tmp_path_factory.mktemp("data"))
    there: list[Record] = []
    write(layout.log, [])
    for what, value in steps:
        if what == "append":
            write(layout.log, PAST[len(there) : len(there) + value])
            there = PAST[: len(there) + value]
        elif what == "archive":
            archive(layout, str(min(value[0], len(there) + 1)), most=value[1])
        else:
            with closing(LogReader(layout.log)) as reader:
                assert list(reader.records(**value)) == filtered(there, value)
                for stream, tag in itertools.product(value["streams"], value["types"]):
                    wanted = {"after": 0, "until": value["after"], "streams": (stream,), "types": (tag,), "limit": -1}
                    last = reader.last_record(stream, tag, until=value["after"])
                    backwards = reader.records_backwards(stream, (tag,), until=value["after"])
                    assert [*backwards] == filtered(there, wanted)[::-1]
                    assert [last][last is None :] == filtered(there, wanted)[-1:]
    assert records_in(layout.log) == there
    with closing(LogReader(layout.log)) as reader:
        assert reader.head() == ((len(there), there[-1].digest) if there else (0, "0" * 64))
    assert (verify(layout).faults, verify(layout).records) == ((), len(there))


# ---- killed ----

PROGRAM = """
import os, shutil, signal, sys
from itertools import count
from pathlib import Path
from support.running_log import records_in
from modelforge import archive as room
from modelforge.audit import verify
from modelforge.layout import Layout

base, step = Path(sys.argv[1]), int(sys.argv[2])
past = records_in(Layout(base).log)
watched = {room.__file__, room.write_segment.__code__.co_filename, room.name_segment.__code__.co_filename}


def archive_until(layout, nth):
    lines = iter(range(nth))

    def trace(frame, event, _):
        if frame.f_code.co_filename not in watched:
            return None
        if event == "line" and next(lines, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    room.archive(layout, "9", most=4)


killed = 0
for nth in count(1, step):
    here = Layout(base.with_name("killed"))
    shutil.rmtree(here.root, ignore_errors=True)
    shutil.copytree(base, here.root)
    if not (child := os.fork()):
        archive_until(here, nth)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert records_in(here.log) == past, nth
    assert verify(here).faults == (), nth
    if os.WIFEXITED(status):
        assert status == 0, nth
        break
    killed += 1
    if killed % 7 == 0:
        done = room.archive(here, "9", most=4)
        assert done.last == 8 and records_in(here.log) == past and verify(here).faults == (), nth
        assert len([*here.segments.iterdir()]) == 2, nth
print(killed)
"""


def test_killed_at_any_line_an_archiving_loses_nothing_and_doubles_nothing(layout: Layout) -> None:
    program = [sys.executable, "-c", PROGRAM, layout.root, "9"]
    done = subprocess.run(program, env=environment_of_tests(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 25


# ---- damaged, and elsewhere ----


def test_a_damaged_segment_is_named_with_its_position_whatever_was_changed_in_it(layout: Layout) -> None:
    archive(layout, "9", most=5)
    first, second = segments(layout)
    whole = second.read_bytes()
    for place in range(0, len(whole), 17):
        second.write_bytes(whole[:place] + bytes([whole[place] ^ 0x20]) + whole[place + 1 :])
        faults = verify(layout).faults
        assert faults, place
        assert all(second.name in fault.what and fault.position in {None, 6, 7, 8} for fault in faults), place
        assert verify_segment(second).faults, place
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        second.write_bytes(whole[:length])
        (fault,) = verify(layout).faults
        assert fault.position == 6
        with pytest.raises(SegmentDamaged, match=second.name):
            records_in(layout.log)
    second.write_bytes(first.read_bytes())
    assert "another segment" in verify(layout).faults[0].what
    second.write_bytes(whole)
    assert verify(layout).faults == ()
    assert records_in(layout.log) == PAST


def test_what_is_read_of_a_segment_is_what_was_written_or_is_refused(layout: Layout) -> None:
    """A record that was put there, packed anew and sealed with a hash of its own, does not fit the chain."""
    from modelforge.event_log import segment_writing
    from modelforge.event_log.chain import Chain

    class Credulous(Chain):
        def follows(self, row: Any) -> bool:
            super().follows(row)
            return True

    archive(layout, "9", most=8)
    (path,) = segments(layout)
    with closing(LogReader(layout.log)) as reader:
        rows = [_row(record) for record in reader.records(until=8)]
    rows[2] = (*rows[2][:7], "somebody", *rows[2][8:])
    segment_writing.write_segment(path, rows, Credulous())
    with pytest.raises(SegmentDamaged, match="not what was written"):
        records_in(layout.log)
    assert verify_segment(path).faults
    assert verify(layout).faults


def test_nobody_can_say_that_the_second_version_of_digests_began_earlier(layout: Layout) -> None:
    archive(layout, "9", most=8)
    (path,) = segments(layout)
    whole = path.read_bytes()
    assert whole.count(b'"second_from":5') == 1
    for begins in (b"1", b"4", b"6", b"9"):
        path.write_bytes(whole.replace(b'"second_from":5', b'"second_from":' + begins))
        assert verify_segment(path).faults
        with pytest.raises(SegmentDamaged):
            records_in(layout.log)


def test_a_segment_that_is_elsewhere_is_named_and_nothing_else_is_missed(layout: Layout) -> None:
    archive(layout, "9", most=4)
    second = segments(layout)[1]
    elsewhere = second.rename(layout.root / "on-a-tape")
    found = verify(layout)
    assert (found.faults, [away.file for away in found.away]) == ((), [second.name])
    assert (found.records, found.digest) == (END, PAST[-1].digest)
    with closing(LogReader(layout.log)) as reader:
        assert list(reader.records(until=4)) == PAST[:4]
        assert list(reader.records(after=8)) == PAST[8:]
        assert list(reader.records(streams=("dataset:4.jsonl",))) == [r for r in PAST if r.stream == "dataset:4.jsonl"]
        assert list(reader.records(types=("MetricsLogged",))) == [r for r in PAST if r.type == "MetricsLogged"]
        with pytest.raises(SegmentAway, match=second.name) as refused:
            list(reader.records(after=2))
        assert (refused.value.file, refused.value.last) == (second.name, 8)
    assert verify_segment(elsewhere).faults == ()
    with pytest.raises(NotFound, match=second.name):
        verify_segment(second)
    elsewhere.rename(second)
    assert records_in(layout.log) == PAST
    assert verify(layout).away == ()


def test_without_any_segment_a_log_is_rebuilt_from_the_snapshot_that_archiving_left(layout: Layout) -> None:
    before = standing_of(layout.log)
    archive(layout, str(END + 1), most=4)
    layout.segments.rename(layout.root / "on-a-tape")
    assert standing_of(layout.log, from_snapshot=True) == before
    assert not [found for found in directory_findings(layout) if found.level == "problem" and found.subject == "log"]
    layout.snapshot.unlink()
    (told,) = [found for found in directory_findings(layout) if found.subject == "contents"]
    assert "000000000001-000000000004.segment" in told.found
    with pytest.raises(SegmentAway):
        standing_of(layout.log)


# ---- packed ----


def test_many_steps_are_packed_and_come_back_to_the_byte(layout: Layout) -> None:
    data = bytes(PAST[3].data)
    small = packed(data)
    assert small is not None
    assert len(small) * 5 < len(data)
    assert packed(bytes(PAST[-1].data)) is None
    assert bytes(records_in(layout.log)[3].data) == data


def test_what_would_take_all_memory_is_not_unpacked(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    small = packed(bytes(PAST[3].data))
    assert small is not None
    with monkeypatch.context() as patched:
        patched.setattr(packing, "_LARGEST", len(bytes(PAST[3].data)) - 1)
        assert packed(bytes(PAST[3].data)) is None
        with pytest.raises(ValueError, match="cannot be unpacked"):
            unpacked(small)
    archive(layout, "9")
    monkeypatch.setattr(segment, "_LARGEST_BLOCK", 100)
    with pytest.raises(SegmentDamaged, match="not what was written"):
        records_in(layout.log)


def test_what_a_server_that_was_killed_had_half_written_of_a_snapshot_is_undone(layout: Layout) -> None:
    archive(layout, "2")
    before = standing_of(layout.log, from_snapshot=True)
    halfway = layout.root / "halfway"
    with closing(sqlite3.connect(layout.snapshot, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("UPDATE parts SET data = zeroblob(100000)")
        for suffix in ("", "-journal"):
            shutil.copy(f"{layout.snapshot}{suffix}", f"{halfway}{suffix}")
    for suffix in ("", "-journal"):
        Path(f"{halfway}{suffix}").replace(f"{layout.snapshot}{suffix}")
    archive(layout, "9")
    layout.segments.rename(layout.root / "on-a-tape")
    assert standing_of(layout.log, from_snapshot=True) == before


def test_a_backup_without_the_segments_has_a_snapshot_that_is_no_newer_than_its_log(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(layout, "9")
    layout.segments.rename(layout.root / "on-a-tape")

    async def go_on() -> None:
        async with running_log(layout.log) as running:
            await running.submit(register_dataset("00" * 32, filename="later.jsonl"))
            await running.save()

    def copy_and_go_on(reader: LogReader, path: Path) -> None:
        monkeypatch.undo()  # it goes on once
        reader.copy_to(path)
        asyncio.run(go_on())

    monkeypatch.setattr(LogReader, "copy_to", copy_and_go_on)
    taken = take_backup(layout, layout.root.parent / "backup")
    assert taken.manifest.position > END
    assert "snapshot.sqlite" in {file.name for file in taken.manifest.files}


@pytest.mark.parametrize(
    "change",
    ["packed = NULL", "packed = x'00'", "packed = CAST(packed || x'00' AS BLOB)", "data = ' '", "packed = x'78'"],
)
def test_a_packed_record_that_was_changed_is_found(layout: Layout, change: str) -> None:
    from support.running_log import sqlite

    sqlite(layout.log, f"UPDATE records SET {change} WHERE position = 4")  # noqa: S608 - constants
    assert [fault.position for fault in verify(layout).faults] == [4]


def _row(record: Record) -> Any:
    columns = (record.position, record.stream, record.version, record.kind, record.type, record.at)
    return (*columns, record.cause, record.actor, bytes(record.data).decode(), record.digest)
