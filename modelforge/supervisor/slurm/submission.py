"""The files of an attempt that a cluster is to run: what its step does, in which environment, and the batch script."""

import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from modelforge.machine.hub_secrets import write_secrets
from modelforge.owner_files import write_owner_file
from modelforge.supervisor.attempt_environment import environment_of, share_of
from modelforge.supervisor.slurm.batch_script import batch_script
from modelforge.supervisor.slurm.commands import OF_THE_NODE
from trainer_entry import wire

Command = Callable[[wire.AttemptSpec, str, Path, int], list[str]]
"""What a node runs for an attempt: its module, in its folder, on so many nodes."""

_EVALUATE = "trainer_entry.evaluate"
_DEAF = "SIGINT,SIGHUP,SIGQUIT"
"""What torchrun hears: not SIGTERM, which Slurm sends to every process, and after which it gives ranks 30 s."""


def write_submission(
    folder: Path, spec: wire.AttemptSpec, name: str, asked: wire.ClusterRequest, module: str, command: Command
) -> str:
    """Write what the step reads, for its owner only; the batch script.

    Raises:
        OSError: there is no room, or the folder cannot be written.
    """
    nodes = asked.nodes or 1
    spec = msgspec.structs.replace(spec, gpus=None, cpu_threads=(asked.cpus_per_node or 1) * nodes)
    module = _EVALUATE if spec.job.work is not None else module
    step = {
        "command": command(spec, module, folder, nodes),
        "module": module,
        "grace_seconds": spec.job.grace_seconds,
        "nodes": nodes,
    }
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    script = batch_script(name, folder, asked, spec.job.grace_seconds)
    secrets = write_secrets(folder, spec.job)
    environment = environment_of(share_of(spec, cores=0), spec.token, secrets)
    environment = {name: value for name, value in environment.items() if name not in OF_THE_NODE}
    if not asked.gpus_per_node:  # those of a node that shows all that it has are somebody else's
        environment["CUDA_VISIBLE_DEVICES"] = ""
    environment |= {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO"}
    write_owner_file(folder / "environment.json", msgspec.json.encode(environment))
    write_owner_file(folder / "step.json", msgspec.json.encode(step))
    write_owner_file(folder / "job.sh", script.encode())
    # Last: an attempt whose spec is there may have been submitted.
    write_owner_file(folder / "spec.json", msgspec.json.format(msgspec.json.encode(spec)))
    return script


def command_of(spec: wire.AttemptSpec, module: str, folder: Path, nodes: int) -> list[str]:
    """What a node runs: one process by itself, or its share of several by torchrun, which meet on the first node."""
    processes = 1 if spec.job.work is not None else spec.job.parameters.num_processes
    if processes == 1:
        return [sys.executable, "-m", module, str(folder)]
    return [
        *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}", f"--nproc-per-node={processes // nodes}"),
        *("--node-rank", "{node}", "--master-addr", "{host}", "--master-port", "{port}"),
        *("--signals-to-handle", _DEAF),
        *("-m", module, str(folder)),
    ]
