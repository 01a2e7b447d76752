"""Slurm's commands, asked of a real cluster: what they answer, and how they fail."""

import asyncio
import errno
import os
from pathlib import Path

import pytest
from support.slurm_cluster import SlurmCluster
from support.slurm_site import program, until

from modelforge.supervisor.slurm.commands import (
    Slurm,
    SlurmError,
    SlurmMissing,
    SlurmRefused,
    SlurmTakesNone,
    SlurmUnclear,
    SlurmUnreachable,
    missing_programs,
)
from modelforge.supervisor.slurm.start import partitions_of
from modelforge.supervisor.slurm.states import end_message, job_state, waiting_reason


async def test_a_submitted_job_is_seen_by_its_name_and_can_be_cancelled(cluster: SlurmCluster) -> None:
    slurm = Slurm(cluster.environment)
    held = await slurm.submit("#!/bin/sh\n#SBATCH --job-name=held --hold --output=none\nsleep 60\n")
    row = {one.job_id: one for one in await slurm.jobs()}[held]
    assert (row.name, row.state.phase) == ("held", "waiting")
    await slurm.cancel("held", only_waiting=True)
    row = {one.job_id: one for one in await slurm.jobs()}[held]
    assert (row.state.phase, row.state.cause) == ("over", "Cancelled")
    # and again changes nothing, as of a job that never was
    await slurm.cancel("held", only_waiting=True)
    await slurm.signal("nobody")


async def test_jobs_are_cancelled_of_the_user_that_the_server_runs_as(
    cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = Slurm(cluster.environment)
    held = await slurm.submit("#!/bin/sh\n#SBATCH --job-name=ours --hold --output=none\nsleep 60\n")
    monkeypatch.setenv("LOGNAME", "nobody")  # which speaks for another one
    await slurm.cancel("ours")
    assert {one.job_id: one for one in await slurm.jobs()}[held].state.cause == "Cancelled"


async def test_a_cluster_says_what_it_is_called(cluster: SlurmCluster) -> None:
    assert await Slurm(cluster.environment).cluster_name() == "tests"


async def test_what_slurm_refuses_is_said_in_its_words(cluster: SlurmCluster) -> None:
    with pytest.raises(SlurmRefused, match="invalid partition specified: nowhere"):
        await Slurm(cluster.environment).submit("#!/bin/sh\n#SBATCH --partition=nowhere\ntrue\n")


_SLEEPING = "Slurm temporarily unable to accept job, sleeping and retrying"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Batch job submission failed: Connection reset by peer", SlurmUnreachable),
        ("Batch job submission failed: Message receive failure", SlurmUnreachable),
        ("Batch job submission failed: Unspecified error", SlurmUnclear),
        ("Batch job submission failed: Invalid authentication credential", SlurmUnclear),
        ("", SlurmUnclear),
        ("Batch job submission failed: Requested node configuration is not available", SlurmRefused),
        (
            "QOSMaxWallDurationPerJobLimit\nBatch job submission failed: Job violates accounting/QOS policy",
            SlurmRefused,
        ),
        ("AssocMaxSubmitJobLimit\nBatch job submission failed: Job violates accounting/QOS policy", SlurmTakesNone),
        ("Batch job submission failed: Job violates accounting/QOS policy (job submit limit)", SlurmTakesNone),
        ("Batch job submission failed: Required partition not available (inactive or drain)", SlurmTakesNone),
        ("Batch job submission failed: Resource temporarily unavailable", SlurmTakesNone),
        (f"{_SLEEPING}\nBatch job submission failed: Invalid account", SlurmRefused),
        (f"{_SLEEPING}\nBatch job submission failed: Unable to contact slurm controller", SlurmUnreachable),
        ("unrecognized option '--nonsense'", SlurmRefused),
    ],
)
async def test_only_words_that_are_known_for_a_no_or_for_not_now_are_one(
    tmp_path: Path, said: str, kind: type[Exception]
) -> None:
    program = tmp_path / "sbatch"
    program.write_text(f'#!/bin/sh\n[ -z "{said}" ] || echo "sbatch: error: {said}" >&2\nexit 1\n')
    program.chmod(0o700)
    with pytest.raises(SlurmError) as raised:
        await Slurm({"PATH": f"{tmp_path}:/usr/bin:/bin"}).submit("#!/bin/sh\n")
    assert type(raised.value) is kind


async def test_a_submission_without_an_id_or_an_end_of_its_own_is_in_doubt(tmp_path: Path) -> None:
    program = tmp_path / "sbatch"
    for script in ("true", "kill -9 $$"):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o700)
        with pytest.raises(SlurmUnclear):
            await Slurm({"PATH": f"{tmp_path}:/usr/bin:/bin"}).submit("#!/bin/sh\n")


async def test_a_submission_that_would_sleep_until_there_is_room_is_not_waited_for(tmp_path: Path) -> None:
    program(tmp_path, "sbatch", f'echo "sbatch: error: {_SLEEPING}" >&2; exec sleep 60')
    async with asyncio.timeout(10):
        with pytest.raises(SlurmTakesNone, match="temporarily unable to accept job"):
            await Slurm({"PATH": f"{tmp_path}:/usr/bin:/bin"}).submit("#!/bin/sh\n")


async def test_what_a_command_said_that_did_not_end_in_time_is_said_with_it(tmp_path: Path) -> None:
    program(tmp_path, "srun", 'echo "srun: job 7 queued and waiting for resources" >&2; exec sleep 60')
    with pytest.raises(SlurmUnreachable, match="did not end in 1 s: srun: job 7 queued and waiting for resources"):
        await Slurm({"PATH": f"{tmp_path}:/usr/bin:/bin"}).try_on_node([], ["true"], 1)


async def test_no_secret_of_the_servers_environment_reaches_a_job(
    cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {
        "HF_TOKEN": "hf_hidden",
        "SOME_PASSWORD": "hidden1",
        "DATABASE": "postgres://lab:hidden2@host/x",
        "https_proxy": "http://lab:hidden3@proxy:8080",
    }
    for name, value in (secrets | {"TMPDIR": "/run/login", "CUDA_VISIBLE_DEVICES": "7"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    found = tmp_path / "environ"
    script = (
        f"#!/bin/sh\n#SBATCH --output=none\nsrun sh -c 'cat /proc/$PPID/environ /proc/self/environ > {found}.new'\n"
    )
    await Slurm().submit(f"{script}mv {found}.new {found}\n")
    await until(found.exists)
    environ = found.read_text()
    assert "PATH=" in environ
    assert "https_proxy=http://proxy:8080" in environ
    assert "hidden" not in environ
    assert "/run/login" not in environ
    assert "CUDA_VISIBLE_DEVICES=7" not in environ


async def test_the_partitions_are_known_with_the_limits_of_their_nodes(cluster: SlurmCluster) -> None:
    partitions = {one.name: one for one in await Slurm(cluster.environment).partitions()}
    assert set(partitions) == {"main", "urgent"}
    main = partitions["main"]
    assert (main.nodes, main.cpus, main.memory_mib, main.gpus, main.is_up) == (3, 2, 2000, 2, True)


async def test_what_a_partition_gives_a_job_that_asks_for_no_time_is_known_and_that_it_shows_no_node(
    cluster: SlurmCluster,
) -> None:
    made = {"short": ("nodes=n1", "maxtime=1:00:00", "defaulttime=0:02:00"), "bare": ("maxtime=infinite",)}
    try:
        for name, fields in made.items():
            cluster.run("scontrol", "create", f"partitionname={name}", *fields)
        found = {one.name: one for one in await Slurm(cluster.environment).partitions()}
    finally:
        for name in made:
            cluster.run("scontrol", "delete", f"partitionname={name}")
    assert {one.name: (one.default_time, one.time_limit, one.nodes) for one in found.values()} == {
        "main": ("n/a", "1:00:00", 3),
        "urgent": ("n/a", "1:00:00", 3),
        "short": ("2:00", "1:00:00", 1),
        "bare": ("n/a", "infinite", 0),
    }


async def test_a_controller_that_is_away_is_not_asked_for_the_partitions_at_each_request(tmp_path: Path) -> None:
    program = tmp_path / "sinfo"
    program.write_text(f'#!/bin/sh\necho asked >>"{tmp_path}/asked"\necho "Connection refused" >&2\nexit 1\n')
    program.chmod(0o700)
    partitions = partitions_of(Slurm({"PATH": f"{tmp_path}:/usr/bin:/bin"}))
    assert await asyncio.gather(*(partitions() for _ in range(5))) == [None] * 5
    assert await partitions() is None
    assert (tmp_path / "asked").read_text().split() == ["asked"]


async def test_a_partition_has_what_its_largest_node_has_and_is_known_though_it_is_hidden(tmp_path: Path) -> None:
    sinfo = tmp_path / "sinfo"
    sinfo.write_text(
        """#!/bin/sh
case "$*" in *--all*--exact*) ;; *) exit 1 ;; esac
echo 'main*|up|infinite|n/a|4|8|64000|(null)'
echo 'main*|up|infinite|n/a|2|64|512000|gpu:a100:8(S:0-1)'
"""
    )
    sinfo.chmod(0o700)
    (main,) = await Slurm({"PATH": f"{tmp_path}:/bin:/usr/bin"}).partitions()
    assert (main.nodes, main.cpus, main.memory_mib, main.gpus) == (6, 64, 512_000, 8)


async def test_a_controller_that_is_away_is_unknown_and_not_an_answer(cluster: SlurmCluster, tmp_path: Path) -> None:
    away = tmp_path / "slurm.conf"
    lines = cluster.conf.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("SlurmctldPort", "MessageTimeout", "SlurmctldTimeout"))]
    away.write_text("\n".join([*kept, "SlurmctldPort=1", "MessageTimeout=1", "SlurmctldTimeout=1"]))
    with pytest.raises(SlurmUnreachable):
        await Slurm(cluster.environment | {"SLURM_CONF": str(away)}).jobs()


async def test_a_command_that_is_not_installed_is_named() -> None:
    with pytest.raises(SlurmMissing, match="squeue"):
        await Slurm({"PATH": "/nowhere"}).jobs()
    assert "sbatch" in missing_programs("/nowhere")


async def test_a_machine_without_a_process_or_a_descriptor_to_give_answers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "squeue").write_text("no program")
    with pytest.raises(SlurmUnreachable, match="could not be started"):
        await Slurm({"PATH": str(tmp_path)}).jobs()

    def none_left(_name: str) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", none_left)
    with pytest.raises(SlurmUnreachable, match="Too many open files"):
        await Slurm().jobs()


@pytest.mark.parametrize("name", ["RUNNING", "CONFIGURING", "A_STATE_OF_A_LATER_RELEASE"])
def test_a_state_that_no_release_here_knows_is_no_end(name: str) -> None:
    assert job_state(name).phase == "running"


def test_every_end_has_its_cause_and_its_words() -> None:
    causes = {job_state(name).cause for name in ("PREEMPTED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "CANCELLED")}
    assert causes == {"Preempted", "TimeLimit", "NodeFailed", "OutOfMemory", "Cancelled"}
    assert all(end_message(cause) for cause in causes if cause is not None)
    assert job_state("COMPLETED").cause is None


def test_a_reason_to_wait_is_plain_and_keeps_slurms_own() -> None:
    assert waiting_reason("Resources") == "it waits for free nodes (Slurm: Resources)"
    assert waiting_reason("PartitionTimeLimit").startswith("it asks for more time")
    assert waiting_reason("SomethingNew") == "Slurm: SomethingNew"
    assert waiting_reason("None") == ""
    assert waiting_reason("ReqNodeNotAvail, UnavailableNodes:n1").startswith("nodes that it needs are not available")
