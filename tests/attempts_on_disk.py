"""An attempt seen from outside: its shim's report, its processes, and how far its job is."""

import json
import time
from pathlib import Path

from running_server import RunningServer


def shim_of(data_dir: Path, job_id: str, attempt: int = 1) -> dict[str, object]:
    report: dict[str, object] = json.loads(
        (data_dir / "jobs" / job_id / f"attempt-{attempt}" / "shim.json").read_text()
    )
    return report


def processes_of(token: object) -> list[int]:
    mark = f"MODELFORGE_TOKEN={token}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    return found


def steps_of(server: RunningServer, job_id: str) -> list[int]:
    return [metric["step"] for metric in server.get(f"/api/jobs/{job_id}/metrics?limit=100000").json()["metrics"]]


def until_step(server: RunningServer, job_id: str, step: int) -> None:
    while (server.get(f"/api/jobs/{job_id}").json()["current_step"] or 0) < step:
        time.sleep(0.02)
