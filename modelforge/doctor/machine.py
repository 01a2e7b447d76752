"""This machine: its cores and memory, what the kernel allows, and what the container around it does."""

import contextlib
import ctypes
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from modelforge.doctor.finding import Finding, ok, problem, size, warning
from modelforge.machine.cgroups import Limits, limits_of, text_of
from modelforge.machine.host_memory import HostMemory, host_memory

_MEMORY_WANTED = 4_000_000_000  # torch and transformers take about 1 GB, a model of 135M with its optimizer 2 GB
_SHARED_WANTED = 256 << 20  # Docker gives 64 MiB, which two processes of a training fill at once
_FILES_WANTED = 1024  # what systems give; the server has a few for each subscriber and each attempt
_REAPED_WITHIN, _AGAIN_SECONDS = 3.0, 0.1  # some reap ended children every second or two only
_PR_GET_CHILD_SUBREAPER = 37
_STATE, _PARENT = 0, 1  # fields 3 and 4 of /proc/PID/stat, counted from the third (proc(5))


def machine_findings(root: Path = Path("/")) -> Iterator[Finding]:
    """The findings, from the files below `root`."""
    yield _cores_finding(limits_of(root))
    yield from _memory_findings(host_memory(root))
    yield from _kernel_findings()
    yield _shared_memory_finding(root / "dev" / "shm")
    yield _open_files_finding()
    yield _zombies_finding(root / "proc")


def _cores_finding(limits: Limits) -> Finding:
    allowed, all_cores = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    return ok("cores", f"{min(allowed, limits.cores):g} of {all_cores} may be used")


def _memory_findings(memory: HostMemory) -> Iterator[Finding]:
    found = f"{size(memory.available)} available of {size(memory.total)}"
    if memory.available < _MEMORY_WANTED:
        remedy = "End what uses it, or train a small model: strategy qlora, per_device_train_batch_size 1."
        yield warning("memory", found, remedy)
    else:
        yield ok("memory", found)
    has_swap = memory.swap_total > 0
    yield ok("swap", f"{size(memory.swap_free)} free of {size(memory.swap_total)}" if has_swap else "none")


def _kernel_findings() -> Iterator[Finding]:
    """Whether the kernel has what keeps trainers under control."""
    remedy = "Take Linux 5.3 or newer; in a container, a seccomp profile that allows it, as Docker's own does."
    faults = []
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        faults.append(f"pidfd_open fails: {error.strerror}")
    if ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(ctypes.c_int()), 0, 0, 0) != 0:
        faults.append("prctl knows no subreaper")
    needed = (Path("/proc/self/stat"), Path("/proc/self/environ"), Path("/proc/sys/kernel/random/boot_id"))
    faults += [f"{path} cannot be read" for path in needed if not text_of(path)]
    for fault in faults:
        yield problem("kernel", f"{fault}: trainers cannot be distinguished from other processes", remedy)
    if not faults:
        yield ok("kernel", f"{os.uname().release}: pidfd, subreaper and /proc can be used")


def _shared_memory_finding(folder: Path) -> Finding:
    remedy = "Give the container more: docker run --shm-size=1g"
    if not folder.is_dir():
        return warning("shared memory", f"{folder} does not exist: more than one process cannot train a model", remedy)
    disk = os.statvfs(folder)
    whole, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    found = f"{folder}: {size(free)} free of {size(whole)}"
    if free < _SHARED_WANTED:
        return warning("shared memory", f"{found}: too little for more than one process a training", remedy)
    return ok("shared memory", found)


def _open_files_finding() -> Finding:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = "no limit" if most == resource.RLIM_INFINITY else f"{most} for one process"
    if 0 <= most < _FILES_WANTED:
        return warning("open files", found, f"Start the server after `ulimit -n {_FILES_WANTED}`.")
    return ok("open files", found)


def _zombies_finding(proc: Path) -> Finding:
    """Whether process 1 takes leave of its children, as orphans of trainers become."""
    deadline = time.monotonic() + _REAPED_WITHIN
    lasting = _zombies(proc)
    while lasting and time.monotonic() < deadline:
        time.sleep(_AGAIN_SECONDS)
        lasting &= _zombies(proc)
    if lasting:
        found = f"process 1 does not reap its children: {len(lasting)} have ended and are still listed"
        return warning("init", found, "Give the container an init: docker run --init")
    return ok("init", "process 1 reaps its children")


def _zombies(proc: Path) -> set[int]:
    found = set()
    for folder in proc.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if (fields[_STATE], fields[_PARENT]) == ("Z", "1"):
                    found.add(int(folder.name))
    return found
