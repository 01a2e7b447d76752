"""A trainer that stands by: what it was before its attempt goes into nothing that the attempt says, or starts as."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest
from support.trainer_attempts import job_of, questions, write_dataset

from modelforge.supervisor.attempt_environment import Share, environment_of
from trainer_entry import wire
from trainer_entry.wire.secret_files import TRACKERS_VARIABLE

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "a-key-of-twenty-letters"  # noqa: S105 - of nobody
SCRIPT = """
import json, logging, os, sys
from trainer_entry.strategies import standby

def imports():
    logging.getLogger("library").addHandler(logging.StreamHandler())
    os.environ["SETTLED_BY_AN_IMPORT"] = "1"

def starts(program, command, environment):
    sys.stderr.write(json.dumps(environment) + "\\n")
    os._exit(0)

standby._import_all = imports
standby._practise = lambda: None
os.execve = starts
standby.stand_by()
logging.getLogger("library").warning("the key is %s", SECRET)
os._exit(0)
"""


def said_after(
    folder: Path, variables: dict[str, str], unset: tuple[str, ...] = (), *, script: str = SCRIPT, waits: bool = True
) -> str:
    """What a trainer says on stderr, once it was given an attempt with such changes. `waits`: until it is ready."""
    (folder / "config.json").write_text("{}")
    job = job_of(
        wire.TrainingParameters(), model_path=str(folder), dataset=write_dataset(folder / "data.jsonl", questions(2))
    )
    (folder / "spec.json").write_bytes(
        msgspec.json.encode(wire.AttemptSpec(job=job, attempt=1, token="", cpu_threads=1))
    )
    ours, theirs = socket.socketpair()
    script = f"SECRET = {SECRET!r}\n{script}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTORCH_")}
    with ours:
        with theirs:
            trainer = subprocess.Popen(
                [sys.executable, "-c", script],
                stdin=theirs.fileno(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env={**environment, "GIVEN": "1"},
            )  # fmt: skip
        assert not waits or ours.recv(64) == b"warm\n"
        order = wire.StandbyOrder(folder=str(folder), grace_seconds=1, set=variables, unset=unset)
        ours.sendall(msgspec.json.encode(order) + b"\n")
        _, stderr = trainer.communicate(timeout=60)
    assert trainer.returncode == 0, stderr
    return stderr


def test_what_a_library_logs_that_was_imported_before_has_no_secret_of_the_attempt(tmp_path: Path) -> None:
    kept = tmp_path / "trackers.json"
    kept.write_text(json.dumps({"wandb": {"WANDB_API_KEY": SECRET}}))
    said = said_after(tmp_path, {TRACKERS_VARIABLE: str(kept)})
    assert "the key is " in said
    assert SECRET not in said


def test_an_order_that_comes_during_the_imports_does_not_wait_for_the_practice(tmp_path: Path) -> None:
    script = """
import threading
from trainer_entry.strategies import standby

began, begin = threading.Event(), standby.begin
def begins(*given):
    began.set()
    return begin(*given)

standby.begin, standby._import_all = begins, lambda: began.wait(30)
standby._practise = lambda: standby.note("it practises")
standby.stand_by()
standby.note("it has begun")
standby.os._exit(0)
"""
    said = said_after(tmp_path, {}, script=script, waits=False)
    assert "it has begun" in said
    assert "it practises" not in said


def test_one_that_is_to_give_freed_memory_back_starts_anew_for_glibc_reads_that_at_its_start_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    share = Share(threads=1, all_cores=True, gpus=None)
    stands = environment_of(share, "", {})
    wanted = environment_of(msgspec.structs.replace(share, recomputes=True), "", {})
    differ = {name: value for name, value in wanted.items() if stands.get(name) != value}
    assert differ.keys() == {"MALLOC_MMAP_THRESHOLD_"}
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", stands["MALLOC_TRIM_THRESHOLD_"])
    said = said_after(tmp_path, differ, unset=tuple(stands.keys() - wanted.keys()))
    environment = json.loads(said.splitlines()[-1])
    assert environment["MALLOC_MMAP_THRESHOLD_"] == wanted["MALLOC_MMAP_THRESHOLD_"]
    assert "MALLOC_TRIM_THRESHOLD_" not in environment


@pytest.mark.parametrize("settled", ["SETTLED_BY_AN_IMPORT", "PYTORCH_ALLOC_CONF"])
def test_one_that_starts_anew_starts_as_any_attempt(tmp_path: Path, settled: str) -> None:
    environment = json.loads(said_after(tmp_path, {"OMP_NUM_THREADS": "3"}, unset=("GIVEN",)).splitlines()[-1])
    assert environment["OMP_NUM_THREADS"] == "3"
    assert "GIVEN" not in environment
    assert settled not in environment
