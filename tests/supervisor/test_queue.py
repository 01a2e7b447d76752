"""Jobs that wait, jobs that train at the same time, and what each has of the machine."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.attempt_files import processes_of, shim_of, until_step
from support.running_server import RunningServer

from modelforge.supervisor.attempt_environment import Share, environment_of

Start = Callable[..., str]
Serve = Callable[..., RunningServer]
CORES = len(os.sched_getaffinity(0))


def given_to(data_dir: Path, job_id: str) -> dict[str, str]:
    """The environment of an attempt's trainer."""
    text = (data_dir / "jobs" / job_id / "attempt-1" / "environment.json").read_text()
    variables: dict[str, str] = json.loads(text)
    return variables


def test_places_in_the_queue_are_shown_and_kept_over_a_restart(serve: Serve, start: Start) -> None:
    server = serve()
    first = start(server, "waits", max_steps=100_000)
    second, third, fourth = (start(server, "completes", queue=True) for _ in range(3))

    def places() -> dict[str, int | None]:
        jobs = server.get("/api/jobs").json()["jobs"]
        return {job["job_id"]: job["queue_position"] for job in jobs}

    assert places() == {first: None, second: 1, third: 2, fourth: 3}
    assert server.post(f"/api/jobs/{second}/cancel").status_code == 202
    assert places() == {first: None, second: None, third: 1, fourth: 2}
    server.end()
    server = serve()
    assert places() == {first: None, second: None, third: 1, fourth: 2}
    assert server.get(f"/api/jobs/{fourth}").json()["queue_position"] == 2
    server.post("/api/stop_training")
    server.wait_for(fourth)
    began = [server.get(f"/api/jobs/{job}").json()["started_at"] for job in (third, fourth)]
    assert began == sorted(began)
    launches = server.get("/api/events?type=AttemptLaunching").json()["events"]
    assert [event["stream"] for event in launches] == [first, third, fourth]


def test_two_jobs_train_at_once_each_with_a_gpu_and_its_share_of_the_processors(
    serve: Serve, start: Start, data_dir: Path
) -> None:
    server = serve(MODELFORGE_MAX_CONCURRENT_JOBS="2", CUDA_VISIBLE_DEVICES="4,7")
    first = start(server, "waits", max_steps=100_000)
    second = start(server, "waits", max_steps=100_000)
    refused = server.post(
        "/api/start_training",
        {"task": "text-generation", "model_name": str(data_dir.parent / "base"), "dataset": "data.jsonl"},
    )
    assert refused.status_code == 409
    third = start(server, "completes", queue=True)
    for job_id, gpu in ((first, "4"), (second, "7")):
        until_step(server, job_id, 2)
        variables = given_to(data_dir, job_id)
        assert variables["CUDA_VISIBLE_DEVICES"] == gpu
        assert variables["OMP_NUM_THREADS"] == str(max(1, CORES // 2))
        assert variables["OMP_WAIT_POLICY"] == "PASSIVE" or CORES == 1
        assert server.get(f"/api/jobs/{job_id}").json()["gpus"] == [gpu]
    # the status is that of the one that began first, however the other gets on
    assert server.get("/api/training_status").json()["job_id"] == first
    # and both are taken up by a server that comes after this one
    server.end()
    server = serve(MODELFORGE_MAX_CONCURRENT_JOBS="2", CUDA_VISIBLE_DEVICES="4,7")
    assert [server.get(f"/api/jobs/{job}").json()["status"] for job in (first, second, third)] == [
        "training",
        "training",
        "queued",
    ]
    assert server.post("/api/stop_training").json()["job_id"] == first
    assert server.wait_for(third)["status"] == "completed"
    assert given_to(data_dir, third)["CUDA_VISIBLE_DEVICES"] == "4"
    assert server.get("/api/training_status").json()["job_id"] == second
    assert server.post("/api/stop_training").json()["job_id"] == second
    for job_id in (first, second, third):
        assert processes_of(shim_of(data_dir, job_id)["token"]) == []


def test_without_gpus_a_job_alone_has_all_processors_and_cuda_is_left_as_it_is(
    serve: Serve, start: Start, data_dir: Path
) -> None:
    server = serve(CUDA_VISIBLE_DEVICES="")
    job_id = start(server, "completes")
    server.wait_for(job_id)
    variables = given_to(data_dir, job_id)
    assert variables["OMP_NUM_THREADS"] == str(CORES)
    assert "OMP_WAIT_POLICY" not in variables
    assert variables["CUDA_VISIBLE_DEVICES"] == ""
    assert variables["MALLOC_TRIM_THRESHOLD_"] == str(1 << 40)
    assert variables["MALLOC_MMAP_THRESHOLD_"] == str(32 << 20)


def test_a_training_that_computes_activations_again_on_the_cpu_gives_memory_back_that_it_has_freed(
    serve: Serve, start: Start, data_dir: Path
) -> None:
    server = serve(CUDA_VISIBLE_DEVICES="")
    job_id = start(server, "completes", gradient_checkpointing=True)
    server.wait_for(job_id)
    variables = given_to(data_dir, job_id)
    assert int(variables["MALLOC_MMAP_THRESHOLD_"]) == 1 << 20
    assert "MALLOC_TRIM_THRESHOLD_" not in variables


@pytest.mark.parametrize(
    ("own", "trim", "mmap"),
    [
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, str(1 << 40), str(32 << 20)),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=1"}, None, str(32 << 20)),
        ({"MALLOC_MMAP_THRESHOLD_": "7"}, str(1 << 40), "7"),
    ],
)
def test_what_the_server_was_told_of_its_heap_goes_before(
    own: dict[str, str], trim: str | None, mmap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    share = Share(threads=1, all_cores=True, gpus=None)
    told = environment_of(share, "token", {})
    assert told.get("GLIBC_TUNABLES") == own.get("GLIBC_TUNABLES")
    assert (told.get("MALLOC_TRIM_THRESHOLD_"), told.get("MALLOC_MMAP_THRESHOLD_")) == (trim, mmap)
    on_gpu = environment_of(msgspec.structs.replace(share, gpus=("0",)), "token", {})
    assert on_gpu.get("MALLOC_TRIM_THRESHOLD_") is None


@pytest.mark.parametrize("tunables", ["glibc.malloc.mmap_threshold=4096", "a=1:glibc.malloc.mmap_threshold=4096"])
def test_a_limit_that_the_server_was_told_in_glibc_s_tunables_gets_none_beside_it(
    tunables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", tunables)
    variables = environment_of(Share(threads=1, all_cores=True, gpus=None, recomputes=True), "token", {})
    assert variables["GLIBC_TUNABLES"] == tunables
    assert "MALLOC_MMAP_THRESHOLD_" not in variables


@pytest.mark.parametrize("name", ["LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"])
def test_trainers_on_the_cpu_keep_few_prepared_computations_unless_the_server_was_told_how_many(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name, raising=False)
    shares = [Share(threads=n, all_cores=n > 1, gpus=None, recomputes=n > 1) for n in (1, 2)]
    assert [environment_of(share, "token", {})[name] for share in shares] == ["64", "64"]
    monkeypatch.setenv(name, "300")
    assert [environment_of(share, "token", {})[name] for share in shares] == ["300", "300"]
    assert name not in environment_of(Share(threads=1, all_cores=True, gpus=("0",)), "token", {})


def test_a_checkpoint_is_saved_on_request_and_the_training_goes_on(server: RunningServer, start: Start) -> None:
    job_id = start(server, "waits", max_steps=100_000)
    until_step(server, job_id, 3)
    assert server.post(f"/api/jobs/{job_id}/checkpoint").status_code == 202
    found: list[dict[str, Any]] = []
    while [checkpoint["valid"] for checkpoint in found] != [True]:  # it is listed before it is whole
        found = server.get(f"/api/jobs/{job_id}/checkpoints").json()["checkpoints"]
    until_step(server, job_id, found[0]["step"] + 3)
    server.post("/api/stop_training")
    refused = server.post(f"/api/jobs/{job_id}/checkpoint")
    assert (refused.status_code, "is stopped" in refused.json()["detail"]) == (409, True)
    assert server.post("/api/jobs/train_999999/checkpoint").status_code == 404


def test_a_server_with_more_places_launches_those_who_wait_and_one_with_fewer_ends_nobody(
    serve: Serve, start: Start
) -> None:
    server = serve()
    first = start(server, "waits", max_steps=100_000)
    second = start(server, "waits", max_steps=100_000, queue=True)
    server.end()
    server = serve(MODELFORGE_MAX_CONCURRENT_JOBS="2")
    until_step(server, second, 2)
    server.end()
    server = serve()
    third = start(server, "completes", queue=True)
    for job_id, status in ((first, "training"), (second, "training"), (third, "queued")):
        assert server.get(f"/api/jobs/{job_id}").json()["status"] == status
    server.post("/api/stop_training")
    assert server.get(f"/api/jobs/{third}").json()["status"] == "queued"  # there is room only for the second
    server.post("/api/stop_training")
    assert server.wait_for(third)["status"] == "completed"
