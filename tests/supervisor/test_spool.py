"""Whatever bytes stand in a spool, and in whatever pieces they come: every line is taken in exactly once."""

import asyncio
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelforge.domain.job import QuarantinedLine
from modelforge.supervisor import patient_reads
from modelforge.supervisor.spool import Spool
from trainer_entry import wire


def message(seq: int) -> bytes:
    return msgspec.json.encode(wire.PhaseStarted(attempt=1, seq=seq, phase="training"))


lines = st.one_of(st.integers(1, 1000).map(message), st.binary(max_size=40).map(lambda data: data.replace(b"\n", b" ")))
Read = tuple[list[wire.AnyTrainerMessage], list[QuarantinedLine], int]


def read_all(spool: Spool, *, ended: bool) -> Read:
    messages: list[wire.AnyTrainerMessage] = []
    quarantined: list[QuarantinedLine] = []
    offset = 0
    while (batch := spool.read(ended=ended)) is not None:
        messages.extend(batch.messages)
        quarantined.extend(batch.quarantined)
        assert batch.offset > offset
        offset = batch.offset
    return messages, quarantined, offset


@given(st.lists(lines), st.binary(max_size=20).map(lambda data: data.replace(b"\n", b" ")))
def test_every_line_is_a_message_or_quarantined_and_the_whole_file_is_read(written: list[bytes], rest: bytes) -> None:
    content = b"".join(line + b"\n" for line in written) + rest
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool"
        path.write_bytes(content)
        messages, quarantined, offset = read_all(Spool(path, 0), ended=True)
    assert len(messages) + len(quarantined) == len(written) + bool(rest)
    assert offset == len(content)
    for line in quarantined:
        assert content[line.offset : line.offset + line.length] in {*written, rest}


@given(st.lists(lines, max_size=8), st.lists(st.integers(1, 30), min_size=1))
def test_the_pieces_in_which_it_comes_make_no_difference(written: list[bytes], pieces: list[int]) -> None:
    content = b"".join(line + b"\n" for line in written)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool"
        path.write_bytes(content)
        whole = read_all(Spool(path, 0), ended=True)
        path.write_bytes(b"")
        spool = Spool(path, 0)
        messages: list[wire.AnyTrainerMessage] = []
        quarantined: list[QuarantinedLine] = []
        at = 0
        with path.open("ab", buffering=0) as file:
            while at < len(content):
                size = pieces[at % len(pieces)]
                file.write(content[at : at + size])
                at += size
                while (batch := spool.read()) is not None:
                    messages.extend(batch.messages)
                    quarantined.extend(batch.quarantined)
    assert (messages, quarantined) == whole[:2]


@given(st.lists(lines, min_size=1), st.data())
def test_a_reader_that_begins_at_a_committed_offset_reads_the_rest(written: list[bytes], data: st.DataObject) -> None:
    content = b"".join(line + b"\n" for line in written)
    index = data.draw(st.integers(0, len(written)))
    offset = len(b"".join(line + b"\n" for line in written[:index]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool"
        path.write_bytes(content)
        messages, quarantined, _ = read_all(Spool(path, 0), ended=True)
        rest = read_all(Spool(path, offset), ended=True)
    assert len(rest[0]) + len(rest[1]) == len(written) - index
    assert rest[0] == messages[len(messages) - len(rest[0]) :]
    assert rest[1] == quarantined[len(quarantined) - len(rest[1]) :]


def test_a_spool_that_lost_its_end_in_a_power_loss_rewinds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_bytes(message(1) + b"\n")
    assert read_all(Spool(path, 5000), ended=True) == ([], [], 0)
    assert Spool(tmp_path / "missing", 0).read(ended=True) is None


def test_a_long_line_costs_no_memory_and_is_hashed_whole(tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "spool"
    long = b"x" * (wire.MAX_LINE_BYTES * 3)
    path.write_bytes(long + b"\n" + message(1) + b"\n" + b"\0" * 100)
    messages, quarantined, _ = read_all(Spool(path, 0), ended=True)
    assert [one.seq for one in messages] == [1]
    assert [(line.length, line.sha256) for line in quarantined] == [
        (len(long), hashlib.sha256(long).hexdigest()),
        (100, hashlib.sha256(b"\0" * 100).hexdigest()),
    ]


async def test_a_disk_that_fails_is_read_again_and_nothing_of_the_end_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient_reads, "RETRY_SECONDS", 0.01)
    path = tmp_path / "spool"
    path.mkdir()  # reading it fails: EISDIR
    spool = Spool(path, 0)
    reading = asyncio.create_task(spool.next(ended=True))
    done, _ = await asyncio.wait({reading}, timeout=0.2)
    assert not done
    path.rmdir()
    path.write_bytes(message(1) + b"\n")
    batch = await reading
    assert batch is not None
    assert len(batch.messages) == 1
