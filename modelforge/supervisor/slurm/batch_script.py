"""The batch script of an attempt: made of checked values only, each on a line of its own that it cannot leave."""

import re
import shlex
import sys
from pathlib import Path

from trainer_entry import wire
from trainer_entry.wire.cluster import ClusterRequest

_SAFE_PATH = re.compile(r"/[A-Za-z0-9._+@/-]*")
_SAFE_NAME = re.compile(r"[A-Za-z0-9._-]+")
_LONGEST_LEAD_SECONDS = 65_535
"""Slurm takes no more."""
_LEAD_SECONDS = 60
"""Slurm sends the signal before a time limit up to a minute early or half a minute late."""


def is_safe_path(path: Path) -> bool:
    """Whether a path can stand in a batch script: Slurm reads signs of its own in it, and words end at a space."""
    return _SAFE_PATH.fullmatch(str(path)) is not None


def job_name(server: str, job_id: str, attempt: int) -> str:
    """What an attempt is called in Slurm: by it an attempt is found, whatever id the controller gave it."""
    return f"mf-{server}-{job_id}-{attempt}"


def batch_script(name: str, folder: Path, asked: ClusterRequest, grace_seconds: float) -> str:
    """The script of an attempt whose folder every node sees.

    The step is in the foreground. Slurm starts nothing again by itself; two jobs of one name never run at once.

    Raises:
        ValueError: a value is not what its place can hold; it was not checked before.
    """
    if not _SAFE_NAME.fullmatch(name) or not is_safe_path(folder):
        raise ValueError(f"{name!r} in {folder}: not for a batch script")
    asked = wire.checked_cluster_request(asked)
    nodes = asked.nodes or 1
    options: list[tuple[str, str | int | None]] = [
        ("job-name", name),
        ("no-requeue", None),
        ("dependency", "singleton"),
        ("open-mode", "append"),
        ("output", f"{folder}/slurm.log"),
        ("chdir", str(folder)),
        ("signal", f"USR2@{min(int(grace_seconds) + _LEAD_SECONDS, _LONGEST_LEAD_SECONDS)}"),
        ("nodes", nodes),
        ("ntasks-per-node", 1),
    ]
    wishes: list[tuple[str, str | int | None]] = [
        ("partition", asked.partition),
        ("account", asked.account),
        ("qos", asked.qos),
        ("time", asked.time_limit),
        ("gpus-per-node", asked.gpus_per_node or None),
        ("cpus-per-task", asked.cpus_per_node),
        ("mem", asked.memory),
        ("constraint", asked.constraint and f'"{asked.constraint}"'),
    ]
    options += [(option, value) for option, value in wishes if value is not None]
    lines = [f"#SBATCH --{option}" if value is None else f"#SBATCH --{option}={value}" for option, value in options]
    # srun of later releases takes the processors of a task from this variable, and not from the job.
    cpus = [] if asked.cpus_per_node is None else [f"export SRUN_CPUS_PER_TASK={asked.cpus_per_node}"]
    step = shlex.join(
        [
            *("srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"),
            *("--input=none", "--kill-on-bad-exit=1"),
            *(sys.executable, "-m", "trainer_entry.cluster_step", str(folder)),
        ]
    )
    return "\n".join(["#!/bin/sh", *lines, *cpus, f"exec {step}", ""])
