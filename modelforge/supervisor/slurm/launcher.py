"""Attempts as jobs of a Slurm cluster.

An attempt is known by the name of its job, which no other has, and by the claim in its folder. Ids of jobs are only
asked for: a controller that was killed forgets jobs and gives their ids out anew. That a job is not in the queue says
nothing by itself.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import structlog

from modelforge.domain.job import Reference, SlurmJob
from modelforge.domain.scheduling import Cluster, Machine
from modelforge.errors import NO_ROOM, LaunchFailed, SettingsInvalid
from modelforge.layout import Layout
from modelforge.machine.hub_secrets import remove_secrets
from modelforge.supervisor.last_words import last_words
from modelforge.supervisor.launcher import Ending, Waits
from modelforge.supervisor.patient_reads import until_it_answers
from modelforge.supervisor.slurm.batch_script import job_name
from modelforge.supervisor.slurm.commands import JobRow, Slurm, SlurmError
from modelforge.supervisor.slurm.ends import end_cause
from modelforge.supervisor.slurm.hand_over import HandOver, claim_of_given_up
from modelforge.supervisor.slurm.life import Life
from modelforge.supervisor.slurm.queue import Queue
from modelforge.supervisor.slurm.signs import Signs, StepExit
from modelforge.supervisor.slurm.submission import Command, command_of, write_submission
from trainer_entry import wire

_log = structlog.get_logger()
TRAINER = "trainer_entry.train"
LOOK_SECONDS = 2.0
_RETRY_SECONDS = 2.0
_TELL_SECONDS = 30.0
"""Between two reasons for which one attempt waits: each is a record, and Slurm's may change at each look."""


class SlurmLauncher:
    """Runs attempts as jobs that are called after `server`, in folders that every node sees.

    `module` is what the ranks run, `command` runs it. `look_seconds`: between two looks at the queue.
    `give_up_seconds`: for how long a controller that does not answer is asked to take a job.
    """

    def __init__(
        self,
        layout: Layout,
        slurm: Slurm,
        server: str,
        defaults: wire.ClusterRequest,
        *,
        module: str = TRAINER,
        command: Command = command_of,
        look_seconds: float = LOOK_SECONDS,
        give_up_seconds: float = 600.0,
    ) -> None:
        self._layout = layout
        self._slurm = slurm
        self._server = server
        self._defaults = defaults
        self._cluster = ""
        self._module = module
        self._command = command
        self._queue = Queue(slurm, look_seconds)
        self._give_up_seconds = give_up_seconds
        self._lives: dict[tuple[str, int], Life] = {}

    def place(self, server: Machine) -> Cluster:
        """On the cluster."""
        return Cluster(server=server, cpu_threads=self._defaults.cpus_per_node or 1)

    async def submit(self, spec: wire.AttemptSpec) -> SlurmJob:
        """Write the attempt's files, and hand its job over; its id is 0 where Slurm takes none for now."""
        job_id, attempt = spec.job.job_id, spec.attempt
        folder, name = self._layout.attempt(job_id, attempt), self._name(job_id, attempt)
        asked = (spec.job.cluster or wire.ClusterRequest()).over(self._defaults)
        if spec.job.work is not None:  # it is one process
            asked = msgspec.structs.replace(asked, nodes=1)
        spec = msgspec.structs.replace(spec, tokenized=str(self._layout.tokenized))
        try:
            script = await asyncio.to_thread(write_submission, folder, spec, name, asked, self._module, self._command)
        except OSError as error:
            raise LaunchFailed(
                "The job could not be written for the cluster",
                f"{folder}: {error}",
                disk_full=error.errno in NO_ROOM,
            ) from error
        hand_over = HandOver(Signs(folder), name, self._queue, self._slurm)
        slurm_id = await hand_over.first(script, self._give_up_seconds)
        self._life(job_id, attempt, hand_over)
        return await self._reference(slurm_id, name)

    async def find(self, job_id: str, attempt: int) -> SlurmJob | None:
        """Look at the attempt's folder, and then for its name in the queue, until Slurm has answered."""
        signs, name = Signs(self._layout.attempt(job_id, attempt)), self._name(job_id, attempt)
        if await until_it_answers(lambda: signs.spec) is None:
            return None
        rows = await self._known_rows(name)
        # After the queue: a job that ended before that look has left its claim.
        claim = await until_it_answers(lambda: signs.claim)
        if not rows and claim is None:
            # The sbatch of a server that was killed may live and get its job through yet: what begins then leaves.
            claim = await claim_of_given_up(signs)
            if claim is None:
                return None
        self._life(job_id, attempt)
        return await self._reference(rows[-1].job_id if claim is None else str(claim.slurm_id), name)

    async def _known_rows(self, name: str) -> tuple[JobRow, ...]:
        """The jobs of a name, once Slurm has answered."""
        while True:
            rows = (await self._queue.look(anew=True)).of(name)
            if rows is not None:
                return rows
            await asyncio.sleep(_RETRY_SECONDS)

    def know(self, job_id: str, attempt: int, reference: Reference) -> None:
        """The job of an attempt."""
        if not isinstance(reference, SlurmJob) or reference.name != self._name(job_id, attempt):
            where = reference.name if isinstance(reference, SlurmJob) else f"process {reference.pid} of some machine"
            raise SettingsInvalid(
                "An attempt runs elsewhere",
                f"{job_id} attempt {attempt} is {where}, and this server knows its attempts by names that begin with "
                f"mf-{self._server}: start it as it was started, until that job has ended.",
            )
        self._life(job_id, attempt)

    async def started(self, job_id: str, attempt: int, waits: Waits) -> bool:
        """Until a node has claimed the attempt; what Slurm says meanwhile is told."""
        life = self._life(job_id, attempt)
        told, tell_at, clock = "", 0.0, asyncio.get_running_loop().time
        while True:
            state = await life.look()
            if life.has_begun or state == "gone":
                return life.has_begun
            reason = life.waits_for
            if reason and reason != told and clock() >= tell_at:
                told, tell_at = reason, clock() + _TELL_SECONDS
                await waits(reason)

    async def stop(self, job_id: str, attempt: int) -> None:
        """Leave word in its folder, cancel what waits, and signal what runs."""
        life = self._life(job_id, attempt)
        await until_it_answers(life.signs.ask_to_stop)
        await self._until_told(life, self._stop)

    async def _stop(self, name: str) -> None:
        await self._slurm.cancel(name, only_waiting=True)
        await self._slurm.signal(name)

    async def save_checkpoint(self, job_id: str, attempt: int) -> None:
        """Leave word in its folder, where it has begun: a signal would be lost on what is suspended."""
        signs = self._life(job_id, attempt).signs
        if await until_it_answers(lambda: signs.claim) is not None:
            await until_it_answers(signs.ask_for_checkpoint)

    async def _until_told(self, life: Life, tell: Callable[[str], Awaitable[None]]) -> None:
        """Tell the attempt something by Slurm, which may have to be asked again; one that has ended is left alone."""
        while not await until_it_answers(lambda: life.signs.exit):
            try:
                return await tell(life.name)
            except SlurmError as error:
                _log.warning("slurm_not_told", job=life.name, error=str(error))
            await asyncio.sleep(_RETRY_SECONDS)
        return None

    async def wait(self, job_id: str, attempt: int) -> None:
        """Until there is nobody who could still write: see `Life`."""
        life = self._life(job_id, attempt)
        while await life.look() != "gone":
            pass

    async def ending(self, job_id: str, attempt: int) -> Ending:
        """Read `exit.json` and the logs, and ask Slurm why it ended what did not end by itself."""
        life = self._life(job_id, attempt)
        report = await until_it_answers(lambda: life.signs.exit)
        preempted = False
        if report is not None and report.was_ended:
            with contextlib.suppress(SlurmError):  # then less is known: that somebody else ended it
                await life.settle()
                if life.last_row is not None:
                    preempted = await self._slurm.was_preempted(life.last_row.job_id, life.name)
        if life.is_in_queue:  # somebody had it put back there: it would wait, or begin and leave, for nobody
            with contextlib.suppress(SlurmError):
                await self._slurm.cancel(life.name, only_waiting=True)
        ending = await until_it_answers(lambda: _ending(life, report, preempted=preempted))
        self._lives.pop((job_id, attempt), None)
        return ending

    def spool(self, job_id: str, attempt: int) -> Path:
        """`stdout.jsonl` in the attempt's folder."""
        return self._layout.attempt(job_id, attempt) / "stdout.jsonl"

    def _name(self, job_id: str, attempt: int) -> str:
        return job_name(self._server, job_id, attempt)

    async def _reference(self, slurm_id: str, name: str) -> SlurmJob:
        if not self._cluster:
            with contextlib.suppress(SlurmError):  # for who reads it later: nothing here asks for a cluster by its name
                self._cluster = await self._slurm.cluster_name()
        return SlurmJob(slurm_id=int(slurm_id), cluster=self._cluster, name=name)

    def _life(self, job_id: str, attempt: int, hand_over: HandOver | None = None) -> Life:
        key = job_id, attempt
        if key not in self._lives:
            signs, name = Signs(self._layout.attempt(job_id, attempt)), self._name(job_id, attempt)
            handed = hand_over or HandOver(signs, name, self._queue, self._slurm)
            self._lives[key] = Life(signs, name, self._queue, self._slurm, handed)
        return self._lives[key]


def _ending(life: Life, report: StepExit | None, *, preempted: bool) -> Ending:
    folder = life.signs.folder
    words = ""
    try:
        remove_secrets(folder)
        words = last_words(folder / "stderr.log") or last_words(folder / "slurm.log")
    except OSError as error:  # no job waits for that
        _log.warning("attempt_not_tidied", job=life.name, error=str(error))
    refused = life.hand_over.cause
    if refused is not None and not life.has_begun and not life.signs.stop_was_asked:
        return Ending(exit=None, last_words=words, cause=refused)
    return Ending(
        exit=None if report is None else report.plain(),
        last_words=words,
        cause=life.given_up
        if life.given_up is not None and not life.signs.stop_was_asked
        else end_cause(
            life.last_row,
            report,
            words,
            has_begun=life.has_begun,
            was_asked=life.signs.stop_was_asked,
            preempted=preempted,
        ),
    )
