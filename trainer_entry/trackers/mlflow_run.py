"""A run of MLflow: at the server that MLFLOW_TRACKING_URI names, and else in files of the job's own."""
# mypy: allow-untyped-calls

import importlib.util
import json
import os
import time
from pathlib import Path

# Read as it is imported.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from trainer_entry.trackers.kept_id import kept_id
from trainer_entry.trackers.lines import OpenRun, Outcome

_EXPERIMENT = "modelforge"
_STATUS: dict[Outcome, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_MOST_PARAMS = 100
"""In one request to a server."""
_LONGEST_PARAM = 6000


class MlflowRun:
    """A run; the attempts of a job go on with one."""

    def __init__(self, opening: OpenRun, folder: Path) -> None:
        self._client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or _own_store(folder))
        self._run_id, goes_on = kept_id(folder, lambda: self._create(opening))
        if goes_on:
            self._client.update_run(self._run_id, status="RUNNING")
            return
        # A parameter cannot be changed: a later attempt has the same ones.
        params = [Param(name, _text(value)[:_LONGEST_PARAM]) for name, value in opening.config.items()]
        for first in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._run_id, params=params[first : first + _MOST_PARAMS])

    def log(self, step: int, figures: dict[str, float]) -> None:
        """All figures of a step, in one request."""
        now = time.time_ns() // 1_000_000
        self._client.log_batch(self._run_id, [Metric(name, figure, now, step) for name, figure in figures.items()])

    def close(self, outcome: Outcome) -> None:
        """Say how it ended; everything else was written at once."""
        self._client.set_terminated(self._run_id, _STATUS[outcome])

    def _create(self, opening: OpenRun) -> str:
        name = opening.parameters.tracker_project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
        experiment = self._client.get_experiment_by_name(name)
        where = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        tags = {"job_id": opening.job_id, "task": opening.task, "strategy": opening.strategy}
        tags |= {"provider": opening.provider, "model_name": opening.model_name}
        tags |= dict.fromkeys(opening.parameters.tracker_tags or (), "true")
        return str(self._client.create_run(where, tags=tags, run_name=opening.name).info.run_id)


def _own_store(folder: Path) -> str:
    """Where the runs of a job are that go to no server; `mlflow-skinny` alone has no database."""
    if importlib.util.find_spec("sqlalchemy") is not None:
        return f"sqlite:///{folder / 'mlflow.db'}"
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    return (folder / "mlruns").as_uri()


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
