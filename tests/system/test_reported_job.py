"""A job that reports to real trackers at once, by a real server: each shows the curves that the API has."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest
from support.running_server import RECORDS, real_server
from support.tiny_model import build_tiny_model

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.training,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # of the trackers' own libraries
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("tensorboard", "mlflow", "trackio")),
        reason="run `make setup-trackers`",
    ),
]
FIGURES = ("loss", "learning_rate", "grad_norm", "epoch", "tokens_per_second", "elapsed_seconds", "memory_mb")
Curves = dict[str, list[tuple[int, float]]]


def test_three_trackers_show_the_curves_of_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = real_server(tmp_path)
    try:
        server.upload(RECORDS).raise_for_status()
        body = {
            "task": "text-generation",
            "model_name": str(build_tiny_model(tmp_path / "base")),
            "dataset": "data.jsonl",
            "max_steps": 8,
            "eval_split": 0.2,
            "eval_steps": 4,
            "report_to": ["tensorboard", "mlflow", "trackio"],
        }
        started = server.post("/api/start_training", body)
        assert started.status_code == 200, started.text
        job_id = str(started.json()["job_id"])
        job = server.wait_for(job_id)
        assert (job["status"], job["error"]) == ("completed", None)
        assert {"name": "mlflow", "state": "ended", "message": None} in job["trackers"]  # type: ignore[operator]
        steps = server.get(f"/api/jobs/{job_id}/metrics").json()["metrics"]
    finally:
        server.end()
    trackers = tmp_path / "data" / "jobs" / job_id / "trackers"
    monkeypatch.setenv("TRACKIO_DIR", str(trackers / "trackio"))
    for name in FIGURES:
        told = [(step["step"], pytest.approx(step[name], rel=1e-6)) for step in steps if step[name] is not None]
        assert len(told) == 8 or name not in ("loss", "learning_rate")
        for shown in (of_tensorboard(trackers), of_mlflow(trackers), of_trackio()):
            assert shown.get(name, []) == told
            assert [step for step, _ in shown["eval_loss"]][-2:] == [4, 8]


def of_tensorboard(trackers: Path) -> Curves:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(trackers / "tensorboard"))
    found.Reload()
    return {tag: [(told.step, told.value) for told in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def of_mlflow(trackers: Path) -> Curves:
    import mlflow

    database = trackers / "mlflow" / "mlflow.db"
    files = (trackers / "mlflow" / "mlruns").as_uri()
    client = mlflow.MlflowClient(f"sqlite:///{database}" if database.exists() else files)
    (run,) = client.search_runs([client.get_experiment_by_name("modelforge").experiment_id])
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {name: [(told.step, told.value) for told in history] for name, history in histories.items()}


def of_trackio() -> Curves:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = trackio.Api().runs("modelforge")
    curves: Curves = {}
    for row in SQLiteStorage.get_logs("modelforge", run.name, run_id=run.id):
        for name in row.keys() - {"step", "timestamp"}:
            curves.setdefault(name, []).append((row["step"], row[name]))
    return curves
