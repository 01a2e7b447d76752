"""A server on a cluster: its launcher, what is checked before it starts, and what it knows of the cluster's parts."""

import asyncio
import hashlib
from pathlib import Path

from msgspec import Struct

from modelforge.layout import Layout
from modelforge.machine.cluster import Partition, Partitions
from modelforge.settings import Settings
from modelforge.supervisor.divided import DividedLauncher
from modelforge.supervisor.launcher import Launcher
from modelforge.supervisor.slurm.commands import Slurm, SlurmError
from modelforge.supervisor.slurm.launcher import LOOK_SECONDS, TRAINER, SlurmLauncher
from modelforge.supervisor.slurm.shared_root import check_cluster_settings, check_nodes, claim_shared_root
from modelforge.supervisor.slurm.submission import Command, command_of

_FRESH_SECONDS = 60.0
"""For so long the partitions are what they were."""
_AWAY_SECONDS = 15.0
"""After a controller did not answer nobody asks it for so long: each would wait for as long as it takes to find out."""


class OnCluster(Struct, frozen=True):
    """What a server has on a cluster. `launcher`: gives the cluster its jobs, and the rest to the server's machine."""

    launcher: Launcher
    partitions: Partitions
    slurm: Slurm


def on_cluster(
    settings: Settings,
    layout: Layout,
    local: Launcher,
    *,
    module: str = TRAINER,
    command: Command = command_of,
    look_seconds: float = LOOK_SECONDS,
) -> OnCluster:
    """The parts of a server whose settings name a cluster.

    Raises:
        SettingsInvalid: no job could be submitted with them.
    """
    check_cluster_settings(layout.at_nodes())
    slurm = Slurm()
    cluster = SlurmLauncher(
        layout,
        slurm,
        server_id(layout.at_nodes()),
        settings.cluster,
        module=module,
        command=command,
        look_seconds=look_seconds,
    )
    return OnCluster(DividedLauncher(cluster, local, layout), partitions_of(slurm), slurm)


async def prepare(settings: Settings, layout: Layout, slurm: Slurm) -> None:
    """Take the shared root, and see that nodes have it.

    Raises:
        SettingsInvalid: it is not this server's, or not theirs.
    """
    await asyncio.to_thread(claim_shared_root, layout)
    await check_nodes(layout, slurm, settings.cluster)


def server_id(shared: Path) -> str:
    """What the names of this server's jobs begin with: of its shared root, which no other server has."""
    return hashlib.sha256(str(shared).encode()).hexdigest()[:8]


def partitions_of(slurm: Slurm) -> Partitions:
    """What asks for the cluster's parts: once for all who ask at a time, and not each time anew."""
    ask_at = 0.0
    known: tuple[Partition, ...] = ()
    asking = asyncio.Lock()

    async def partitions() -> tuple[Partition, ...] | None:
        nonlocal ask_at, known
        clock = asyncio.get_running_loop().time
        async with asking:
            if clock() >= ask_at:
                try:
                    known = await slurm.partitions()
                    ask_at = clock() + _FRESH_SECONDS
                except SlurmError:  # who asks goes on without: Slurm itself refuses what it cannot give
                    ask_at = clock() + _AWAY_SECONDS
        return known or None

    return partitions
