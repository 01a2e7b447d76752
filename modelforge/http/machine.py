"""The machine: what it has, who uses it, and what the doctor finds wrong with it."""

import asyncio
import os
import platform
import shutil
from importlib import metadata
from typing import Literal

import msgspec
from aiohttp import web
from msgspec import Struct

from modelforge.http.plumbing.body import json_response
from modelforge.http.plumbing.keys import LAYOUT, PROJECTOR, SETTINGS
from modelforge.http.plumbing.own_command import run_command
from modelforge.http.plumbing.route import Route
from modelforge.layout import Layout
from modelforge.machine.devices import Gpu, cpu_count, gpus
from modelforge.machine.disk_space import reserve_on
from modelforge.machine.host_memory import host_memory
from modelforge.version import VERSION

_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "unsloth")


class Processors(Struct, frozen=True, kw_only=True):
    """`usable`: those that the server and its trainers may use, of `total`."""

    usable: int
    total: int


class Room(Struct, frozen=True, kw_only=True):
    """Bytes."""

    total_bytes: int
    available_bytes: int


class Disk(Room, frozen=True, kw_only=True):
    """Of the data directory. `reserved_bytes` stay free for log and checkpoints; `log_bytes`: the log with its WAL."""

    reserved_bytes: int
    log_bytes: int


class UsedGpu(Struct, frozen=True, kw_only=True):
    """A GPU that trainings may use, and the jobs that have it. `memory` is null where its driver does not tell."""

    name: str
    product: str | None
    memory: Room | None
    job_ids: list[str]


class Work(Struct, frozen=True, kw_only=True):
    """Jobs: those that run, how many may at once, and how many wait."""

    running: list[str]
    at_once: int
    queued: int


class MachineDetails(Struct, frozen=True, kw_only=True):
    """What the machine has now. `swap` is null where there is none; `versions` has what is installed of a training."""

    processors: Processors
    memory: Room
    swap: Room | None
    gpus: list[UsedGpu]
    disk: Disk
    work: Work
    release: str
    python: str
    platform: str
    versions: dict[str, str]


class MachineFinding(Struct, frozen=True, kw_only=True):
    """What was found of a subject. `remedy`: what to do; only what is ok has none."""

    subject: str
    level: Literal["ok", "warning", "problem"]
    found: str
    remedy: str


class Examination(Struct, frozen=True, kw_only=True):
    """What the doctor found, in the order in which it looked."""

    findings: list[MachineFinding]


class _Measured(Struct, frozen=True, kw_only=True):
    """What has to be asked of the system."""

    memory: Room
    swap: Room | None
    gpus: tuple[Gpu, ...]
    disk: Disk
    versions: dict[str, str]


async def get_machine(request: web.Request) -> web.Response:
    """Processors, memory, GPUs and who has them, the disk, versions, and how many jobs run and wait."""
    settings, read_models = request.app[SETTINGS], request.app[PROJECTOR].read_models
    measured = await asyncio.to_thread(_measure, request.app[LAYOUT], settings.reserve_disk_bytes)
    begun = [read_models.jobs[job_id] for job_id in read_models.queue.running]
    running = [details for details in begun if details.status != "queued"]  # those that wait on a cluster are others
    used = [
        _used(gpu, [details.job_id or "" for details in running if gpu.name in details.gpus]) for gpu in measured.gpus
    ]
    return json_response(
        MachineDetails(
            processors=Processors(usable=cpu_count(), total=os.cpu_count() or 1),
            memory=measured.memory,
            swap=measured.swap,
            gpus=used,
            disk=measured.disk,
            work=Work(
                running=[details.job_id or "" for details in running],
                at_once=settings.max_concurrent_jobs,
                queued=len(read_models.queue.waiting) + len(begun) - len(running),
            ),
            release=VERSION,
            python=platform.python_version(),
            platform=platform.platform(),
            versions=measured.versions,
        )
    )


def _measure(layout: Layout, reserve: int) -> _Measured:
    memory, disk = host_memory(), shutil.disk_usage(layout.root)
    wal = layout.log.with_name(f"{layout.log.name}-wal")
    return _Measured(
        memory=Room(total_bytes=memory.total, available_bytes=memory.available),
        swap=Room(total_bytes=memory.swap_total, available_bytes=memory.swap_free) if memory.swap_total else None,
        gpus=gpus(),
        disk=Disk(
            total_bytes=disk.total,
            available_bytes=disk.free,
            reserved_bytes=reserve_on(layout.root, reserve),
            log_bytes=sum(path.stat().st_size for path in (layout.log, wal) if path.exists()),
        ),
        versions={name: version for name in _LIBRARIES if (version := _version(name)) is not None},
    )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _used(gpu: Gpu, job_ids: list[str]) -> UsedGpu:
    room = None if gpu.memory is None else Room(total_bytes=gpu.memory.total, available_bytes=gpu.memory.free)
    return UsedGpu(name=gpu.name, product=gpu.product, memory=room, job_ids=job_ids)


async def examine_machine(request: web.Request) -> web.Response:
    """Have the doctor look for what is wrong with the data and this machine; nothing is changed."""
    ended = await run_command(request, "doctor")
    return json_response(Examination(findings=msgspec.json.decode(ended.output, type=list[MachineFinding])))


ROUTES = (
    Route(method="GET", path="/api/machine", handler=get_machine, answer=MachineDetails, at_once=16),
    Route(method="POST", path="/api/doctor", handler=examine_machine, answer=Examination, at_once=1),
)
