"""Attempts at scripted trainings, handed to a launcher on the tests' cluster without a server around it."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from modelforge.domain.scheduling import Machine, Place
from modelforge.layout import Layout
from modelforge.supervisor.slurm.commands import Slurm
from modelforge.supervisor.slurm.launcher import SlurmLauncher
from modelforge.supervisor.slurm.submission import Command
from support.attempt_files import processes_of
from support.scenario import spec
from support.scripted_command import command
from support.slurm_cluster import SlurmCluster, cluster_of_tests, missing_programs
from trainer_entry import wire

TESTS = Path(__file__).parents[1]
"""Where the scripted trainer lies: PYTHONPATH has to say so."""


class SlurmSite:
    """The cluster of tests, and the folders of attempts on it: a site of the tests that every launcher passes."""

    takes_place = True

    def __init__(self, folder: Path, cluster: SlurmCluster | None = None) -> None:
        if missing := missing_programs():
            pytest.skip(f"Slurm is not installed here: {', '.join(missing)}")
        self.cluster = cluster or cluster_of_tests()
        self.layout = Layout(folder / "shared")
        self.layout.make_folders()
        self._server = os.urandom(4).hex()

    def place(self) -> Place:
        return self.launcher().place(Machine())

    def hold(self, reason: str) -> bool:  # noqa: ARG002 - Slurm has words of its own
        self.cluster.hold_partition()
        return True

    def release(self) -> None:
        self.cluster.release_partition()

    def take_place(self, attempt: wire.AttemptSpec) -> None:  # noqa: ARG002 - all places are taken
        self.cluster.preempt_all(3)

    def kill(self, attempt: wire.AttemptSpec) -> None:
        kill_step(self.layout.attempt(attempt.job.job_id, attempt.attempt))
        for pid in processes_of(attempt.token):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        self.cluster.release_partition()
        self.cluster.cancel_all()

    def launcher(
        self, module: str = "support.scripted_trainer", command: Command = command, **environment: str
    ) -> SlurmLauncher:
        """A launcher, as a server that starts has one. `environment`: more of its commands'."""
        slurm = Slurm(self.cluster.environment | environment)
        defaults = wire.ClusterRequest(partition="main")
        return SlurmLauncher(
            self.layout,
            slurm,
            self._server,
            defaults,
            module=module,
            command=command,
            look_seconds=0.2,
        )

    def spec(
        self,
        behaviour: str,
        job_id: str,
        *,
        max_steps: int = 10,
        num_processes: int = 1,
        cluster: wire.ClusterRequest | None = None,
    ) -> wire.AttemptSpec:
        job = spec()
        job = msgspec.structs.replace(
            job,
            output_name=behaviour,
            job_id=job_id,
            output_dir=str(self.layout.models / job_id),
            checkpoint_dir=str(self.layout.checkpoints(job_id)),
            grace_seconds=20.0,
            parameters=msgspec.structs.replace(job.parameters, max_steps=max_steps, num_processes=num_processes),
            cluster=cluster,
        )
        return wire.AttemptSpec(job=job, attempt=1, token=f"token-{job_id}", cpu_threads=1)

    def messages(self, job_id: str, attempt: int = 1) -> list[wire.AnyTrainerMessage]:
        """What its trainer has said, in whole lines."""
        spool = self.layout.attempt(job_id, attempt) / "stdout.jsonl"
        lines = spool.read_bytes().split(b"\n")[:-1] if spool.exists() else []
        return [msgspec.json.decode(line, type=wire.AnyTrainerMessage) for line in lines]

    def steps(self, job_id: str, attempt: int = 1) -> list[int]:
        return [one.step for one in self.messages(job_id, attempt) if isinstance(one, wire.StepLogged)]


def kill_step(folder: Path, node: int = 0, number: signal.Signals = signal.SIGKILL) -> None:
    """A signal to what holds an attempt's processes together on a node of it."""
    words = [b"trainer_entry.cluster_step", str(folder).encode()]
    place = f"SLURM_NODEID={node}".encode()
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            is_step = process.name.isdigit() and (process / "cmdline").read_bytes().split(b"\0")[2:4] == words
            if is_step and place in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), number)


def program(folder: Path, name: str, script: str) -> str:
    """A PATH on which a command of Slurm's is a script, in which REAL is the command itself."""
    real = shutil.which(name)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n".replace("REAL", str(real)))
    (folder / name).chmod(0o700)
    return f"{folder}:{os.environ['PATH']}"


async def no_word(_reason: str) -> None:
    pass


async def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - other processes make it so
            await asyncio.sleep(0.05)
