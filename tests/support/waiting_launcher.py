"""A launcher whose attempts wait, as a cluster's do: for as long as a file `held` lies in the cluster's folder.

What that says is why. It keeps what it was given in that folder, so that another server finds it. They run as processes
of this machine, and `preempt` ends one as a cluster does that needs its place.
"""

import asyncio
from pathlib import Path

import msgspec

from modelforge.domain.failure_causes import Cause
from modelforge.domain.job import LocalProcess, Reference, SlurmJob
from modelforge.domain.scheduling import Cluster, Machine
from modelforge.supervisor.launcher import Ending, Waits
from modelforge.supervisor.local import LocalLauncher
from trainer_entry import wire

_LOOK_SECONDS = 0.02
PREEMPTED = Cause(kind="Preempted", message="The cluster gave its place to another job.")


class WaitingLauncher:
    def __init__(self, local: LocalLauncher, cluster: Path) -> None:
        self._local = local
        self._cluster = cluster
        self._turn = asyncio.Lock()

    def place(self, server: Machine) -> Cluster:
        return Cluster(server=server, cpu_threads=server.cpu_threads)

    async def submit(self, spec: wire.AttemptSpec) -> SlurmJob:
        self._cluster.mkdir(parents=True, exist_ok=True)
        folder = self._local.spool(spec.job.job_id, spec.attempt).parent
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.json").write_bytes(msgspec.json.encode(spec))
        self._put(spec.job.job_id, spec.attempt, "submitted", msgspec.json.encode(spec))
        return self._reference(spec.job.job_id, spec.attempt)

    async def find(self, job_id: str, attempt: int) -> SlurmJob | None:
        return self._reference(job_id, attempt) if self._has(job_id, attempt, "submitted") else None

    def know(self, job_id: str, attempt: int, reference: Reference) -> None:
        assert reference == self._reference(job_id, attempt)

    async def started(self, job_id: str, attempt: int, waits: Waits) -> bool:
        said = None
        while True:
            async with self._turn:
                if self._has(job_id, attempt, "cancelled"):
                    return False
                if not (self._cluster / "held").exists():
                    await self._start(job_id, attempt)
                    return True
            if (reason := (self._cluster / "held").read_text()) != said:
                said = reason
                await waits(reason)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _start(self, job_id: str, attempt: int) -> LocalProcess:
        """Start an attempt, unless it was: whoever asks."""
        if (found := await self._process(job_id, attempt)) is not None:
            return found
        spec = msgspec.json.decode(self._file(job_id, attempt, "submitted").read_bytes(), type=wire.AttemptSpec)
        return await self._local.submit(spec)

    async def _process(self, job_id: str, attempt: int) -> LocalProcess | None:
        return await self._local.find(job_id, attempt)

    async def stop(self, job_id: str, attempt: int) -> None:
        async with self._turn:
            if await self._process(job_id, attempt) is not None:
                await self._local.stop(job_id, attempt)
            else:
                self._put(job_id, attempt, "cancelled", b"")

    async def save_checkpoint(self, job_id: str, attempt: int) -> None:
        if await self._process(job_id, attempt) is not None:
            await self._local.save_checkpoint(job_id, attempt)

    async def wait(self, job_id: str, attempt: int) -> None:
        if await self._process(job_id, attempt) is not None:
            await self._local.wait(job_id, attempt)

    async def ending(self, job_id: str, attempt: int) -> Ending:
        if await self._process(job_id, attempt) is None:
            return Ending(exit=None, last_words="", cause=None)
        ending = await self._local.ending(job_id, attempt)
        cause = PREEMPTED if self._has(job_id, attempt, "preempted") else ending.cause
        return msgspec.structs.replace(ending, cause=cause)

    def spool(self, job_id: str, attempt: int) -> Path:
        return self._local.spool(job_id, attempt)

    def _has(self, job_id: str, attempt: int, what: str) -> bool:
        return self._file(job_id, attempt, what).exists()

    def _put(self, job_id: str, attempt: int, what: str, content: bytes) -> None:
        partial = self._file(job_id, attempt, "partial")
        partial.write_bytes(content)
        partial.rename(self._file(job_id, attempt, what))

    def _file(self, job_id: str, attempt: int, what: str) -> Path:
        return self._cluster / f"{_name(job_id, attempt)}.{what}"

    def _reference(self, job_id: str, attempt: int) -> SlurmJob:
        return SlurmJob(slurm_id=int(job_id.rpartition("_")[2]), cluster="waiting", name=_name(job_id, attempt))


def _name(job_id: str, attempt: int) -> str:
    return f"mf-test-{job_id}-{attempt}"


def hold(cluster: Path, reason: str) -> None:
    """Have attempts wait, and say why."""
    cluster.mkdir(parents=True, exist_ok=True)
    (cluster / "reason").write_text(reason)
    (cluster / "reason").rename(cluster / "held")


def release(cluster: Path) -> None:
    """Have them start."""
    (cluster / "held").unlink()


def note_submitted(cluster: Path, job_id: str, attempt: int, spec: bytes) -> None:
    """Have an attempt as it is once it was submitted."""
    (cluster / f"{_name(job_id, attempt)}.submitted").write_bytes(spec)


def note_preempted(cluster: Path, job_id: str, attempt: int) -> None:
    """Say of what is about to be ended that its place was needed."""
    (cluster / f"{_name(job_id, attempt)}.preempted").touch()
