"""What an attempt's processes find set: their share of the machine, and the mark by which they are known."""

import os

from msgspec import Struct

from modelforge.machine.child_environment import child_environment
from modelforge.supervisor.processes import TOKEN_VARIABLE
from trainer_entry import wire

_TUNABLES = "GLIBC_TUNABLES"
_TRIM, _MMAP = "trim_threshold", "mmap_threshold"
_KEPT = {_TRIM: 1 << 40, _MMAP: 32 << 20}
"""Of malloc (mallopt(3)), in bytes: nothing that is freed goes back, up to the largest block that the heap may have."""
_RETURNED = {_MMAP: 1 << 20}
"""What is larger has pages of its own, and gives them back."""
_CACHES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
"""Of torch's layer over oneDNN, and of oneDNN: how many prepared computations each keeps."""
_CACHED = 64


class Share(Struct, frozen=True, kw_only=True, gc=False):
    """An attempt's share of the machine. `threads`: of each process. `all_cores`: nobody else has any.

    `gpus`: as CUDA names them; None where there are none to share. `recomputes`: activations, to save memory.
    """

    threads: int
    all_cores: bool
    gpus: tuple[str, ...] | None
    recomputes: bool = False


def share_of(spec: wire.AttemptSpec, cores: int) -> Share:
    """The share of an attempt, on a machine with so many cores."""
    parameters = spec.job.parameters
    return Share(
        threads=threads_of(spec),
        all_cores=spec.cpu_threads >= cores,
        gpus=spec.gpus,
        recomputes=bool(parameters.gradient_checkpointing),
    )


def threads_of(spec: wire.AttemptSpec) -> int:
    """Each rank's share of the threads that the job has."""
    return max(1, spec.cpu_threads // spec.job.parameters.num_processes)


def environment_of(share: Share, token: str, secrets: dict[str, str]) -> dict[str, str]:
    """The whole environment of an attempt; `secrets` name files."""
    added = {"OMP_NUM_THREADS": str(share.threads), TOKEN_VARIABLE: token} | secrets
    if not share.all_cores:
        # Threads that spin while they wait take the time of the job beside this one.
        added["OMP_WAIT_POLICY"] = "PASSIVE"
    if share.gpus is not None:
        added["CUDA_VISIBLE_DEVICES"] = ",".join(share.gpus)
        if "CUDA_VISIBLE_DEVICES" not in os.environ:  # then the driver counted them, in this order
            added["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return child_environment(**added, **_memory_settings(share))


def memory_settings(spec: wire.AttemptSpec) -> dict[str, str]:
    """For glibc and oneDNN, on the CPU.

    oneDNN prepares a product for each shape, and keeps 1024 of them by itself: where batches differ in length, a
    training grew by 0.4 to 0.9 GB that no estimate knows, by 35 MB with 64, and a step took as long. A number that the
    server's own environment has stays.

    What a step frees it needs at the next one. glibc gives back what lies at the end of its heap, and has it again page
    by page: a step took 3 to 5 % less time where it keeps that, and the training has as much at its peak.

    Where activations are computed again to save memory, what is freed goes back at once. The heap keeps holes else, of
    up to half of what a training holds; without them a step took a tenth to a third more time.

    What the server's own environment says of the heap goes before, as `GLIBC_TUNABLES` or by its older names.
    """
    return _memory_settings(share_of(spec, 0))


def _memory_settings(share: Share) -> dict[str, str]:
    if share.gpus is not None:
        return {}
    told = {name: os.environ.get(name, str(_CACHED)) for name in _CACHES}
    own: set[str] = set()
    if _TUNABLES in os.environ:
        told[_TUNABLES] = os.environ[_TUNABLES]
        own = {setting.partition("=")[0] for setting in told[_TUNABLES].split(":")}
    for name, limit in (_RETURNED if share.recomputes else _KEPT).items():
        variable = f"MALLOC_{name.upper()}_"
        if f"glibc.malloc.{name}" not in own:
            told[variable] = os.environ.get(variable, str(limit))
    return told
