"""An attempt seen from outside: its shim's report, its processes, and how far its job is."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

from running_server import RunningServer


def model_in(folder: Path) -> Path:
    """A folder that looks like a model; scripted trainers do not load it."""
    model = folder / "base"
    model.mkdir()
    (model / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (model / "model.safetensors").write_bytes(b"")
    return model


def training(model: Path, behaviour: str, **fields: object) -> dict[str, object]:
    """The body of a request for a job whose trainer behaves as named."""
    return {
        "task": "text-generation",
        "model_name": str(model),
        "dataset": "data.jsonl",
        "output_name": behaviour,
        **fields,
    }


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


def order(data_dir: Path, job_id: str, what: str, attempt: int = 1) -> None:
    """Tell a trainer that obeys what to do next."""
    folder = data_dir / "jobs" / job_id / f"attempt-{attempt}"
    (folder / "order.partial").write_text(what)
    (folder / "order.partial").rename(folder / "order")


def kill_trainers(data_dir: Path) -> None:
    """End every process of every attempt under a data directory."""
    for spec in (data_dir / "jobs").glob("*/attempt-*/spec.json"):
        while pids := processes_of(json.loads(spec.read_bytes())["token"]):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
