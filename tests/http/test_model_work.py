"""Merges, exports and pushes over HTTP: who is refused, who waits, who is stopped, and what a crash leaves."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from support.attempt_files import model_in, processes_of, shim_of, training, until_step
from support.running_server import RECORDS, RunningServer

pytestmark = pytest.mark.slow

Start = Callable[..., str]
Serve = Callable[..., RunningServer]
BIG = 2_000_000_000
PREFERENCES = b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 20
ANSWERS = b'{"context": "a b", "question": "a", "answer": "b"}\n' * 20


@pytest.fixture
def trained(server: RunningServer, start: Start) -> RunningServer:
    """A server that has one model, whose files are none that could be loaded."""
    server.wait_for(start(server, "completes"))
    return server


@pytest.fixture(scope="module")
def untouched(module_server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> RunningServer:
    """The same for tests that only ask for what is refused, and datasets of several formats."""
    for name, records in (("data", RECORDS), ("answers", ANSWERS), ("preferences", PREFERENCES)):
        module_server.upload(records, f"{name}.jsonl").raise_for_status()
    body = training(model_in(tmp_path_factory.mktemp("models")), "completes")
    started = module_server.post("/api/start_training", body)
    assert module_server.wait_for(started.json()["job_id"])["status"] == "completed", started.text
    return module_server


def ask(server: RunningServer, what: str, body: object = None, **headers: str) -> requests.Response:
    return server.post(f"/api/models/1/{what}", body, headers=headers)


def last_position(server: RunningServer) -> int:
    return int(server.get("/api/events?limit=1000").json()["last_position"])


@pytest.mark.parametrize(
    ("what", "body", "field", "says"),
    [
        ("merge", {"dtype": "int8"}, "dtype", "bfloat16"),
        ("merge", {"output_name": "../up"}, "output_name", "regex"),
        ("export", {"format": "rar"}, "format", "zip"),
        ("export", {"quantization": "q8_0"}, "quantization", '"format": "gguf"'),
        ("export", {"format": "gguf", "quantization": "q9"}, "quantization", "q8_0"),
        ("export", {"format": "gguf", "quantization": "q4_k_m"}, "quantization", "llama-quantize"),
        ("export", {"path": "here"}, "path", "absolute"),
        ("export", {"path": "/etc/model"}, "path", "--model-root"),
        ("export", {"path": "\0"}, "path", "cannot be used"),
        ("export", {"path": "/a\u202eb"}, "path", "U+202E"),
        ("merge", {"output_name": "a\x9bb"}, "output_name", "U+009B"),
        ("push", {}, "repo_id", "missing"),
        ("push", {"repo_id": "a/b/c"}, "repo_id", "regex"),
        ("push", {"repo_id": "me/cook", "token": "hf_secret"}, "token", "Unknown field"),
    ],
)
def test_a_body_that_cannot_work_is_a_400_that_names_the_field(
    untouched: RunningServer, what: str, body: dict[str, object], field: str, says: str
) -> None:
    before = last_position(untouched)
    answer = ask(untouched, what, body)
    problem = answer.json()
    assert (answer.status_code, problem["field"]) == (400, field), problem
    assert says in problem["error"] + problem["detail"]
    assert "hf_secret" not in answer.text
    assert last_position(untouched) == before


def test_an_export_goes_to_a_free_place_under_a_root_and_not_among_the_servers_files(
    trained: RunningServer, data_dir: Path
) -> None:
    root = data_dir.parent
    (root / "link").symlink_to("/tmp")  # noqa: S108 - a place that is under no root
    (root / "there").mkdir()
    before = last_position(trained)
    for path, status in (
        (root / "link" / "out", 400),
        (root / "data" / "models" / "mine", 400),
        (root / ".." / ".." / ".." / "out", 400),
        (root / "nowhere" / "out", 400),
        (root / "there", 409),
    ):
        answer = ask(trained, "export", {"path": str(path)})
        assert answer.status_code == status, (path, answer.text)
    assert last_position(trained) == before
    assert list((root / "there").iterdir()) == []


def test_a_name_as_long_as_the_disk_takes_is_exported_and_a_longer_one_is_refused_at_once(
    trained: RunningServer, data_dir: Path
) -> None:
    root, room = data_dir.parent, 255 - len(".train_9223372036854775807.partial")
    before = last_position(trained)
    deep = root / "/".join(["d" * 200] * 19)
    deep.mkdir(parents=True)
    for path in (root / ("n" * (room + 1)), root / ("ü" * (room // 2 + 1)), root / ("n" * 300), deep / "out"):
        answer = ask(trained, "export", {"path": str(path), "format": "tar"})
        assert (answer.status_code, answer.json()["field"]) == (400, "path"), answer.text
        assert "too long" in answer.text or "cannot be used" in answer.text or "characters" in answer.text
    assert last_position(trained) == before
    done = trained.wait_for(ask(trained, "export", {"path": str(root / ("n" * room))}).json()["job_id"])
    assert done["status"] == "completed", done["error"]
    assert (root / ("n" * room) / "adapter_model.safetensors").is_file()


def test_the_names_of_what_comes_of_a_model_stay_as_short_as_those_that_are_sent(
    server: RunningServer, start: Start
) -> None:
    server.wait_for(start(server, "n" * 100))
    assert ask(server, "merge", {"output_name": "n" * 101}).status_code == 400
    merge = ask(server, "merge", {"queue": True})
    assert merge.status_code == 202, merge.text
    (asked,) = server.get(f"/api/events?stream={merge.json()['job_id']}&type=TrainingRequested").json()["events"]
    assert asked["data"]["spec"]["output_name"] == "n" * 93 + "-merged"


@pytest.mark.parametrize("what", ["merge", "export", "push"])
def test_a_model_that_is_not_there_is_a_404(untouched: RunningServer, what: str) -> None:
    for number in ("7", "none"):
        answer = untouched.post(f"/api/models/{number}/{what}", {"repo_id": "me/it"} if what == "push" else {})
        assert answer.status_code == 404, answer.text


def test_a_push_without_a_token_or_a_hub_is_refused_before_it_starts(
    serve: Serve, start: Start, data_dir: Path
) -> None:
    server = serve(HF_HOME=str(data_dir.parent / "hf"), HF_TOKEN="")
    server.wait_for(start(server, "completes"))
    offline = ask(server, "push", {"repo_id": "me/it"})
    assert (offline.status_code, "HF_HUB_OFFLINE" in offline.text) == (409, True)
    server.end()
    server = serve(HF_HOME=str(data_dir.parent / "hf"), HF_TOKEN="", HF_HUB_OFFLINE="0")
    without = ask(server, "push", {"repo_id": "me/it"})
    assert (without.status_code, "HF_TOKEN" in without.text) == (409, True)


def test_a_key_gets_the_job_that_it_stands_for(trained: RunningServer, data_dir: Path) -> None:
    place = {"path": str(data_dir.parent / "out")}
    first = ask(trained, "export", place, **{"Idempotency-Key": "mine"})
    trained.wait_for(first.json()["job_id"])
    again = ask(trained, "export", place, **{"Idempotency-Key": "mine"})
    assert (again.status_code, again.json()["job_id"]) == (202, first.json()["job_id"])
    other = ask(trained, "export", {"format": "zip"}, **{"Idempotency-Key": "mine"})
    assert other.status_code == 409
    assert len(trained.get("/api/jobs").json()["jobs"]) == 2


def test_work_waits_for_its_turn_and_holds_its_model_meanwhile(trained: RunningServer, start: Start) -> None:
    before = start(trained, "waits", max_steps=100_000)
    until_step(trained, before, 1)
    assert ask(trained, "export").status_code == 409
    waiting = ask(trained, "export", {"queue": True})
    assert waiting.status_code == 202
    job = waiting.json()
    assert (job["status"], job["queue_position"], job["kind"], job["source_model_id"]) == ("queued", 1, "export", 1)
    kept = trained.delete("/api/models/1")
    assert (kept.status_code, job["job_id"] in kept.text) == (409, True)
    trained.post("/api/stop_training")
    done = trained.wait_for(job["job_id"])
    assert done["status"] == "completed", done["error"]
    delivery = done["delivery"]
    assert isinstance(delivery, dict)
    assert (Path(delivery["path"]) / "adapter_model.safetensors").read_bytes() == b"weights"
    assert trained.delete("/api/models/1").status_code == 200
    assert Path(delivery["path"]).is_dir()


def test_a_merge_of_what_is_no_adapter_fails_with_its_cause_and_leaves_nothing(
    trained: RunningServer, data_dir: Path
) -> None:
    before = {path.name for path in (data_dir / "models").iterdir()}
    job = trained.wait_for(ask(trained, "merge").json()["job_id"])
    assert (job["status"], job["error"]["kind"]) == ("failed", "ModelUnavailable")  # type: ignore[index]
    assert {path.name for path in (data_dir / "models").iterdir()} == before
    assert [one["id"] for one in trained.get("/api/models").json()["models"]] == [1]


def test_a_killed_export_leaves_nothing_and_can_be_resumed(trained: RunningServer, data_dir: Path) -> None:
    model = Path(trained.get("/api/models/1").json()["path"])
    with (model / "big").open("wb") as file:
        file.truncate(BIG)  # holes: it takes time to copy, and no room here
    place = data_dir.parent / "out"
    job_id = ask(trained, "export", {"path": str(place)}).json()["job_id"]
    until_step(trained, job_id, 1)
    (worker,) = [
        pid
        for pid in processes_of(shim_of(data_dir, job_id)["token"])
        if b"-m\0trainer_entry.after_training\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
        and b"shim" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(worker, signal.SIGKILL)
    job = trained.wait_for(job_id)
    assert (job["status"], job["error"]["kind"]) == ("failed", "Killed")  # type: ignore[index]
    assert [path.name for path in data_dir.parent.glob("out*")] == []
    os.truncate(model / "big", 10)
    assert trained.post(f"/api/jobs/{job_id}/resume").status_code == 202
    assert trained.wait_for(job_id)["status"] == "completed"
    assert (place / "big").read_bytes() == bytes(10)


def test_a_place_that_was_taken_meanwhile_is_left_alone(trained: RunningServer, start: Start, data_dir: Path) -> None:
    place = data_dir.parent / "out.zip"
    before = start(trained, "waits", max_steps=100_000)
    until_step(trained, before, 1)
    job_id = ask(trained, "export", {"path": str(place), "format": "zip", "queue": True}).json()["job_id"]
    place.write_bytes(b"somebody's")
    trained.post("/api/stop_training")
    job = trained.wait_for(job_id)
    assert (job["status"], job["error"]["kind"]) == ("failed", "PlaceTaken")  # type: ignore[index]
    assert place.read_bytes() == b"somebody's"
    assert [path.name for path in data_dir.parent.glob("out*")] == ["out.zip"]


def test_a_push_goes_on_under_the_next_server_and_a_stop_ends_it(serve: Serve, start: Start, data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a hub that takes the call, and never answers
        variables = {
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": "hf_some",
            "HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "HF_HUB_DOWNLOAD_TIMEOUT": "600",
        }
        server = serve(**variables)
        server.wait_for(start(server, "completes"))
        job_id = ask(server, "push", {"repo_id": "me/it"}).json()["job_id"]
        server.wait_for(job_id, "training")
        assert server.get("/api/training_status").json()["phase"] == "pushing"
        token = shim_of(data_dir, job_id)["token"]
        before = set(processes_of(token))
        server.end(signal.SIGKILL)
        server = serve(**variables)
        assert set(processes_of(token)) == before
        began = time.monotonic()
        assert server.post(f"/api/jobs/{job_id}/stop").status_code == 202
        job = server.wait_for(job_id)
        assert (job["status"], job["attempt"]) == ("stopped", 1)
        assert processes_of(token) == []
        assert time.monotonic() - began < 60  # it was not the grace period that ended it


def test_an_export_is_made_again_whatever_became_of_its_models_training(
    trained: RunningServer, model_folder: Path, data_dir: Path
) -> None:
    first = trained.wait_for(ask(trained, "export", {"format": "tar"}).json()["job_id"])
    (model_folder / "config.json").unlink()  # what the model was trained from: no export needs it
    again = trained.post(f"/api/jobs/{first['job_id']}/rerun")
    assert again.status_code == 202, again.text
    done = trained.wait_for(again.json()["job_id"])
    assert done["status"] == "completed", done["error"]
    assert done["delivery"]["path"] == str(data_dir / "exports" / f"{done['job_id']}.tar")  # type: ignore[index]
    assert done["delivery"]["sha256"] == first["delivery"]["sha256"]  # type: ignore[index]


def test_an_export_to_a_place_is_not_made_again_where_it_stands(trained: RunningServer, data_dir: Path) -> None:
    place = data_dir.parent / "out"
    first = trained.wait_for(ask(trained, "export", {"path": str(place)}).json()["job_id"])
    again = trained.post(f"/api/jobs/{first['job_id']}/rerun")
    assert (again.status_code, str(place) in again.text) == (409, True)
    assert len(trained.get("/api/jobs").json()["jobs"]) == 2


def test_work_on_a_model_that_is_gone_is_not_taken_up_again(trained: RunningServer, data_dir: Path) -> None:
    (data_dir / "exports").write_bytes(b"")  # no folder: the export fails
    job_id = ask(trained, "export").json()["job_id"]
    assert trained.wait_for(job_id)["status"] == "failed"
    trained.delete("/api/models/1").raise_for_status()
    before = last_position(trained)
    for path in ("resume", "rerun"):
        assert trained.post(f"/api/jobs/{job_id}/{path}").status_code == 404
    assert last_position(trained) == before


@pytest.mark.parametrize(
    ("body", "status", "field", "says"),
    [
        ({}, 400, "dataset", "missing"),
        ({"dataset": "none.jsonl"}, 404, None, "none.jsonl"),
        ({"dataset": "answers.jsonl"}, 400, "dataset", "question_answer"),
        ({"dataset": [{"dataset": "data.jsonl"}, {"dataset": "answers.jsonl"}]}, 400, "dataset[1]", "question_answer"),
        ({"dataset": "preferences.jsonl", "base_model": True}, 400, "dataset", "adapter"),
        ({"dataset": "data.jsonl", "max_samples": 0}, 400, "max_samples", "from 1"),
        ({"dataset": "data.jsonl", "batch_size": 0}, 400, "batch_size", "from 1"),
        ({"dataset": [{"dataset": "data.jsonl"}], "max_samples": 3}, 400, "max_samples", "dataset[0].max_samples"),
    ],
)
def test_an_evaluation_on_records_that_do_not_fit_is_refused_before_anything_starts(
    untouched: RunningServer, body: dict[str, object], status: int, field: str | None, says: str
) -> None:
    before = last_position(untouched)
    answer = ask(untouched, "evaluate", body)
    problem = answer.json()
    assert (answer.status_code, problem.get("field")) == (status, field), problem
    assert says in problem["error"] + problem["detail"]
    assert last_position(untouched) == before


def test_a_model_whose_files_are_gone_is_not_evaluated(trained: RunningServer) -> None:
    path = Path(trained.get("/api/models/1").json()["path"])
    path.rename(path.with_name("elsewhere"))
    before = last_position(trained)
    answer = ask(trained, "evaluate", {"dataset": "data.jsonl"})
    assert answer.status_code == 404, answer.text
    assert str(path) in answer.text
    assert last_position(trained) == before
