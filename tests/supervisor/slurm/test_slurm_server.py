"""`--launcher slurm`: what a user sees of a server whose trainings run on a real cluster."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.attempt_files import steps_of, training, until_step
from support.running_server import RECORDS, RunningServer
from support.slurm_cluster import SlurmCluster

from modelforge.backup.restoring import restore_backup
from modelforge.backup.taking import take_backup
from modelforge.errors import BackupUnusable, SettingsInvalid
from modelforge.layout import Layout
from modelforge.settings import load_settings
from modelforge.supervisor.slurm.shared_root import check_cluster_settings, claim_shared_root

Start = Callable[..., str]
Serve = Callable[..., RunningServer]


@pytest.fixture
def on_cluster(serve: Serve, cluster: SlurmCluster, data_dir: Path, tmp_path: Path) -> Callable[[], RunningServer]:
    shared = tmp_path / "shared"
    shared.mkdir(exist_ok=True)

    def start() -> RunningServer:
        return serve(
            MODELFORGE_LAUNCHER="slurm",
            MODELFORGE_SHARED_ROOT=str(shared),
            MODELFORGE_CLUSTER_PARTITION="main",
            SLURM_CONF=str(cluster.conf),
        )

    return start


def test_a_training_runs_on_the_cluster_through_the_end_of_its_server(
    on_cluster: Callable[[], RunningServer], start: Start, tmp_path: Path, cluster: SlurmCluster
) -> None:
    server = on_cluster()
    partitions = {one["name"]: one for one in server.get("/api/info").json()["cluster"]}
    assert partitions["main"]["nodes"] == 3
    first = start(server, "waits", max_steps=60, cluster={"time_limit": "0:30:00"})
    second = start(server, "waits", max_steps=100_000)
    until_step(server, first, 5)
    server.end(signal.SIGKILL)
    server = on_cluster()
    # when both go on, and each ends as it was to
    job = server.wait_for(first)
    assert (job["status"], job["attempt"]) == ("completed", 1)
    assert steps_of(server, first) == list(range(1, 61))
    model = server.get(f"/api/models/{job['model_id']}").json()
    assert model["path"].startswith(str(tmp_path / "shared" / "models"))
    server.post(f"/api/jobs/{second}/stop").raise_for_status()
    assert server.wait_for(second)["status"] == "stopped"


def test_a_preempted_training_goes_on_as_the_next_attempt_from_the_checkpoint_of_its_grace(
    on_cluster: Callable[[], RunningServer], start: Start, cluster: SlurmCluster
) -> None:
    server = on_cluster()
    job_id = start(server, "waits", max_steps=120, max_restarts=2)
    until_step(server, job_id, 5)
    urgent = cluster.preempt_all()
    waiting = server.wait_for(job_id, "queued", "starting", seconds=40)
    assert waiting["attempt"] == 2
    cluster.run("scancel", urgent)
    job = server.wait_for(job_id)
    assert (job["status"], job["attempt"]) == ("completed", 2)
    events = server.get(f"/api/events?stream={job_id}&limit=1000").json()["events"]
    failed = [one for one in events if one["type"] == "AttemptFailed"]
    assert [one["data"]["kind"] for one in failed] == ["Preempted"]


def test_a_backup_is_served_again_once_its_folders_were_moved_into_a_shared_root(
    on_cluster: Callable[[], RunningServer], start: Start, data_dir: Path, tmp_path: Path
) -> None:
    server, shared = on_cluster(), tmp_path / "shared"
    before = server.wait_for(start(server, "completes", max_steps=5))
    server.end()
    for layout in (Layout(data_dir), Layout(data_dir, shared)):
        with pytest.raises(BackupUnusable, match="would be lost"):
            take_backup(layout, shared / "backup")
    taken = take_backup(Layout(data_dir), tmp_path / "backup")
    assert taken.missing == taken.left_out == ()
    data_dir.rename(tmp_path / "lost-data")
    shared.rename(tmp_path / "lost-shared")
    # the moves of docs/cluster.md
    restore_backup(tmp_path / "backup", Layout(data_dir))
    shared.mkdir(mode=0o700)
    for name in ("jobs", "datasets", "models"):
        (data_dir / name).rename(shared / name)
    server = on_cluster()
    model = server.get(f"/api/models/{before['model_id']}").json()
    assert Path(model["path"]).is_relative_to(shared)
    assert Path(model["path"]).is_dir()
    again = server.wait_for(start(server, "completes", max_steps=5))
    assert (again["status"], again["job_id"] != before["job_id"]) == ("completed", True)


def test_what_the_cluster_cannot_give_is_refused_by_name(
    on_cluster: Callable[[], RunningServer], start: Start, model_folder: Path
) -> None:
    server = on_cluster()
    for asked, words in (
        ({"nodes": 4}, "num_processes is 1, and cluster.nodes is 4"),
        ({"cpus_per_node": 3}, "cluster.cpus_per_node comes to 3, and main has 2 processors"),
        ({"gpus_per_node": 3}, "cluster.gpus_per_node comes to 3"),
        ({"partition": "nowhere"}, "there are main, urgent"),
        ({"time_limit": "0:01:00"}, "cluster.time_limit is 0:01:00"),
        ({"partition": "main\n#SBATCH --uid=0"}, "cluster.partition"),
        ({"extra": "--uid=0"}, "extra"),
    ):
        answer = server.post("/api/start_training", body(server, model_folder, asked))
        assert answer.status_code == 400, (asked, answer.text)
        assert words in answer.text


def test_a_server_without_a_cluster_refuses_what_is_asked_of_one(server: RunningServer, model_folder: Path) -> None:
    answer = server.post("/api/start_training", body(server, model_folder, {"nodes": 1}))
    assert answer.status_code == 400
    assert "start it with --launcher slurm" in answer.text


def body(server: RunningServer, model_folder: Path, cluster: dict[str, object]) -> dict[str, object]:
    server.upload(RECORDS)
    return training(model_folder, "completes") | {"cluster": cluster}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"launcher": "slurm"}, "--shared-root"),
        ({"launcher": "slurm", "shared_root": "/", "isolate": True}, "--isolate"),
        ({"cluster_nodes": 2}, "--launcher slurm with --cluster-nodes"),
        ({"cluster_qos": "a\nb"}, "cluster_qos"),
    ],
)
def test_settings_that_could_not_work_are_refused_at_the_start(flags: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsInvalid, match=words):
        load_settings(flags, environ={})


def test_a_shared_root_is_one_servers_and_has_to_be_there(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    first, second = (Layout(tmp_path / name, shared) for name in ("first", "second"))
    for layout in (first, second):
        layout.make_folders()
    with pytest.raises(SettingsInvalid, match="mount its file system"):
        claim_shared_root(first)
    shared.mkdir()
    claim_shared_root(first)
    claim_shared_root(first)
    assert (first.root / "models").resolve() == shared / "models"
    with pytest.raises(SettingsInvalid, match="belongs to another server"):
        claim_shared_root(second)


def test_a_shared_root_that_others_own_or_can_write_into_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    layout = Layout(tmp_path / "data", shared)
    layout.make_folders()
    shared.chmod(0o770)
    with pytest.raises(SettingsInvalid, match="chmod go-w"):
        claim_shared_root(layout)
    shared.chmod(0o755)
    claim_shared_root(layout)
    layout.jobs.chmod(0o777)
    with pytest.raises(SettingsInvalid, match=f"chmod go-w {layout.jobs}"):
        claim_shared_root(layout)
    layout.jobs.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(SettingsInvalid, match="the server runs as 4711"):
        claim_shared_root(layout)


def test_a_data_directory_with_jobs_of_its_machine_does_not_move_to_a_cluster(tmp_path: Path) -> None:
    local = Layout(tmp_path / "data")
    local.make_folders()
    (local.jobs / "train_1").mkdir()
    (tmp_path / "shared").mkdir()
    with pytest.raises(SettingsInvalid, match="jobs of its own machine"):
        claim_shared_root(Layout(tmp_path / "data", tmp_path / "shared"))


def test_without_slurm_or_with_a_path_that_no_script_can_hold_nothing_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: SlurmCluster
) -> None:
    with pytest.raises(SettingsInvalid, match="letters, digits"):
        check_cluster_settings(tmp_path / "a folder")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SettingsInvalid, match="sbatch, squeue"):
        check_cluster_settings(tmp_path)
