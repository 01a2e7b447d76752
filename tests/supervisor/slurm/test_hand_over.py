"""A job on its way into Slurm's queue: where it is not seen, not taken for now, or not at all."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.slurm_cluster import PARTITION, URGENT, SlurmCluster
from support.slurm_site import SlurmSite, no_word, program, until

from modelforge.supervisor.slurm import hand_over, life
from modelforge.supervisor.slurm.commands import Slurm

_NOBODY = 65534
_DRAINED = "Required partition not available (inactive or drain)"


class Reasons:
    """Why an attempt waits, as it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def __call__(self, reason: str) -> None:
        self.told.append(reason)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is looked at, and submitted again, several times a second."""
    monkeypatch.setattr(life, "_WAITING_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(life, "_FORGOTTEN_SECONDS", 0.3)
    monkeypatch.setattr(hand_over, "_FIRST_PAUSE_SECONDS", 0.3)
    monkeypatch.setattr(hand_over, "_LONGEST_PAUSE_SECONDS", 0.3)


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


@pytest.mark.usefixtures("at_once")
async def test_a_job_that_slurm_does_not_take_for_now_says_so_and_runs_once_it_does(site: SlurmSite) -> None:
    drain(site)
    first, reasons = site.launcher(), Reasons()
    reference = await first.submit(site.spec("completes", "train_41"))
    assert reference.slurm_id == 0
    starting = asyncio.create_task(first.started("train_41", 1, reasons))
    await until(lambda: bool(reasons.told))
    starting.cancel()  # a server that ends leaves it to the next
    await asyncio.gather(starting, return_exceptions=True)
    later, more = site.launcher(), Reasons()
    later.know("train_41", 1, reference)
    starting = asyncio.create_task(later.started("train_41", 1, more))
    await until(lambda: bool(more.told))
    told = f"Slurm takes no such job for now, and is asked again (Slurm: {_DRAINED})"
    assert reasons.told == more.told == [told]
    assert reference.name not in {name for name, _, _ in site.cluster.rows().values()}
    site.release()
    assert await starting
    await later.wait("train_41", 1)
    assert (await later.ending("train_41", 1)).cause is None
    assert site.steps("train_41") == list(range(1, 11))


@pytest.mark.usefixtures("at_once")
async def test_a_job_that_slurm_does_not_take_for_now_can_be_stopped(site: SlurmSite) -> None:
    drain(site)
    launcher, reasons = site.launcher(), Reasons()
    reference = await launcher.submit(site.spec("completes", "train_42"))
    starting = asyncio.create_task(launcher.started("train_42", 1, reasons))
    await until(lambda: bool(reasons.told))
    await launcher.stop("train_42", 1)
    assert not await starting
    await launcher.wait("train_42", 1)
    ending = await launcher.ending("train_42", 1)
    assert (ending.exit, ending.cause) == (None, None)
    site.release()
    await asyncio.sleep(1)
    assert reference.name not in {name for name, _, _ in site.cluster.rows().values()}


@pytest.mark.usefixtures("at_once")
async def test_a_job_that_slurm_refuses_after_it_did_not_take_it_fails_with_its_words(
    site: SlurmSite, tmp_path: Path
) -> None:
    fails = 'echo "sbatch: error: Batch job submission failed: $why" >&2; exit 1'
    script = f'cd "{tmp_path}"; why="{_DRAINED}"; [ ! -e asked ] || why="Invalid qos specification"; touch asked'
    launcher = site.launcher(PATH=program(tmp_path, "sbatch", f"{script}; {fails}"))
    await launcher.submit(site.spec("completes", "train_43"))
    assert not await launcher.started("train_43", 1, Reasons())
    await launcher.wait("train_43", 1)
    cause = (await launcher.ending("train_43", 1)).cause
    assert cause is not None
    assert cause.kind == "LaunchFailed"
    assert cause.message.startswith("Slurm did not take the job: ")
    assert "Invalid qos specification" in cause.message
    assert (site.layout.attempt("train_43", 1) / "revoked").exists()


def drain(site: SlurmSite) -> None:
    """Have Slurm take no job for now."""
    site.cluster.run("scontrol", "update", f"partitionname={PARTITION}", "state=drain")
