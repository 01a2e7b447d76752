"""A job on its way into Slurm's queue: where it is not seen, not taken for now, or not at all."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.slurm_cluster import URGENT, SlurmCluster
from support.slurm_site import SlurmSite, no_word, program, until

from modelforge.supervisor.slurm import life
from modelforge.supervisor.slurm.commands import Slurm

_NOBODY = 65534


@pytest.fixture
def hidden(cluster: SlurmCluster) -> Iterator[str]:
    """A partition that an ordinary user is not shown."""
    cluster.run("scontrol", "update", f"partitionname={URGENT}", "hidden=yes")
    yield URGENT
    cluster.run("scontrol", "update", f"partitionname={URGENT}", "hidden=no")


async def test_an_ordinary_user_s_job_is_seen_and_cancelled_though_its_partition_is_hidden(
    cluster: SlurmCluster, hidden: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() or shutil.which("setpriv") is None:
        pytest.skip("Slurm's own user sees every partition, and no other one is to be had here")
    path = ""
    for name in ("sbatch", "squeue", "scancel"):
        path = program(tmp_path, name, f'exec setpriv --reuid={_NOBODY} --regid={_NOBODY} --clear-groups REAL "$@"')
    cluster.folder.parent.chmod(0o711)
    monkeypatch.setattr(os, "getuid", lambda: _NOBODY)
    slurm = Slurm(cluster.environment | {"PATH": path})
    flags = f"--job-name=unseen --hold --output=none --partition={hidden}"
    job = await slurm.submit(f"#!/bin/sh\n#SBATCH {flags}\nsleep 60\n")
    assert {one.job_id: one.state.phase for one in await slurm.jobs()}[job] == "waiting"
    await slurm.cancel("unseen", only_waiting=True)
    assert cluster.rows()[job][1] == "CANCELLED"


async def test_a_job_that_is_never_seen_waits_once_however_often_it_is_submitted_again(
    site: SlurmSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "_FORGOTTEN_SECONDS", 0.3)
    site.cluster.hold_partition()
    program(tmp_path, "sbatch", f'REAL "$@" | tee -a "{tmp_path}/ids"')
    path = program(tmp_path, "squeue", "exit 0")
    launcher, ids = site.launcher(PATH=path), tmp_path / "ids"
    await launcher.submit(site.spec("completes", "train_40"))
    starting = asyncio.create_task(launcher.started("train_40", 1, no_word))
    await until(lambda: len(ids.read_text().split()) > 3)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    rows = site.cluster.rows()
    assert [rows[one][1] for one in ids.read_text().split()].count("PENDING") <= 1
