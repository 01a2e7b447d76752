"""A server that is killed in the middle of a real training."""

import signal
import sys
from pathlib import Path

import pytest
from running_server import RECORDS, RunningServer, environment
from test_supervision import processes_of, shim_of, steps_of, until_step
from tiny_model import build_tiny_model


@pytest.mark.training
@pytest.mark.timeout(300)
def test_the_same_trainer_goes_on_and_every_step_is_in_the_log_once(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model")
    data_dir = tmp_path / "data"
    command = [
        *(sys.executable, "-m", "modelforge", "serve", "--port", "0", "--data-dir", str(data_dir)),
        *("--model-root", str(tmp_path)),
    ]
    server = RunningServer(command, environment(PYTHONWARNINGS="default"))
    try:
        server.upload(RECORDS).raise_for_status()
        body = {"task": "text-generation", "model_name": str(model), "dataset": "data.jsonl", "max_steps": 400}
        job_id = str(server.post("/api/start_training", body).json()["job_id"])
        until_step(server, job_id, 10)
        token = shim_of(data_dir, job_id)["token"]
        before = set(processes_of(token))
        assert len(before) >= 3  # shim, launcher, trainer
        server.end(signal.SIGKILL)
        server.start()
        assert set(processes_of(token)) == before
        job = server.wait_for(job_id)
        assert (job["status"], job["attempt"]) == ("completed", 1), job["error"]
        assert steps_of(server, job_id) == list(range(1, 401))
        assert processes_of(token) == []
    finally:
        server.end()
