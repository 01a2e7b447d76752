"""What lies outside stays as it is, and what the server knows stays with it."""

import json
from collections.abc import Callable
from pathlib import Path

from support.running_server import RunningServer

Start = Callable[..., str]
Serve = Callable[..., RunningServer]
CANARY = "the-canary-that-nobody-may-see"


def test_a_deletion_takes_a_link_away_and_never_what_it_leads_to(
    server: RunningServer, start: Start, data_dir: Path, tmp_path: Path
) -> None:
    job = server.wait_for(start(server, "completes"))
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "folder" / "kept").write_text("kept")
    model, (dataset,) = data_dir / "models" / str(job["job_id"]), (data_dir / "datasets").iterdir()
    (model / "within").symlink_to(outside)
    model.rename(outside / "model")
    model.symlink_to(outside / "model")
    dataset.rename(outside / "dataset")
    dataset.symlink_to(outside / "dataset")
    before = sorted(outside.rglob("*"))
    assert server.delete(f"/api/models/{job['model_id']}").status_code == 200
    assert server.delete("/api/datasets/data.jsonl").status_code == 200
    assert sorted(outside.rglob("*")) == before
    assert (outside / "folder" / "kept").read_text() == "kept"
    assert [*(data_dir / "models").iterdir(), *(data_dir / "datasets").iterdir()] == []


def test_a_link_within_a_model_goes_with_it_and_what_it_leads_to_stays(
    server: RunningServer, start: Start, data_dir: Path, tmp_path: Path
) -> None:
    job = server.wait_for(start(server, "completes"))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("kept")
    (data_dir / "models" / str(job["job_id"]) / "within").symlink_to(tmp_path / "outside")
    assert server.delete(f"/api/models/{job['model_id']}").status_code == 200
    assert (tmp_path / "outside" / "kept").read_text() == "kept"
    assert [*(data_dir / "models").iterdir(), *(data_dir / "trash").iterdir()] == []


def test_a_secret_of_the_server_s_environment_reaches_no_trainer_no_file_and_no_answer(
    serve: Serve, start: Start, data_dir: Path
) -> None:
    names = (
        "AWS_SECRET_ACCESS_KEY",
        "WANDB_API_KEY",
        "OPENAI_API_KEY",
        "DATABASE_URL",
        "MY_TOKEN",
        "NVIDIA_API_KEY",
        "HF_API_TOKEN",
    )
    server = serve(**dict.fromkeys(names, CANARY))
    for behaviour in ("completes", "raises"):
        job_id = start(server, behaviour)
        server.wait_for(job_id)
        given = json.loads((data_dir / "jobs" / job_id / "attempt-1" / "environment.json").read_text())
        assert not given.keys() & set(names)
    for path in ("/api/events?limit=1000", "/api/jobs", f"/api/jobs/{job_id}/logs", "/api/state", "/api/openapi.json"):
        assert CANARY not in server.get(path).text
    assert CANARY not in server.end()
    assert all(CANARY.encode() not in path.read_bytes() for path in data_dir.rglob("*") if path.is_file())
