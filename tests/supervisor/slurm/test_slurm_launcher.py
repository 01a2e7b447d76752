"""Attempts as jobs of a real cluster: started, stopped, found again, broken, and why they ended."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from support.attempt_files import processes_of
from support.slurm_site import SlurmSite, kill_step, no_word, program, until

from modelforge.errors import LaunchFailed
from modelforge.supervisor.slurm import hand_over, life, standstill
from modelforge.supervisor.slurm.commands import Slurm
from modelforge.supervisor.slurm.submission import command_of
from trainer_entry import wire
from trainer_entry.wire.secret_files import SECRET_FILES


async def test_what_waits_says_why_and_can_be_stopped_before_it_began(site: SlurmSite) -> None:
    launcher = site.launcher()
    held = wire.ClusterRequest(nodes=3, time_limit="99:00:00")
    await launcher.submit(site.spec("completes", "train_3", cluster=held))
    told: list[str] = []

    async def waits(reason: str) -> None:
        told.append(reason)
        await launcher.stop("train_3", 1)

    assert not await launcher.started("train_3", 1, waits)
    assert told
    assert "more time than the partition gives" in told[0] or "partition cannot give" in told[0]
    await launcher.wait("train_3", 1)
    assert (await launcher.ending("train_3", 1)).exit is None
    assert site.messages("train_3") == []


async def test_reasons_that_change_at_each_look_are_told_now_and_then(
    site: SlurmSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "_WAITING_LOOK_SECONDS", 0.05)
    site.cluster.hold_partition()
    reference = await site.launcher().submit(site.spec("completes", "train_18"))
    script = f'cd "{tmp_path}"; echo >>asked; [ $(($(wc -l <asked) % 2)) = 0 ] && why=Priority || why=Resources'
    launcher = site.launcher(PATH=program(tmp_path, "squeue", f'{script}; echo "7|{reference.name}|PENDING||$why"'))
    told: list[str] = []

    async def waits(reason: str) -> None:
        told.append(reason)

    starting = asyncio.create_task(launcher.started("train_18", 1, waits))
    await until(lambda: (tmp_path / "asked").exists() and len((tmp_path / "asked").read_text()) > 6)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert len(told) == 1


async def test_a_second_job_of_the_same_attempt_leaves_at_once_and_writes_nothing(site: SlurmSite) -> None:
    launcher = site.launcher()
    await launcher.submit(site.spec("waits", "train_5", max_steps=60))
    folder = site.layout.attempt("train_5", 1)
    # such as a controller starts again that has forgotten how the first one went, and that they have one name
    script = "\n".join(line for line in (folder / "job.sh").read_text().splitlines() if "singleton" not in line)
    assert await launcher.started("train_5", 1, no_word)
    await Slurm(site.cluster.environment).submit(script)
    await launcher.wait("train_5", 1)
    await until(lambda: "This attempt is not ours" in (folder / "slurm.log").read_text())
    assert site.steps("train_5") == list(range(1, 61))


async def test_what_slurm_refuses_fails_at_once_with_its_words(site: SlurmSite) -> None:
    asked = wire.ClusterRequest(partition="nowhere")
    spec, folder = site.spec("completes", "train_6", cluster=asked), site.layout.attempt("train_6", 1)
    folder.mkdir(parents=True)
    (folder / SECRET_FILES[0]).write_text("hf_secret")
    with pytest.raises(LaunchFailed, match="invalid partition specified: nowhere"):
        await site.launcher().submit(spec)
    assert (folder / "revoked").exists()
    assert not (folder / SECRET_FILES[0]).exists()


@pytest.mark.parametrize("said", ["kill -9 $$", "exit 1", 'echo "sbatch: error: something new" >&2; exit 1'])
async def test_a_job_that_was_taken_by_an_sbatch_that_failed_is_the_attempt(
    site: SlurmSite, tmp_path: Path, said: str
) -> None:
    launcher = site.launcher(PATH=program(tmp_path, "sbatch", f'REAL "$@" >"{tmp_path}/id"; {said}'))
    reference = await launcher.submit(site.spec("completes", "train_14"))
    assert (reference.slurm_id, reference.cluster) == (int((tmp_path / "id").read_text()), "tests")
    assert await launcher.started("train_14", 1, no_word)
    await launcher.wait("train_14", 1)


async def test_an_attempt_that_has_begun_is_awaited_though_its_submission_was_given_up(
    site: SlurmSite, tmp_path: Path
) -> None:
    folder = site.layout.attempt("train_19", 1)
    begins = f'REAL "$@"; until [ -e "{folder}/claim" ]; do sleep 0.1; done'
    words = "Batch job submission failed: Duplicate job id"
    path = program(tmp_path, "sbatch", f'{begins}; echo "{words}" >&2; exit 1')
    launcher = site.launcher(PATH=path)
    await launcher.submit(site.spec("waits", "train_19", max_steps=100_000))
    assert await launcher.started("train_19", 1, no_word)
    await launcher.wait("train_19", 1)
    steps = site.steps("train_19")
    await asyncio.sleep(0.5)
    assert site.steps("train_19") == steps


async def test_an_sbatch_that_fails_for_ever_leaves_no_job_that_could_begin(
    site: SlurmSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_over, "_RETRY_SECONDS", 0.0)
    site.cluster.hold_partition()
    program(tmp_path, "sbatch", f'REAL "$@" >>"{tmp_path}/id"; echo "sbatch: error: something new" >&2; exit 1')
    path = program(tmp_path, "squeue", "exit 0")  # and a controller that forgot the job, and gets it anew
    with pytest.raises(LaunchFailed, match="something new"):
        await site.launcher(PATH=path).submit(site.spec("completes", "train_15"))
    jobs = (tmp_path / "id").read_text().split()
    rows = site.cluster.rows()
    assert {rows[job][1] for job in jobs} == {"CANCELLED"}
    assert (site.layout.attempt("train_15", 1) / "revoked").exists()


async def test_a_job_that_somebody_cancels_was_interrupted_and_keeps_what_its_grace_saved(site: SlurmSite) -> None:
    launcher = site.launcher()
    reference = await launcher.submit(site.spec("waits", "train_7", max_steps=100_000))
    assert await launcher.started("train_7", 1, no_word)
    await until(lambda: len(site.steps("train_7")) > 3)
    site.cluster.run("scancel", str(reference.slurm_id))
    await launcher.wait("train_7", 1)
    ending = await launcher.ending("train_7", 1)
    assert ending.cause is not None
    assert ending.cause.kind == "Interrupted"
    assert "cancelled in Slurm" in ending.cause.message
    assert isinstance(site.messages("train_7")[-1], wire.TrainerStopped)


async def test_a_job_has_the_gpus_that_it_asked_for_and_the_folders_of_its_node(
    site: SlurmSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = site.launcher()
    monkeypatch.setenv("TMPDIR", "/run/login")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    seen = {}
    asked = {"train_21": 2, "train_22": 0, "train_23": None}
    for job_id, gpus in asked.items():
        await launcher.submit(site.spec("completes", job_id, cluster=wire.ClusterRequest(gpus_per_node=gpus)))
    for job_id, gpus in asked.items():
        await launcher.wait(job_id, 1)
        environment = json.loads((site.layout.attempt(job_id, 1) / "environment.json").read_bytes())
        assert environment.get("TMPDIR") != "/run/login"
        seen[gpus] = environment.get("CUDA_VISIBLE_DEVICES")
    assert seen == {2: "0,1", 0: "", None: ""}


async def test_several_nodes_take_part_and_one_of_them_writes(site: SlurmSite) -> None:
    launcher = site.launcher()
    await launcher.submit(site.spec("waits", "train_9", max_steps=30, cluster=wire.ClusterRequest(nodes=2)))
    assert await launcher.started("train_9", 1, no_word)
    await launcher.wait("train_9", 1)
    assert (await launcher.ending("train_9", 1)).exit is not None
    assert site.steps("train_9") == list(range(1, 31))
    assert '"step":30' in (site.layout.attempt("train_9", 1) / "stderr-1.log").read_text()


@pytest.mark.parametrize("node", [0, 1])
async def test_when_the_step_of_one_of_two_nodes_is_killed_the_other_ends_too(site: SlurmSite, node: int) -> None:
    launcher, job_id = site.launcher(), f"train_2{5 + node}"
    await launcher.submit(site.spec("waits", job_id, max_steps=100_000, cluster=wire.ClusterRequest(nodes=2)))
    folder = site.layout.attempt(job_id, 1)
    assert await launcher.started(job_id, 1, no_word)
    log = folder / "stderr-1.log"
    await until(lambda: len(site.steps(job_id)) > 3 and log.exists() and '"step":3' in log.read_text())
    kill_step(folder, node)
    await launcher.wait(job_id, 1)
    await launcher.ending(job_id, 1)
    await until(lambda: not processes_of(f"token-{job_id}"))


async def test_what_runs_for_slurm_without_a_heartbeat_is_killed_and_what_is_suspended_is_not(
    site: SlurmSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standstill, "_STILL_WHILE_RUNNING_SECONDS", 2.0)
    launcher = site.launcher()
    reference = await launcher.submit(site.spec("waits", "train_28", max_steps=100_000))
    assert await launcher.started("train_28", 1, no_word)
    gone = asyncio.create_task(launcher.wait("train_28", 1))
    site.cluster.run("scontrol", "suspend", str(reference.slurm_id))
    await asyncio.sleep(4)
    site.cluster.run("scontrol", "resume", str(reference.slurm_id))
    said = len(site.steps("train_28"))
    await until(lambda: len(site.steps("train_28")) > said + 50)
    assert not gone.done()
    kill_step(site.layout.attempt("train_28", 1), number=signal.SIGSTOP)
    await gone
    cause = (await launcher.ending("train_28", 1)).cause
    assert cause is not None
    assert "heartbeat stood still" in cause.message
    await until(lambda: not processes_of("token-train_28"))


async def test_a_checkpoint_that_is_asked_for_while_the_job_is_suspended_is_saved_once_it_goes_on(
    site: SlurmSite,
) -> None:
    launcher = site.launcher()
    reference = await launcher.submit(site.spec("waits", "train_29", max_steps=100_000))
    assert await launcher.started("train_29", 1, no_word)
    await until(lambda: bool(site.steps("train_29")))
    site.cluster.run("scontrol", "suspend", str(reference.slurm_id))
    await launcher.save_checkpoint("train_29", 1)
    site.cluster.run("scontrol", "resume", str(reference.slurm_id))
    await until(lambda: bool(saved(site, "train_29")), seconds=10)
    said = len(site.steps("train_29"))
    await until(lambda: len(site.steps("train_29")) > said + 75)  # two beats later
    assert len(saved(site, "train_29")) == 1
    await launcher.save_checkpoint("train_29", 1)
    await until(lambda: len(saved(site, "train_29")) == 2, seconds=10)
    await launcher.stop("train_29", 1)
    await launcher.wait("train_29", 1)


def saved(site: SlurmSite, job_id: str) -> list[wire.CheckpointWritten]:
    return [one for one in site.messages(job_id) if isinstance(one, wire.CheckpointWritten)]


async def test_torchrun_has_two_nodes_meet_and_a_lost_contact_is_named(site: SlurmSite) -> None:
    launcher = site.launcher("support.meeting_ranks", command_of)
    attempt = site.spec("meets", "train_24", num_processes=2, cluster=wire.ClusterRequest(nodes=2))
    await launcher.submit(attempt)
    met = [site.layout.attempt("train_24", 1) / f"met-{rank}.json" for rank in (0, 1)]
    await until(lambda: all(path.exists() for path in met), seconds=60)
    found = [json.loads(path.read_bytes()) for path in met]
    assert [(one["total"], one["network"]) for one in found] == [(3, None)] * 2
    os.kill(found[1]["pid"], signal.SIGKILL)
    await launcher.wait("train_24", 1)
    assert (await launcher.ending("train_24", 1)).cause is None
    (said,) = site.messages("train_24")
    assert isinstance(said, wire.TrainerFailed)
    assert said.kind == "NodeFailed"


async def test_a_claimed_job_whose_processes_were_killed_is_gone_and_revoked(site: SlurmSite) -> None:
    launcher = site.launcher()
    await launcher.submit(site.spec("waits", "train_10", max_steps=100_000))
    folder = site.layout.attempt("train_10", 1)
    assert await launcher.started("train_10", 1, no_word)
    kill_step(folder)
    await launcher.wait("train_10", 1)
    ending = await launcher.ending("train_10", 1)
    assert ending.exit is None
    assert (folder / "revoked").exists()
    said = len(site.messages("train_10"))
    await asyncio.sleep(0.5)
    assert len(site.messages("train_10")) == said


async def test_a_job_that_the_controller_forgets_runs_once_though_its_id_is_given_out_anew(
    site: SlurmSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "_FORGOTTEN_SECONDS", 1.0)
    cluster, launcher = site.cluster, site.launcher()
    cluster.hold_partition()
    reference = await launcher.submit(site.spec("waits", "train_11", max_steps=40))
    cluster.kill_controller()
    started = asyncio.create_task(launcher.started("train_11", 1, no_word))
    # when the controller comes back it knows nothing of the job, and somebody else gets its id
    cluster.start_controller()
    cluster.await_nodes()
    assert all(name != reference.name for name, _, _ in cluster.rows().values())
    others = [cluster.run("sbatch", "--parsable", "-o", "none", script="#!/bin/sh\nsleep 60\n").strip()]
    while int(others[-1]) < reference.slurm_id:
        others.append(cluster.run("sbatch", "--parsable", "-o", "none", script="#!/bin/sh\nsleep 60\n").strip())
    assert str(reference.slurm_id) in others
    # then the attempt runs all the same, once, and who has its id is left alone
    assert await started
    await launcher.wait("train_11", 1)
    assert (await launcher.ending("train_11", 1)).cause is None
    assert site.steps("train_11") == list(range(1, 41))
    assert cluster.rows()[str(reference.slurm_id)][1] in {"RUNNING", "PENDING"}
    cluster.cancel_all()


async def test_a_forgotten_job_that_is_not_taken_again_fails_with_slurms_words(
    site: SlurmSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "_FORGOTTEN_SECONDS", 0.5)
    first = site.launcher(PATH=program(tmp_path, "sbatch", "echo 7"))
    reference = await first.submit(site.spec("completes", "train_16"))
    words = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified"
    launcher = site.launcher(PATH=program(tmp_path, "sbatch", f'echo "{words}" >&2; exit 1'))
    launcher.know("train_16", 1, reference)
    assert not await launcher.started("train_16", 1, no_word)
    await launcher.wait("train_16", 1)
    ending = await launcher.ending("train_16", 1)
    assert ending.cause is not None
    assert ending.cause.kind == "LaunchFailed"
    assert "Invalid account" in ending.cause.message
    assert (site.layout.attempt("train_16", 1) / "revoked").exists()


async def test_a_running_job_that_the_controller_forgets_goes_on_until_it_is_ended_and_loses_no_step(
    site: SlurmSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "_UNSEEN_SECONDS", 3.0)
    cluster, launcher = site.cluster, site.launcher()
    reference = await launcher.submit(site.spec("waits", "train_12", max_steps=100_000))
    assert await launcher.started("train_12", 1, no_word)
    cluster.kill_controller()
    gone = asyncio.create_task(launcher.wait("train_12", 1))
    said = len(site.steps("train_12"))
    await until(lambda: len(site.steps("train_12")) > said + 50)
    assert not gone.done()
    cluster.start_controller()
    cluster.await_nodes(2)
    if any(name == reference.name for name, _, _ in cluster.rows().values()):  # it was saved in time
        await launcher.stop("train_12", 1)
    await gone
    steps = site.steps("train_12")
    assert steps == list(range(1, len(steps) + 1))
    await asyncio.sleep(0.3)
    assert site.steps("train_12") == steps
    cluster.resume_nodes()


async def test_a_submission_that_outlives_its_server_begins_nothing_beside_the_next_attempt(
    site: SlurmSite, tmp_path: Path
) -> None:
    path = program(tmp_path, "sbatch", f'cat > "{tmp_path}/late.sh"; exec sleep 60')
    submitting = asyncio.create_task(site.launcher(PATH=path).submit(site.spec("waits", "train_13", max_steps=100_000)))
    late = tmp_path / "late.sh"
    await until(lambda: late.exists() and late.read_text().endswith("attempt-1\n"))
    submitting.cancel()
    await asyncio.gather(submitting, return_exceptions=True)
    # the next server looks before that sbatch gets its job through
    launcher = site.launcher()
    assert await launcher.find("train_13", 1) is None
    await Slurm(site.cluster.environment).submit(late.read_text())
    log = site.layout.attempt("train_13", 1) / "slurm.log"
    await until(lambda: log.exists() and "This attempt is not ours" in log.read_text())
    assert site.messages("train_13") == []
    assert not (log.parent / "claim").exists()


async def test_a_folder_that_cannot_be_read_says_nothing_of_its_attempt(site: SlurmSite) -> None:
    launcher = site.launcher()
    await launcher.submit(site.spec("completes", "train_17"))
    report = site.layout.attempt("train_17", 1) / "exit.json"
    await until(report.exists)
    report.rename(report.with_name("kept"))
    report.mkdir()  # reading it fails: EISDIR
    gone = asyncio.create_task(launcher.wait("train_17", 1))
    done, _ = await asyncio.wait({gone}, timeout=5)
    assert not done
    report.rmdir()
    report.with_name("kept").rename(report)
    await gone
    ending = await launcher.ending("train_17", 1)
    assert ending.exit is not None
    assert ending.exit.code == 0
