"""The machine's clock is set, by years, while the server runs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.attempt_files import steps_of, until_step
from support.running_server import RunningServer, modelforge

Start = Callable[..., str]
Serve = Callable[..., RunningServer]


def test_a_clock_that_jumps_by_years_changes_no_order_and_no_duration(
    serve: Serve, start: Start, data_dir: Path, tmp_path: Path
) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime (Debian package faketime) is not installed")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    server = serve(
        LD_PRELOAD=str(library),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    job_id = start(server, "waits", max_steps=400)
    for jump in ("-3650d", "+3650d", "-1d"):
        until_step(server, job_id, (server.get(f"/api/jobs/{job_id}").json()["current_step"] or 0) + 30)
        clock.write_text(jump)
    assert not server.get("/api/training_status").json()["stalled"]
    job = server.wait_for(job_id)
    assert (job["status"], job["attempt"]) == ("completed", 1)
    assert steps_of(server, job_id) == list(range(1, 401))
    events = server.get("/api/events?limit=1000").json()["events"]
    assert [event["position"] for event in events] == list(range(1, len(events) + 1))
    times = [event["at"] for event in events]
    decade = 3600 * 24 * 3600 * 1_000_000
    assert min(times) < times[0] - decade  # or this test has tested nothing
    assert max(times) > times[0] + decade
    server.end()
    verified = modelforge("verify", "--data-dir", str(data_dir))
    assert verified.returncode == 0, verified.stdout
    # and a server with another clock goes on
    assert serve().get(f"/api/jobs/{job_id}").json()["status"] == "completed"
