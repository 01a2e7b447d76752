"""A log is checked from outside, and any moment of it is there again."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.changed_snapshot import change_snapshot
from support.running_server import RunningServer, modelforge

from modelforge.audit import state_at, verify
from modelforge.layout import Layout

Start = Callable[..., str]
COLUMNS = ("stream", "version", "kind", "type", "at", "cause", "actor", "data", "digest")


@pytest.fixture
def past(server: RunningServer, start: Start, data_dir: Path) -> Path:
    """The data directory of a server that trained, deleted, failed, and ended."""
    job = server.wait_for(start(server, "completes"))
    server.delete(f"/api/models/{job['model_id']}")
    server.wait_for(start(server, "raises"))
    server.wait_for(start(server, "garbage"))
    server.end()
    return data_dir


def test_a_log_that_nobody_touched_is_whole(past: Path) -> None:
    ended = modelforge("verify", "--data-dir", str(past))
    assert ended.returncode == 0, ended.stdout
    assert "0 faults" in ended.stdout
    found = verify(Layout(past))
    assert found.snapshot == found.records


def test_an_audit_leaves_no_file_and_changes_none(past: Path) -> None:
    before = {path.name: path.read_bytes() for path in past.iterdir() if path.is_file()}
    verify(Layout(past))
    state_at(Layout(past), "5")
    assert {path.name: path.read_bytes() for path in past.iterdir() if path.is_file()} == before


def change(data_dir: Path, *statements: str) -> None:
    with closing(sqlite3.connect(data_dir / "events.sqlite")) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_any_changed_byte_of_any_row_is_found_and_named(past: Path) -> None:
    with closing(sqlite3.connect(past / "events.sqlite")) as connection:
        (last,) = connection.execute("SELECT max(position) FROM records").fetchone()
    original = (past / "events.sqlite").read_bytes()
    for position in range(1, last + 1):
        for column in COLUMNS:
            if column in {"version", "at"}:
                new = f"{column} + 1000"
            elif column == "cause":
                new = "CASE WHEN cause IS NULL THEN 1 ELSE NULL END"
            else:
                rest = f"coalesce(substr(CAST({column} AS BLOB), 2), '')"  # nothing is left of what is packed
                new = f"CAST(x'ff' || {rest} AS TEXT)"
            change(past, f"UPDATE records SET {column} = {new} WHERE position = {position}")  # noqa: S608 - constants
            found = verify(Layout(past))
            assert found.faults[0].position == position, (column, found.faults)
            (past / "events.sqlite").write_bytes(original)


def test_a_missing_row_and_a_changed_snapshot_are_found(past: Path) -> None:
    original = (past / "events.sqlite").read_bytes()
    change(past, "DELETE FROM records WHERE position = 5")
    ended = modelforge("verify", "--data-dir", str(past))
    assert (ended.returncode, "position 5 is missing" in ended.stdout) == (1, True)
    (past / "events.sqlite").write_bytes(original)
    change_snapshot(Layout(past))
    (fault,) = verify(Layout(past)).faults
    assert "snapshot" in fault.what


def test_every_earlier_state_is_there_again_beside_a_running_server(server: RunningServer, start: Start) -> None:
    start(server, "waits", max_steps=60)
    seen: dict[int, dict[str, object]] = {}
    while True:
        snapshot = server.get("/api/training_status").json()
        state = server.get("/api/state").json()
        seen[state["position"]] = state
        if snapshot["status"] == "completed":
            break
    final = server.get("/api/state").json()
    assert final["models"][0]["name"] == "waits"
    assert final["status"] == server.get("/api/training_status").json()
    assert final["datasets"] == server.get("/api/datasets").json()["datasets"]
    for position, state in seen.items():
        assert server.get(f"/api/state?at={position}").json() == state
    assert server.get("/api/state?at=0").json()["status"]["status"] == "idle"
    assert server.get("/api/state?at=99999").status_code == 400


def test_a_time_leads_to_the_last_position_before_it(past: Path) -> None:
    last = json.loads(modelforge("replay", "--data-dir", str(past), "--at", "2999-01-01T00:00:00Z").stdout)
    assert last["position"] == verify(Layout(past)).records
    first = json.loads(modelforge("replay", "--data-dir", str(past), "--at", "2001-01-01").stdout)
    assert (first["position"], first["status"]["status"]) == (0, "idle")
    for wrong in ("yesterday", "99999"):
        assert modelforge("replay", "--data-dir", str(past), "--at", wrong).returncode == 1
    assert "no event log" in modelforge("verify", "--data-dir", str(past / "none")).stderr
