"""The folder that a server shares with its nodes: one that is not mounted, and nodes that do not see it."""

import shutil
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.slurm_cluster import SlurmCluster

from modelforge.errors import SettingsInvalid
from modelforge.layout import Layout
from modelforge.supervisor.slurm.commands import Slurm
from modelforge.supervisor.slurm.shared_root import check_nodes, claim_shared_root
from trainer_entry import wire

MARK = "modelforge-server.json"
MAIN = wire.ClusterRequest(partition="main")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Of a server that has run on the cluster."""
    layout = Layout(tmp_path / "data", tmp_path / "shared")
    layout.make_folders()
    layout.at_nodes().mkdir(mode=0o700)
    claim_shared_root(layout)
    return layout


def test_a_shared_root_that_is_not_mounted_now_is_not_taken_for_a_new_one(layout: Layout, tmp_path: Path) -> None:
    shared, mounted = layout.at_nodes(), tmp_path / "mounted"
    shared.rename(mounted)
    shared.mkdir(mode=0o700)
    with pytest.raises(SettingsInvalid, match="mount its file system"):
        claim_shared_root(layout)
    assert [*shared.iterdir()] == []
    # and once it is mounted
    shared.rmdir()
    mounted.rename(shared)
    claim_shared_root(layout)


def test_a_shared_root_that_was_lost_is_taken_again_with_the_mark_that_the_data_directory_has(layout: Layout) -> None:
    shared = layout.at_nodes()
    shutil.rmtree(shared)
    shared.mkdir(mode=0o700)
    shutil.copy(layout.root / MARK, shared)
    claim_shared_root(layout)
    assert layout.models.is_dir()


def test_a_data_directory_of_another_shared_root_is_told_so_and_leaves_the_new_one_alone(
    layout: Layout, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    with pytest.raises(SettingsInvalid, match=f"leads to {layout.at_nodes()}"):
        claim_shared_root(Layout(layout.root, other))
    assert [*other.iterdir()] == []


def test_a_first_start_that_was_killed_between_both_marks_is_made_anew(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data", tmp_path / "shared")
    layout.make_folders()
    layout.at_nodes().mkdir(mode=0o700)
    (layout.root / MARK).write_text('{"id":"c0ffee"}')
    claim_shared_root(layout)
    assert "c0ffee" in (layout.at_nodes() / MARK).read_text()


@pytest.mark.parametrize("state", ["drain", "inactive"])
async def test_a_partition_that_takes_no_jobs_is_no_fault_of_its_nodes(
    layout: Layout, cluster: SlurmCluster, state: str
) -> None:
    cluster.run("scontrol", "update", "partitionname=main", f"state={state}")
    try:
        with capture_logs() as said:
            await check_nodes(layout, Slurm(cluster.environment), MAIN)
    finally:
        cluster.release_partition()
    assert [line["event"] for line in said] == ["nodes_not_checked"]
    # and once it takes jobs, they are seen to have what jobs need
    await check_nodes(layout, Slurm(cluster.environment), MAIN)
    assert sys.executable in (layout.at_nodes() / MARK).read_text()


@pytest.mark.parametrize(
    ("lacking", "words"), [("root", "exit code 3"), ("python", "execve"), ("packages", "trainer_entry")]
)
async def test_a_node_that_does_not_see_what_jobs_need_is_named(
    layout: Layout, cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str, words: str
) -> None:
    environment = cluster.environment
    if lacking == "root":
        srun = tmp_path / "srun"  # the mark is gone by the time that a node looks for it
        srun.write_text(f'#!/bin/sh\nrm "{layout.at_nodes() / MARK}"\nexec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o700)
        environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    else:
        monkeypatch.setattr(
            sys, "executable", "/usr/bin/python3" if lacking == "packages" else str(tmp_path / "python")
        )
    with pytest.raises(SettingsInvalid, match="does not see what jobs need") as raised:
        await check_nodes(layout, Slurm(environment), MAIN)
    assert words in str(raised.value)
