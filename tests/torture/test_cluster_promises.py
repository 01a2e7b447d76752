"""The checker of attempts on a cluster sees what it is to see."""

import os
from pathlib import Path

from support.external_probe import Row

from torture.cluster_promises import TRAINER, Process, Witness, of_causes, of_spools

_SECOND = 1_000_000


def row(position: int, name: str, at: int = 0, **data: object) -> Row:
    return Row(position, "train_1", position, "event", name, at, None, "", "", "", data)


def test_it_sees_an_attempt_that_is_run_with_two_claims(tmp_path: Path) -> None:
    witness = Witness(tmp_path)
    for mark in ("one", "one", "another"):
        witness.see([Process(1, TRAINER, ("train_1", 1), mark)])
    [told] = witness.broken
    assert told.startswith("('train_1', 1) was run with the claims")


def test_it_sees_what_was_written_after_the_end(tmp_path: Path) -> None:
    spool = tmp_path / "train_1" / "attempt-1" / "stdout.jsonl"
    spool.parent.mkdir(parents=True)
    spool.touch()
    rows = [row(1, "AttemptExited", at=7 * _SECOND, attempt=1)]
    os.utime(spool, (6, 6))
    assert not list(of_spools(tmp_path, rows))
    os.utime(spool, (9, 9))
    assert list(of_spools(tmp_path, rows)) == ["train_1: attempt 1 wrote 2.000 s after its end"]


def test_it_sees_an_end_whose_cause_does_not_fit_what_was_killed(tmp_path: Path) -> None:
    witness = Witness(tmp_path)
    rows = [
        row(1, "AttemptLaunching", attempt=1),
        row(2, "AttemptSubmitted", attempt=1, reference={"slurm_id": 7}),
        row(3, "AttemptFailed", attempt=1, kind="Killed", message="by signal 9"),
    ]
    [told] = of_causes(witness, rows)
    assert "what was killed is []" in told
    witness.killed["train_1", 1].add("shim")
    assert not list(of_causes(witness, rows))
    rows[2].data["kind"] = "NodeFailed"
    assert list(of_causes(witness, rows))
    # when another job had the same id, a node may have refused this one
    witness.killed.clear()
    assert list(of_causes(witness, rows))
    rows.append(row(4, "AttemptSubmitted", attempt=2, reference={"slurm_id": 7}))
    assert not list(of_causes(witness, rows))
