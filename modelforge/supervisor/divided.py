"""Two launchers as one: a cluster has the trainings and evaluations, the server's machine all other work."""

from pathlib import Path

from modelforge.domain.job import LocalProcess, Reference
from modelforge.domain.scheduling import Machine, Place, is_for_cluster
from modelforge.layout import Layout
from modelforge.supervisor.launcher import Ending, Launcher, Waits
from modelforge.supervisor.patient_reads import read_whole, until_it_answers
from trainer_entry import wire


class DividedLauncher:
    """Gives each attempt to the launcher that is for it, and asks that one of it from then on."""

    def __init__(self, cluster: Launcher, local: Launcher, layout: Layout) -> None:
        self._cluster = cluster
        self._local = local
        self._layout = layout
        self._given: dict[tuple[str, int], Launcher] = {}

    def place(self, server: Machine) -> Place:
        """As the cluster says."""
        return self._cluster.place(server)

    async def submit(self, spec: wire.AttemptSpec) -> Reference:
        """Hand the attempt to the launcher of such work."""
        launcher = self._give(spec.job.job_id, spec.attempt, spec.job)
        return await launcher.submit(spec)

    async def find(self, job_id: str, attempt: int) -> Reference | None:
        """Ask the launcher that was to have it, by the spec that each writes before anything else."""
        file = self._layout.attempt(job_id, attempt) / "spec.json"
        spec = await until_it_answers(lambda: read_whole(file, wire.AttemptSpec))
        if spec is None:
            return None
        return await self._give(job_id, attempt, spec.job).find(job_id, attempt)

    def know(self, job_id: str, attempt: int, reference: Reference) -> None:
        """Tell the launcher of such references."""
        launcher = self._local if isinstance(reference, LocalProcess) else self._cluster
        self._given[job_id, attempt] = launcher
        launcher.know(job_id, attempt, reference)

    async def started(self, job_id: str, attempt: int, waits: Waits) -> bool:
        """As its launcher says."""
        return await self._given[job_id, attempt].started(job_id, attempt, waits)

    async def stop(self, job_id: str, attempt: int) -> None:
        """Through its launcher; one that has ended is of none."""
        if (launcher := self._given.get((job_id, attempt))) is not None:
            await launcher.stop(job_id, attempt)

    async def save_checkpoint(self, job_id: str, attempt: int) -> None:
        """Through its launcher; one that has ended is of none."""
        if (launcher := self._given.get((job_id, attempt))) is not None:
            await launcher.save_checkpoint(job_id, attempt)

    async def wait(self, job_id: str, attempt: int) -> None:
        """Until its launcher says so."""
        await self._given[job_id, attempt].wait(job_id, attempt)

    async def ending(self, job_id: str, attempt: int) -> Ending:
        """As its launcher says."""
        ending = await self._given[job_id, attempt].ending(job_id, attempt)
        del self._given[job_id, attempt]
        return ending

    def spool(self, job_id: str, attempt: int) -> Path:
        """Where its launcher has it."""
        return self._given[job_id, attempt].spool(job_id, attempt)

    def _give(self, job_id: str, attempt: int, spec: wire.JobSpec) -> Launcher:
        launcher = self._given[job_id, attempt] = self._cluster if is_for_cluster(spec) else self._local
        return launcher
