"""The commands as a person types them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.running_server import RECORDS, RunningServer, modelforge

Start = Callable[..., str]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(RECORDS)
    return path


def test_a_training_is_uploaded_started_and_watched(server: RunningServer, dataset: Path, model_folder: Path) -> None:
    model = ("--model", str(model_folder), "--name", "completes", "--set", "num_train_epochs=2")
    ended = modelforge("train", str(dataset), *model, "--watch", url=server.url)
    assert ended.returncode == 0, ended.stderr
    assert "20 examples" in ended.stdout
    assert "completed 10/10" in ended.stdout
    assert "models/train_" in ended.stdout
    assert "completed" in modelforge("jobs", url=server.url).stdout
    assert "completed 10/10" in modelforge("watch", url=server.url).stdout


def test_a_training_that_fails_says_why_and_is_no_success(
    server: RunningServer, dataset: Path, model_folder: Path
) -> None:
    ended = modelforge(
        "train", str(dataset), "--model", str(model_folder), "--name", "raises", "--watch", url=server.url
    )
    assert ended.returncode == 1
    assert "ValueError: the script says so" in ended.stdout


def test_a_refusal_is_said_in_the_server_s_words(server: RunningServer, dataset: Path, model_folder: Path) -> None:
    ended = modelforge("train", str(dataset), "--model", str(model_folder), "--set", "lora_rank=8", url=server.url)
    assert ended.returncode == 1
    assert "lora_rank" in ended.stderr
    assert "lora_r" in ended.stderr
    missing = modelforge("train", "/nowhere.jsonl", "--model", "x", url=server.url)
    assert "/nowhere.jsonl" in missing.stderr


def test_what_is_odd_about_a_dataset_is_said(server: RunningServer, tmp_path: Path, model_folder: Path) -> None:
    twice = tmp_path / "twice.csv"
    twice.write_text("input,output\n" + "a,b\n" * 8)
    ended = modelforge("train", str(twice), "--model", str(model_folder), "--name", "completes", url=server.url)
    assert ended.returncode == 0, ended.stderr
    assert "8 examples" in ended.stdout
    assert "line 3: The record is the same as on line 2." in ended.stdout
    assert "and 2 more" in ended.stdout


def test_a_training_is_stopped(server: RunningServer, start: Start) -> None:
    job_id = start(server, "waits", max_steps=100_000)
    ended = modelforge("stop", url=server.url)
    assert (ended.returncode, job_id in ended.stdout) == (0, True)
    assert modelforge("stop", url=server.url).returncode == 1


def test_a_server_that_is_not_there_is_said() -> None:
    ended = modelforge("jobs", url="http://127.0.0.1:9")
    assert ended.returncode == 1
    assert "modelforge serve" in ended.stderr


def test_all_jobs_are_stopped_and_one_goes_on(server: RunningServer, start: Start) -> None:
    running = start(server, "waits", max_steps=200)
    waiting = start(server, "completes", queue=True)
    ended = modelforge("stop", "--all", url=server.url)
    assert (ended.returncode, running in ended.stdout, waiting in ended.stdout) == (0, True, True)
    assert {job["status"] for job in server.get("/api/jobs").json()["jobs"]} == {"stopped"}
    assert modelforge("stop", "--all", url=server.url).returncode == 0
    resumed = modelforge("resume", running, "--watch", url=server.url)
    assert resumed.returncode == 0, resumed.stdout
    assert "completed 200/200" in resumed.stdout
    watched = modelforge("watch", running, url=server.url)  # it goes on where the first attempt was stopped
    assert (watched.returncode, "completed 200/200" in watched.stdout) == (0, True), watched.stdout
    assert modelforge("resume", running, url=server.url).returncode == 1
