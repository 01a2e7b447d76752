"""What an attempt's processes find set: their share of the machine, and the mark by which they are known."""

import os

from msgspec import Struct

from modelforge.machine.child_environment import child_environment
from modelforge.supervisor.processes import TOKEN_VARIABLE
from trainer_entry import wire

_RETURNED_BYTES = 1 << 20
_TUNABLES, _HUGE_PAGES, _RETURNED = "GLIBC_TUNABLES", "glibc.malloc.hugetlb", "glibc.malloc.mmap_threshold"
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

    The heap of glibc asks for huge pages, which the kernel gives where it is set to `madvise`: a step touches all
    weights and activations, and took 1 to 7 % less time where these are in pages of 2 MiB. Tunables of the server's own
    environment go before. The limits of malloc are left alone: to set one of them holds the others, which follow
    what a program frees, at 128 KiB.

    Where activations are computed again to save memory, what is freed goes back at once. The heap keeps holes else, of
    up to half of what a training holds; without them a step took a tenth to a third more time.
    """
    return _memory_settings(share_of(spec, 0))


def _memory_settings(share: Share) -> dict[str, str]:
    if share.gpus is not None:
        return {}
    told = {name: os.environ.get(name, str(_CACHED)) for name in _CACHES}
    own = [setting for setting in os.environ.get(_TUNABLES, "").split(":") if setting]
    named = {setting.partition("=")[0] for setting in own}
    if share.recomputes and _RETURNED not in named:
        told["MALLOC_MMAP_THRESHOLD_"] = str(_RETURNED_BYTES)
    if not share.recomputes and _HUGE_PAGES not in named:
        own.append(f"{_HUGE_PAGES}=1")
    return told | ({_TUNABLES: ":".join(own)} if own else {})
