"""An attempt seen from outside: its shim's report, its processes, and how far its job is."""

import contextlib
import json
import math
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from support.running_server import RunningServer


def model_in(folder: Path) -> Path:
    """A folder that is read as a model of a few weights; scripted trainers do not load it."""
    config = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 16}
    return write_model(folder / "base", {"architectures": ["LlamaForCausalLM"], **config})


def write_model(model: Path, config: object) -> Path:
    """The same with another config."""
    model.mkdir()
    (model / "config.json").write_text(json.dumps(config))
    write_weights(model / "model.safetensors", {"model.layers.0.mlp.up_proj.weight": (16, 8)})
    words = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    (model / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": words}))
    return model


def write_weights(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A safetensors file of zeros; they take no room on the disk, however many they are."""
    header: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (begin, end)}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


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
