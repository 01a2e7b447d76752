"""Attempts at scripted trainings, handed to a launcher on the tests' cluster without a server around it."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from modelforge.layout import Layout
from modelforge.supervisor.slurm.commands import Slurm
from modelforge.supervisor.slurm.launcher import SlurmLauncher
from support.scenario import spec
from support.slurm_cluster import SlurmCluster
from trainer_entry import wire

TESTS = Path(__file__).parents[1]
"""Where the scripted trainer lies: PYTHONPATH has to say so."""


def command(_spec: wire.AttemptSpec, module: str, folder: Path, _nodes: int) -> list[str]:
    return [sys.executable, "-m", module, str(folder)]


class Site:
    """A launcher on a cluster, and the folders of its attempts."""

    def __init__(self, cluster: SlurmCluster, root: Path, server: str) -> None:
        self.cluster = cluster
        self.layout = Layout(root)
        self.layout.make_folders()
        self._server = server

    def make(self) -> SlurmLauncher:
        """A launcher, as a server that starts has one."""
        slurm = Slurm(self.cluster.environment)
        defaults = wire.ClusterRequest(partition="main")
        return SlurmLauncher(
            self.layout,
            slurm,
            self._server,
            defaults,
            module="support.scripted_trainer",
            command=command,
            look_seconds=0.2,
        )

    def spec(
        self, behaviour: str, job_id: str, *, max_steps: int = 10, cluster: wire.ClusterRequest | None = None
    ) -> wire.AttemptSpec:
        job = spec()
        job = msgspec.structs.replace(
            job,
            output_name=behaviour,
            job_id=job_id,
            output_dir=str(self.layout.models / job_id),
            checkpoint_dir=str(self.layout.checkpoints(job_id)),
            grace_seconds=20.0,
            parameters=msgspec.structs.replace(job.parameters, max_steps=max_steps),
            cluster=cluster,
        )
        return wire.AttemptSpec(job=job, attempt=1, token=f"token-{job_id}", cpu_threads=1)

    def messages(self, job_id: str, attempt: int = 1) -> list[wire.AnyTrainerMessage]:
        """What its trainer has said."""
        spool = self.layout.attempt(job_id, attempt) / "stdout.jsonl"
        lines = spool.read_bytes().splitlines() if spool.exists() else []
        return [msgspec.json.decode(line, type=wire.AnyTrainerMessage) for line in lines]

    def steps(self, job_id: str, attempt: int = 1) -> list[int]:
        return [one.step for one in self.messages(job_id, attempt) if isinstance(one, wire.StepLogged)]


async def no_word(_reason: str) -> None:
    pass


async def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - other processes make it so
            await asyncio.sleep(0.05)
