"""The wire is written a whole line at a time, whatever happens to the disk."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest
from support.trainer_attempts import child_environment

from trainer_entry.runtime.stdout import LineWriter, Wire
from trainer_entry.wire import MAX_LINE_BYTES, AnyTrainerMessage, PhaseStarted, Token

if TYPE_CHECKING:
    from pathlib import Path


def opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def entered(seq: int) -> PhaseStarted:
    return PhaseStarted(attempt=1, seq=seq, phase="saving")


def test_lines_of_many_threads_are_whole_and_numbered_without_a_gap(tmp_path: Path) -> None:
    # given
    descriptor = opened(tmp_path / "spool")
    wire = Wire(LineWriter(descriptor), speaks=True)
    threads = [threading.Thread(target=lambda: [wire.send(entered) for _ in range(200)]) for _ in range(4)]
    # when
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(descriptor)
    # then
    lines = (tmp_path / "spool").read_bytes().splitlines()
    assert [msgspec.json.decode(line, type=AnyTrainerMessage).seq for line in lines] == list(range(1, 801))


def test_a_line_waits_for_room_on_the_disk(tmp_path: Path) -> None:
    # given a device that is always full
    descriptor = os.open("/dev/full", os.O_WRONLY)
    writing = threading.Thread(target=LineWriter(descriptor).write, args=(entered(1),))
    writing.start()
    writing.join(timeout=0.3)
    assert writing.is_alive()
    # when there is room
    spool = opened(tmp_path / "spool")
    os.dup2(spool, descriptor)
    # then
    writing.join(timeout=10)
    assert msgspec.json.decode((tmp_path / "spool").read_bytes(), type=AnyTrainerMessage) == entered(1)
    os.close(spool)
    os.close(descriptor)


def test_only_rank_0_is_heard(tmp_path: Path) -> None:
    descriptor = opened(tmp_path / "spool")
    Wire(LineWriter(descriptor), speaks=False).send(entered)
    os.close(descriptor)
    assert (tmp_path / "spool").read_bytes() == b""


def test_a_line_that_no_reader_accepts_is_not_written(tmp_path: Path) -> None:
    descriptor = opened(tmp_path / "spool")
    with pytest.raises(ValueError, match="too long"):
        LineWriter(descriptor).write(Token(id=1, text="x" * MAX_LINE_BYTES))
    os.close(descriptor)
    assert (tmp_path / "spool").read_bytes() == b""


def test_the_built_in_model_is_named_at_once_when_it_is_there(tmp_path: Path) -> None:
    # given
    built = tmp_path / "modelforge" / "smollm2-135m-instruct"
    built.mkdir(parents=True)
    # when
    done = subprocess.run(
        [sys.executable, "-m", "trainer_entry.providers.builtin_model"],
        env=child_environment() | {"XDG_CACHE_HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hub")},
        capture_output=True,
        text=True,
        check=True,
    )
    # then
    assert (done.stdout, done.stderr) == (f"{built}\n", "")
