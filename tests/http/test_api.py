"""What clients may rely on beyond the first page: keys, lists, the log, deletion."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import requests
from support.running_server import RECORDS, RunningServer

Start = Callable[..., str]


def test_the_same_key_and_body_get_the_first_answer_again(
    server: RunningServer, start: Start, model_folder: Path
) -> None:
    server.upload(RECORDS)
    body = {
        "task": "text-generation",
        "model_name": str(model_folder),
        "dataset": "data.jsonl",
        "output_name": "completes",
    }
    key = {"Idempotency-Key": "mine"}
    first = server.post("/api/start_training", body, headers=key)
    server.wait_for(first.json()["job_id"])
    again = server.post("/api/start_training", body, headers=key)
    assert (again.status_code, again.json()) == (200, first.json())
    assert len(server.get("/api/jobs").json()["jobs"]) == 1
    other = server.post("/api/start_training", {**body, "seed": 1}, headers=key)
    assert other.status_code == 409
    assert server.post("/api/start_training", body, headers={"Idempotency-Key": "x" * 300}).status_code == 400


def test_a_stop_may_be_asked_for_again_by_its_key(server: RunningServer, start: Start) -> None:
    start(server, "waits", max_steps=100_000)
    key = {"Idempotency-Key": "stop"}
    first = server.post("/api/stop_training", headers=key)
    again = server.post("/api/stop_training", headers=key)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert server.post("/api/stop_training").status_code == 409


def test_of_many_starts_at_once_one_is_taken(server: RunningServer, model_folder: Path) -> None:
    server.upload(RECORDS)
    body = {
        "task": "text-generation",
        "model_name": str(model_folder),
        "dataset": "data.jsonl",
        "output_name": "waits",
        "max_steps": 100_000,
    }
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda: codes.append(server.post("/api/start_training", body).status_code))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200] + [409] * 19


def test_the_same_bytes_are_the_same_dataset_and_others_its_next_revision(
    server: RunningServer, data_dir: Path
) -> None:
    first = server.upload(RECORDS).json()
    assert first["revision"] == 1
    again = server.upload(RECORDS).json()
    assert again == first
    changed = server.upload(RECORDS + b'{"input": "a", "output": "b"}').json()
    assert (changed["revision"], changed["num_examples"]) == (2, 21)
    assert [one["num_examples"] for one in server.get("/api/datasets").json()["datasets"]] == [21]
    assert len(list((data_dir / "datasets").iterdir())) == 2


def test_jobs_are_listed_newest_first_and_in_pages(server: RunningServer, start: Start) -> None:
    ids = []
    for _ in range(3):
        ids.append(start(server, "completes"))
        server.wait_for(ids[-1])
    page = server.get("/api/jobs?limit=2").json()
    assert [job["job_id"] for job in page["jobs"]] == ids[:0:-1]
    assert page["has_more"]
    rest = server.get(f"/api/jobs?limit=2&after={ids[1]}").json()
    assert [job["job_id"] for job in rest["jobs"]] == ids[:1]
    assert not rest["has_more"]
    assert server.get("/api/jobs?status=failed").json() == {"jobs": [], "has_more": False}


def test_a_job_tells_everything(server: RunningServer, start: Start, model_folder: Path) -> None:
    job = server.wait_for(start(server, "completes", num_train_epochs=2))
    assert job["model_name"] == str(model_folder)
    assert (job["task"], job["provider"], job["strategy"]) == ("text-generation", "huggingface", "sft")
    assert job["dataset"]["filename"] == "data.jsonl"  # type: ignore[index]
    assert job["config"]["num_train_epochs"] == 2  # type: ignore[index]
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]  # type: ignore[operator]
    assert (job["current_epoch"], job["total_epochs"]) == (2, 2)
    assert job["model_id"] == 1


def test_a_deleted_model_is_gone_with_its_files(server: RunningServer, start: Start) -> None:
    job = server.wait_for(start(server, "completes"))
    model = server.get(f"/api/models/{job['model_id']}").json()
    assert Path(model["path"]).is_dir()
    answer = server.delete(f"/api/models/{job['model_id']}")
    assert (answer.status_code, answer.json()["status"]) == (200, "deleted")
    assert not Path(model["path"]).exists()
    assert server.get("/api/models").json() == {"models": []}
    assert server.delete(f"/api/models/{job['model_id']}").status_code == 404


def test_the_log_is_read_in_pages_without_a_gap(server: RunningServer, start: Start) -> None:
    job_id = start(server, "completes")
    server.wait_for(job_id)
    whole = server.get("/api/events?limit=10000").json()
    assert [event["position"] for event in whole["events"]] == list(range(1, whole["last_position"] + 1))
    assert not whole["has_more"]
    paged, after = [], 0
    while True:
        page = server.get(f"/api/events?after={after}&limit=3").json()
        paged += page["events"]
        after = page["last_position"]
        if not page["has_more"]:
            break
    assert paged == whole["events"]
    filtered = server.get(f"/api/events?stream={job_id}&type=TrainingCompleted").json()["events"]
    assert [event["stream"] for event in filtered] == [job_id]
    assert filtered[0]["data"]["type"] == "TrainingCompleted"


def test_the_figures_are_read_in_pages(server: RunningServer, start: Start) -> None:
    job_id = start(server, "waits", max_steps=50)
    server.wait_for(job_id)
    steps, after = [], 0
    while True:
        page = server.get(f"/api/jobs/{job_id}/metrics?after={after}&limit=2").json()
        steps += [metric["step"] for metric in page["metrics"]]
        after = page["last_position"]
        if not page["has_more"]:
            break
    assert steps == list(range(1, 51))


def test_lists_come_whole_or_in_pages_of_those_after_one(server: RunningServer, start: Start) -> None:
    for _ in range(3):
        server.wait_for(start(server, "completes"))
    server.delete("/api/models/2").raise_for_status()
    for number in range(3):
        form = {"file": (f"{number}.jsonl", b'{"input": "a", "output": "b"}\n')}
        server.post("/api/upload_dataset", files=form).raise_for_status()
    for path, name, key in (("/api/models", "models", "id"), ("/api/datasets", "datasets", "filename")):
        whole = server.get(path).json()
        assert set(whole) == {name}
        paged, query = [], "?limit=2"
        while True:
            page = server.get(f"{path}{query}").json()
            paged += page[name]
            query = f"?limit=2&after={page[name][-1][key]}"
            if not page["has_more"]:
                break
        assert paged == whole[name]
        assert server.get(f"{path}?after={paged[-1][key]}").json() == {name: []}
    assert [model["id"] for model in server.get("/api/models?after=2").json()["models"]] == [3]
    refused = server.get("/api/datasets?after=none.jsonl")
    assert (refused.status_code, refused.json()["field"]) == (400, "after")


def test_the_trainer_s_log_is_read_from_a_byte_on(server: RunningServer, start: Start, data_dir: Path) -> None:
    job_id = start(server, "completes")
    server.wait_for(job_id)
    (data_dir / "jobs" / job_id / "attempt-1" / "stderr.log").write_bytes("zwölf lines\n".encode())
    answer = server.get(f"/api/jobs/{job_id}/logs")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.content.decode() == "zwölf lines\n"
    assert answer.headers["X-Next-Offset"] == "13"
    assert server.get(f"/api/jobs/{job_id}/logs?offset=13").content == b""


def test_a_cut_off_upload_leaves_nothing(server: RunningServer, data_dir: Path) -> None:
    def cut_off() -> object:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n' + RECORDS * 5000
        raise OSError("the cable is pulled")

    head = {"Content-Type": "multipart/form-data; boundary=b"}
    for _ in range(5):
        with contextlib.suppress(OSError):
            requests.post(server.url + "/api/upload_dataset", data=cut_off(), headers=head, timeout=20)
    assert server.get("/api/datasets").json() == {"datasets": []}
    for _ in range(100):
        if not list((data_dir / "tmp").iterdir()):
            break
        server.get("/api/health")
    assert list((data_dir / "tmp").iterdir()) == []
    assert "request_failed" not in server.end()  # a client that goes away is no failure of ours


def test_a_job_that_waits_is_taken_out_of_the_queue(server: RunningServer, start: Start) -> None:
    running = start(server, "waits", max_steps=100_000)
    waiting = start(server, "completes", queue=True)
    last = start(server, "completes", queue=True)
    assert server.post(f"/api/jobs/{running}/cancel").status_code == 409
    assert server.post(f"/api/jobs/{waiting}/resume").status_code == 409
    canceled = server.post(f"/api/jobs/{waiting}/cancel")
    assert (canceled.status_code, canceled.json()["status"]) == (202, "stopped")
    assert server.post(f"/api/jobs/{waiting}/cancel").status_code == 409
    server.post("/api/stop_training")
    assert server.wait_for(last)["status"] == "completed"
    assert server.get(f"/api/jobs/{waiting}").json()["attempt"] == 0
    # a canceled job may still be run, from its beginning
    assert server.post(f"/api/jobs/{waiting}/resume").status_code == 202
    assert server.wait_for(waiting)["status"] == "completed"
    assert server.post(f"/api/jobs/{waiting}/resume").status_code == 409
    assert server.post("/api/jobs/train_999999/resume").status_code == 404
