"""An upgrade in place: what an earlier release left is served, verified and resumed, and its trainer goes on.

The earlier release is a commit of this repository, unpacked into a folder of its own; then the files there are
replaced, as `pip install --upgrade` replaces them, while a trainer of the earlier release runs.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.attempt_files import processes_of, shim_of, steps_of, until_step
from support.kept_values import kept
from support.running_server import RECORDS, TESTS, RunningServer, environment
from support.tiny_model import build_tiny_model

import modelforge
import trainer_entry

pytestmark = [pytest.mark.training, pytest.mark.timeout(400)]

EARLIER = "bfd1aa5d49ae7993db2e079dcf45e683958ff915"
PREFERENCES = [{"prompt": f"Is it {n}?", "chosen": "no", "rejected": "yes"} for n in range(64)]
READ_MODELS = ("/api/jobs", "/api/models", "/api/datasets", "/api/training_status", "/api/events?limit=10000")


def git(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [shutil.which("git") or "git", *arguments], cwd=TESTS.parent, check=False, capture_output=True
    )


def lines(records: list[dict[str, str]]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


class Installation:
    """A release in a folder, the server that runs from there, and its data."""

    def __init__(self, folder: Path) -> None:
        self.release, self.data_dir = folder / "release", folder / "data"
        self.release.mkdir()
        packed = git("archive", EARLIER, "modelforge", "trainer_entry").stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as files:
            files.extractall(self.release, filter="data")
        search = os.pathsep.join([str(self.release), str(TESTS)])
        # Not the current directory: it may have the packages too.
        self.variables = {"PYTHONPATH": search, "PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "default"}
        self.environment = environment(**self.variables)
        del self.environment["MODELFORGE_COLD"]  # the earlier release does not know it
        self.server = RunningServer(
            [
                *(sys.executable, "-m", "modelforge", "serve", "--port", "0", "--data-dir", str(self.data_dir)),
                *("--model-root", str(folder), "--dataset-root", str(folder)),
            ],
            self.environment,
        )

    def upgrade(self) -> None:
        self.environment["MODELFORGE_COLD"] = "true"
        for package in (modelforge, trainer_entry):
            name = package.__name__
            shutil.rmtree(self.release / name)
            shutil.copytree(Path(package.__file__ or "").parent, self.release / name)

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "modelforge", *arguments, "--data-dir", str(self.data_dir)],
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
        )

    def start(self, model: Path, dataset: str, **fields: object) -> str:
        body = {"task": "text-generation", "model_name": str(model), "dataset": dataset, "max_steps": 120, **fields}
        answer = self.server.post("/api/start_training", body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job_id"])

    def answers(self) -> dict[str, Any]:
        return {path: self.server.get(path).json() for path in READ_MODELS}


def until_phase(server: RunningServer, job_id: str, phase: str) -> None:
    while server.get(f"/api/jobs/{job_id}").json()["phase"] != phase:
        time.sleep(0.02)


@pytest.fixture
def earlier(tmp_path: Path) -> Iterator[Installation]:
    if git("cat-file", "-e", EARLIER).returncode != 0:
        pytest.skip("the history of the repository is not here")
    installation = Installation(tmp_path)
    yield installation
    if installation.server.get("/api/training_status").json()["status"] in {"starting", "training"}:
        installation.server.post("/api/stop_training")
    installation.server.end()


def test_a_data_directory_is_served_verified_and_resumed_and_a_trainer_ends_well(
    earlier: Installation, tmp_path: Path
) -> None:
    server, model = earlier.server, build_tiny_model(tmp_path / "model")
    server.upload(RECORDS).raise_for_status()
    server.upload(lines(PREFERENCES), "preferences.jsonl").raise_for_status()
    stopped = earlier.start(model, "data.jsonl")
    until_step(server, stopped, 5)
    assert server.post("/api/stop_training").json()["status"] == "stopped"

    # Quantized: the one module that a trainer of the earlier release imports after its training has begun.
    running = earlier.start(
        model,
        "preferences.jsonl",
        strategy="rlhf",
        use_4bit=True,
        max_steps=12,
        per_device_train_batch_size=8,
        max_completion_length=4,
    )
    until_phase(server, running, "training_reward_model")
    token = shim_of(earlier.data_dir, running)["token"]
    processes = processes_of(token)
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    before = earlier.answers()
    replayed = earlier.command("replay", "--at", "9").stdout

    server.end(signal.SIGKILL)
    earlier.upgrade()
    server.start()
    after = earlier.answers()
    assert (
        after["/api/events?limit=10000"]["events"][: len(before["/api/events?limit=10000"]["events"])]
        == (before["/api/events?limit=10000"]["events"])
    )
    assert after["/api/models"] == before["/api/models"]
    assert kept(before["/api/datasets"], after["/api/datasets"])
    assert kept(before["/api/jobs"]["jobs"][-1], after["/api/jobs"]["jobs"][-1])
    assert kept(json.loads(replayed), json.loads(earlier.command("replay", "--at", "9").stdout))
    assert set(processes_of(token)) == set(processes)

    for pid in processes:
        os.kill(pid, signal.SIGCONT)
    job = server.wait_for(running)
    assert (job["status"], job["attempt"]) == ("completed", 1), job["error"]
    assert steps_of(server, running) == list(range(1, 25))
    assert processes_of(token) == []

    assert server.post(f"/api/jobs/{stopped}/resume").status_code == 202
    resumed = server.wait_for(stopped)
    assert (resumed["status"], resumed["attempt"]) == ("completed", 2), resumed["error"]
    assert steps_of(server, stopped) == list(range(1, 121))
    verified = earlier.command("verify")
    assert verified.returncode == 0, verified.stdout
    assert "0 faults" in verified.stdout
