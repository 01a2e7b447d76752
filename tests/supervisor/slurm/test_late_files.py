"""A server that sees what its nodes write late, and in another order (tests/support/late_files.py stands for NFS)."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.attempt_files import steps_of, until_step
from support.late_site import LateSite
from support.launcher_sites import JOB, attempt_at, said_in
from support.running_server import RunningServer
from support.slurm_site import TESTS, no_word, until

from modelforge.supervisor.slurm import life
from modelforge.supervisor.slurm.commands import JobRow, Slurm
from trainer_entry import wire

Late = Callable[..., LateSite]
pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Late]:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    made: list[LateSite] = []

    def make(**delays: float) -> LateSite:
        made.append(LateSite(tmp_path, **delays))
        return made[-1]

    yield make
    for one in made:
        one.close()


async def test_what_is_written_underneath_is_seen_late_and_in_another_order(late: Late) -> None:
    site = late(first=1.0, second=0.0)
    seen, under = site.layout.root, site.under
    (seen / "ours").write_text("at once")
    assert (under / "ours").read_text() == "at once"
    (under / "first").write_text("1")
    (under / "second").write_text("2")
    assert (seen / "second").read_text() == "2"
    assert not (seen / "first").exists()
    assert "first" not in {one.name for one in seen.iterdir()}
    await asyncio.sleep(1.1)
    assert (seen / "first").read_text() == "1"
    with (under / "first").open("a") as file:
        file.write("23")
    assert ((seen / "first").stat().st_size, (seen / "first").read_text()) == (1, "1")
    (under / "first").unlink()
    assert (seen / "first").exists()
    await asyncio.sleep(1.1)
    assert not (seen / "first").exists()


async def test_an_end_that_is_seen_first_waits_for_the_last_lines(late: Late) -> None:
    site = late(stdout_jsonl=2.5, exit_json=0)
    launcher = site.launcher()
    await launcher.submit(attempt_at(site, "completes"))
    assert await launcher.started(JOB, 1, no_word)
    spool = launcher.spool(JOB, 1)
    while not (site.layout.attempt(JOB, 1) / "exit.json").exists():  # noqa: ASYNC110 - a file tells nobody
        await asyncio.sleep(0.05)
    assert not any(isinstance(one, wire.TrainerFinished) for one in said_in(spool))
    await launcher.wait(JOB, 1)
    messages = said_in(spool)
    assert isinstance(messages[-1], wire.TrainerFinished)
    assert [message.seq for message in messages] == list(range(1, len(messages) + 1))


async def test_lines_that_never_come_are_not_waited_for_for_ever(late: Late, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "_DRAINING_SECONDS", 1.0)
    site = late(stdout_jsonl=600, exit_json=0)
    launcher = site.launcher()
    await launcher.submit(attempt_at(site, "completes"))
    await launcher.wait(JOB, 1)
    assert (await launcher.ending(JOB, 1)).exit is not None
    assert said_in(launcher.spool(JOB, 1)) == []


async def test_an_attempt_whose_claim_and_report_come_long_after_its_job_has_ended_has_begun(late: Late) -> None:
    site = late(claim=600, exit_json=600, heartbeat=600, stdout_jsonl=0)
    launcher = site.launcher()
    await launcher.submit(attempt_at(site, "completes"))
    assert await launcher.started(JOB, 1, no_word)
    await launcher.wait(JOB, 1)
    ending = await launcher.ending(JOB, 1)
    assert ending.exit is not None
    assert (ending.exit.code, ending.cause) == (0, None)
    assert isinstance(said_in(launcher.spool(JOB, 1))[-1], wire.TrainerFinished)


async def test_a_heartbeat_that_is_seen_late_is_no_death(late: Late, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "_UNSEEN_SECONDS", 2.5)
    site = late(heartbeat=1.2, stdout_jsonl=0.5)
    launcher = site.launcher()
    await launcher.submit(attempt_at(site, "waits", max_steps=150))
    assert await launcher.started(JOB, 1, no_word)
    monkeypatch.setattr(Slurm, "jobs", knows_of_none)
    await launcher.wait(JOB, 1)
    assert steps_in(launcher.spool(JOB, 1)) == list(range(1, 151))
    assert not (site.under / "jobs" / JOB / "attempt-1" / "revoked").exists()


async def test_a_job_that_is_forgotten_while_its_claim_is_not_seen_yet_runs_once(
    late: Late, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "_FORGOTTEN_SECONDS", 1.5)
    site = late(claim=2.5, exit_json=2.5)
    launcher, attempt = site.launcher(), attempt_at(site, "waits", max_steps=40)
    await launcher.submit(attempt)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Slurm, "jobs", knows_of_none)
        assert await launcher.started(JOB, 1, no_word)
    log = site.under / "jobs" / JOB / "attempt-1" / "slurm.log"
    await until(lambda: "This attempt is not ours" in log.read_text())
    await launcher.wait(JOB, 1)
    assert steps_in(launcher.spool(JOB, 1)) == list(range(1, 41))


def test_a_training_on_a_cluster_whose_files_come_late_loses_no_step_and_none_comes_twice(
    late: Late, serve: Callable[..., RunningServer], start: Callable[..., str]
) -> None:
    site = late(stdout_jsonl=1.0, exit_json=0, longest=2.0)
    server = serve(
        MODELFORGE_LAUNCHER="slurm",
        MODELFORGE_SHARED_ROOT=str(site.layout.root),
        SLURM_CONF=str(site.cluster.conf),
    )
    job_id = start(server, "saves", max_steps=180)
    until_step(server, job_id, 5)
    server.post(f"/api/jobs/{job_id}/stop").raise_for_status()
    assert server.wait_for(job_id)["status"] == "stopped"
    stopped_at = steps_of(server, job_id)[-1]
    # when it goes on at once, it does from the checkpoint that it has saved, and not from one before that
    server.post(f"/api/jobs/{job_id}/resume").raise_for_status()
    job = server.wait_for(job_id)
    assert (job["status"], job["attempt"]) == ("completed", 2), job["error"]
    assert steps_of(server, job_id) == list(range(1, 181))
    started = server.get(f"/api/events?stream={job_id}&type=TrainingStarted").json()["events"]
    assert [event["data"]["report"]["resumed_step"] for event in started] == [0, stopped_at]
    assert Path(server.get(f"/api/models/{job['model_id']}").json()["path"]).is_dir()


async def knows_of_none(_slurm: Slurm) -> tuple[JobRow, ...]:
    return ()


def steps_in(spool: Path) -> list[int]:
    return [one.step for one in said_in(spool) if isinstance(one, wire.StepLogged)]
