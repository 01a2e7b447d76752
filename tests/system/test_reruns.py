"""A job is started again as a new one, from its own records, or not at all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.attempt_files import training
from support.running_server import RECORDS, RunningServer, modelforge

Start = Callable[..., str]


def spec_of(data_dir: Path, job_id: str) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads((data_dir / "jobs" / job_id / "attempt-1" / "spec.json").read_bytes())["job"]
    return spec


def rerun(server: RunningServer, job_id: str, *, key: str | None = None, **body: object) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return server.post(f"/api/jobs/{job_id}/rerun", body or None, headers=headers)


def test_a_new_job_repeats_an_old_one_with_the_parameters_that_were_in_effect(
    server: RunningServer, start: Start, data_dir: Path
) -> None:
    first = start(server, "completes", max_restarts=1, max_steps=7)
    server.wait_for(first)
    server.upload(RECORDS + b'{"input": "a", "output": "b"}\n').raise_for_status()  # the name has other bytes now
    answer = rerun(server, first)
    assert answer.status_code == 202
    again = answer.json()["job_id"]
    assert (answer.json()["rerun_of"], again != first) == (first, True)
    assert server.wait_for(again)["status"] == "completed"
    old, new = spec_of(data_dir, first), spec_of(data_dir, again)
    in_effect = {**old["parameters"], "learning_rate": 1e-4}  # which the scripted trainer chose
    assert new["parameters"] == in_effect
    folders = {"job_id", "output_dir", "checkpoint_dir", "parameters", "rerun_of"}
    assert {name: new[name] for name in new if name not in folders} == {
        name: old[name] for name in old if name not in folders
    }
    assert new["output_dir"] == str(data_dir / "models" / again)
    assert server.get(f"/api/jobs/{first}").json()["rerun_of"] is None
    assert [model["job_id"] for model in server.get("/api/models").json()["models"]] == [first, again]


def test_a_rerun_is_asked_for_again_by_its_key(server: RunningServer, start: Start) -> None:
    first = start(server, "completes")
    server.wait_for(first)
    again = rerun(server, first, key="mine").json()["job_id"]
    server.wait_for(again)
    repeated = rerun(server, first, key="mine")
    assert (repeated.status_code, repeated.json()["job_id"]) == (202, again)
    assert len(server.get("/api/jobs").json()["jobs"]) == 2
    assert rerun(server, first, key="mine", queue=True).status_code == 409


def test_a_rerun_waits_for_room_only_if_it_is_told_to(server: RunningServer, start: Start) -> None:
    first = start(server, "waits", max_steps=100_000)
    refused = rerun(server, first)
    assert refused.status_code == 409
    assert "queue" in refused.json()["detail"]
    waiting = rerun(server, first, queue=True).json()
    assert (waiting["status"], waiting["queue_position"]) == ("queued", 1)
    server.post(f"/api/jobs/{waiting['job_id']}/cancel").raise_for_status()


def test_a_job_that_is_not_there_or_a_body_that_is_not_known_is_refused(server: RunningServer, start: Start) -> None:
    assert rerun(server, "train_000099").status_code == 404
    job_id = start(server, "completes")
    server.wait_for(job_id)
    unknown = rerun(server, job_id, max_steps=3)
    assert (unknown.status_code, unknown.json()["field"]) == (400, "max_steps")


def test_a_dataset_that_changed_or_went_is_named(server: RunningServer, tmp_path: Path, model_folder: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(RECORDS)
    body = {**training(model_folder, "completes"), "dataset": str(path)}
    first = server.post("/api/start_training", body).json()["job_id"]
    server.wait_for(first)
    path.write_bytes(RECORDS + b'{"input": "a", "output": "b"}\n')
    changed = rerun(server, first)
    assert changed.status_code == 409
    assert str(path) in changed.json()["detail"]
    path.unlink()
    gone = rerun(server, first)
    assert gone.status_code == 404
    assert str(path) in gone.json()["detail"]
    # the same bytes under another name are as good
    server.upload(RECORDS, filename="other.jsonl").raise_for_status()
    assert server.wait_for(rerun(server, first).json()["job_id"])["status"] == "completed"


def test_an_uploaded_dataset_or_a_model_that_went_is_named(
    server: RunningServer, start: Start, data_dir: Path, model_folder: Path
) -> None:
    first = start(server, "completes")
    server.wait_for(first)
    (content,) = (data_dir / "datasets").iterdir()
    content.rename(data_dir / "kept")
    gone = rerun(server, first)
    assert gone.status_code == 404
    assert "upload it again" in gone.json()["detail"]
    content.write_bytes(RECORDS[:-10])
    assert rerun(server, first).status_code == 409
    (data_dir / "kept").rename(content)
    shutil.rmtree(model_folder)
    no_model = rerun(server, first)
    assert no_model.status_code == 404
    assert str(model_folder) in no_model.json()["detail"]
    assert [job["job_id"] for job in server.get("/api/jobs").json()["jobs"]] == [first]


def test_a_job_is_rerun_on_the_terminal(server: RunningServer, start: Start) -> None:
    first = start(server, "completes")
    server.wait_for(first)
    ended = modelforge("rerun", first, "--watch", url=server.url)
    assert ended.returncode == 0, ended.stderr
    assert f"what {first} did" in ended.stdout
    assert "completed 10/10" in ended.stdout
    running = start(server, "waits", max_steps=100_000)
    assert modelforge("rerun", running, url=server.url).returncode == 1
    queued = modelforge("rerun", running, "--queue", url=server.url)
    assert (queued.returncode, "it is queued" in queued.stdout) == (0, True)
    assert modelforge("stop", "--all", url=server.url).returncode == 0


def test_a_rerun_is_looked_at_as_a_new_training_is(server: RunningServer, start: Start, model_folder: Path) -> None:
    first = start(server, "completes")
    server.wait_for(first)
    weights = model_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    refused = rerun(server, first)
    assert (refused.status_code, "model.safetensors" in refused.json()["detail"]) == (400, True), refused.text
    assert len(server.get("/api/jobs").json()["jobs"]) == 1
