"""Jobs that Slurm has as running or ending, and of which nothing goes on."""

import asyncio
from pathlib import Path

import pytest
from support.slurm_site import SlurmSite, no_word, program

from modelforge.domain.failure_causes import RETRIED
from modelforge.supervisor.slurm import launcher as launcher_module
from modelforge.supervisor.slurm import life, standstill


async def test_a_job_that_slurm_does_not_come_to_an_end_with_is_given_up(
    site: SlurmSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standstill, "_STILL_WHILE_ENDING_SECONDS", 2.0)
    monkeypatch.setattr(standstill, "_STILL_WHILE_REVOKED_SECONDS", 1.0)
    ends = "REAL \"$@\" | sed -E 's/[|](FAILED|CANCELLED|COMPLETED)[|]/|COMPLETING|/'"  # as in a long epilog
    launcher = site.launcher(PATH=program(tmp_path, "squeue", ends))
    attempt = site.spec("waits", "train_50", max_steps=100_000)
    await launcher.submit(attempt)
    assert await launcher.started("train_50", 1, no_word)
    gone = asyncio.create_task(launcher.wait("train_50", 1))
    site.kill(attempt)
    async with asyncio.timeout(15):
        await gone
    cause = (await launcher.ending("train_50", 1)).cause
    assert cause is not None
    assert cause.kind in RETRIED
    assert "did not come to an end with the job" in cause.message
    assert (site.layout.attempt("train_50", 1) / "revoked").exists()


async def test_what_still_saves_while_slurm_ends_it_is_let(
    site: SlurmSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standstill, "_STILL_WHILE_ENDING_SECONDS", 2.0)
    ends = "REAL \"$@\" | sed 's/|RUNNING|/|COMPLETING|/'"
    launcher = site.launcher(PATH=program(tmp_path, "squeue", ends))
    await launcher.submit(site.spec("waits", "train_51", max_steps=150))
    assert await launcher.started("train_51", 1, no_word)
    await launcher.wait("train_51", 1)
    assert site.steps("train_51") == list(range(1, 151))
    assert (await launcher.ending("train_51", 1)).cause is None


@pytest.mark.parametrize("is_killed", [False, True])
async def test_of_an_attempt_whose_job_was_put_back_into_the_queue_nothing_is_left_there(
    site: SlurmSite, monkeypatch: pytest.MonkeyPatch, *, is_killed: bool
) -> None:
    monkeypatch.setattr(standstill, "_STILL_WHILE_ENDING_SECONDS", 2.0)
    launcher, job_id = site.launcher(), f"train_5{3 + is_killed}"
    attempt = site.spec("waits", job_id, max_steps=100_000)
    reference = await launcher.submit(attempt)
    assert await launcher.started(job_id, 1, no_word)
    gone = asyncio.create_task(launcher.wait(job_id, 1))
    number = str(reference.slurm_id)
    site.cluster.run("scontrol", "update", f"jobid={number}", "requeue=1")
    if is_killed:
        site.kill(attempt)
    site.cluster.run("scontrol", "requeuehold", number)
    async with asyncio.timeout(20):
        await gone
    cause = (await launcher.ending(job_id, 1)).cause
    assert cause is not None
    assert cause.kind in RETRIED
    assert site.cluster.rows()[number][1] == "CANCELLED"


async def test_a_job_that_runs_for_slurm_and_never_begins_says_so_and_is_given_up(
    site: SlurmSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher_module, "_TELL_SECONDS", 0.0)
    monkeypatch.setattr(life, "_STARTING_SECONDS", 0.1)
    monkeypatch.setattr(standstill, "_UNCLAIMED_SECONDS", 2.0)
    hangs = "sed 's/^exec srun .*/exec sleep 60/' | REAL \"$@\""  # before the step begins
    launcher, told = site.launcher(PATH=program(tmp_path, "sbatch", hangs)), list[str]()
    await launcher.submit(site.spec("completes", "train_52"))

    async def waits(reason: str) -> None:
        told.append(reason)

    assert not await launcher.started("train_52", 1, waits)
    assert told[-1] == "its node starts it (Slurm: RUNNING)"
    await launcher.wait("train_52", 1)
    cause = (await launcher.ending("train_52", 1)).cause
    assert cause is not None
    assert cause.kind in RETRIED
    assert "no trainer was started for ten minutes" in cause.message
