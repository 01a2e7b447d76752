"""Hands attempts over to the launcher, sees each through to its end, and reports what becomes of it."""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from modelforge.checkpoints import is_whole, newest_valid
from modelforge.domain import job, policy
from modelforge.domain.failure_causes import Cause
from modelforge.errors import LaunchFailed
from modelforge.layout import Layout
from modelforge.supervisor.following import Following
from modelforge.supervisor.launcher import Launcher
from modelforge.supervisor.patient_reads import until_it_answers
from modelforge.supervisor.reporting import Reporting
from modelforge.supervisor.trash import remove_unfinished
from trainer_entry import wire

_log = structlog.get_logger()
_LATE_SECONDS = 60.0
"""So much later at most a shared root shows what a trainer saved as it ended."""
_LOOK_SECONDS = 0.25
_LEFT_NO_TRACE = Cause(
    kind="NodeFailed", message="The trainer had started, and its folder has nothing of it any more, nor how it ended."
)


class Attempts:
    """The attempts of jobs, each in the caller's task."""

    def __init__(self, reporting: Reporting, launcher: Launcher, layout: Layout, following: Following) -> None:
        self._reporting = reporting
        self._launcher = launcher
        self._layout = layout
        self._following = following
        self._known: dict[tuple[str, int], asyncio.Future[bool]] = {}

    async def launch(self, launch: policy.Launch, cause: int | None) -> None:
        """Hand an attempt over that the log has as launching, and see it through."""
        job_id, attempt = launch.spec.job_id, launch.attempt
        spec = wire.AttemptSpec(
            job=launch.spec,
            attempt=attempt,
            token=secrets.token_hex(16),
            cpu_threads=launch.cpu_threads,
            resume_from=launch.resume_from,
            gpus=launch.gpus,
        )
        try:
            reference = await self._launcher.submit(spec)
        except LaunchFailed as error:
            self._is_none(job_id, attempt)
            why = Cause(kind="DiskFull" if error.disk_full else "LaunchFailed", message=str(error))
            gone = job.ReportGone(job_id=job_id, attempt=attempt, exit=None, cause=why)
            await self._reporting.submit(gone, cause=cause)
            return
        await self._submitted(job_id, attempt, reference, cause)

    async def recover(self, job_id: str, attempt: int) -> None:
        """Find out what became of an attempt that an earlier server was about to hand over."""
        reference = await self._launcher.find(job_id, attempt)
        if reference is None:
            self._is_none(job_id, attempt)
            await self._reporting.submit(job.Relaunch(job_id=job_id, attempt=attempt))
        else:
            await self._submitted(job_id, attempt, reference, None)

    async def take_up(self, job_id: str, attempt: int) -> None:
        """See an attempt through that an earlier server handed over."""
        reference = self._reporting.state.jobs[job_id].reference
        if reference is None:
            raise RuntimeError(f"{job_id} attempt {attempt} is followed before it was handed over")
        self._launcher.know(job_id, attempt, reference)
        await self._see_through(job_id, attempt)

    async def stop(self, job_id: str, attempt: int) -> None:
        """Ask an attempt to end, once it is known."""
        await self._ask(job_id, attempt, self._launcher.stop)

    async def save_checkpoint(self, job_id: str, attempt: int) -> None:
        """Ask an attempt for a checkpoint, once it is known."""
        await self._ask(job_id, attempt, self._launcher.save_checkpoint)

    async def _submitted(self, job_id: str, attempt: int, reference: job.Reference, cause: int | None) -> None:
        report = job.ReportSubmitted(job_id=job_id, attempt=attempt, reference=reference)
        await self._reporting.submit(report, cause=cause)
        await self._see_through(job_id, attempt)

    async def _see_through(self, job_id: str, attempt: int) -> None:
        """Wait for the start, take in what the trainer writes, and report how it ended."""
        self._is_known(job_id, attempt).set_result(True)
        if not self._reporting.state.jobs[job_id].spawned:
            await self._await_start(job_id, attempt)
        await self._following.follow(job_id, attempt)
        await self._report_gone(job_id, attempt)
        del self._known[job_id, attempt]

    async def _await_start(self, job_id: str, attempt: int) -> None:
        async def waits(reason: str) -> None:
            await self._reporting.submit(job.ReportWaits(job_id=job_id, attempt=attempt, reason=reason))

        if await self._launcher.started(job_id, attempt, waits):
            await self._reporting.submit(job.ReportSpawned(job_id=job_id, attempt=attempt))

    async def _report_gone(self, job_id: str, attempt: int) -> None:
        ended = self._reporting.state.jobs[job_id]
        if not isinstance(ended.last_word, wire.TrainerFinished):
            await self._remove_unfinished(ended.spec)
        ending = await self._launcher.ending(job_id, attempt)
        await self._await_saved(ended.last_word)
        checkpoint = await until_it_answers(lambda: newest_valid(self._layout.checkpoints(job_id)))
        report = job.ReportGone(
            job_id=job_id,
            attempt=attempt,
            exit=ending.exit,
            last_words=ending.last_words,
            cause=_LEFT_NO_TRACE if ended.spawned and _denies_start(ending.cause) else ending.cause,
            checkpoint=None if checkpoint is None else checkpoint.path,
        )
        await self._reporting.submit(report)

    async def _await_saved(self, last_word: job.LastWord | None) -> None:
        """Wait for what the trainer saved last: who goes on from it, or uses it, may do so at once."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + (0 if self._layout.shared is None else _LATE_SECONDS)
        while True:
            if clock() >= deadline or await until_it_answers(lambda: _is_seen(last_word)):
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _remove_unfinished(self, spec: wire.JobSpec) -> None:
        try:
            await asyncio.to_thread(remove_unfinished, spec, self._layout)
        except OSError as error:  # what is left takes room, and harms nothing
            _log.warning("unfinished_model_kept", job_id=spec.job_id, error=str(error))

    async def _ask(self, job_id: str, attempt: int, ask: Callable[[str, int], Awaitable[None]]) -> None:
        if await self._is_known(job_id, attempt):
            await ask(job_id, attempt)

    def _is_known(self, job_id: str, attempt: int) -> asyncio.Future[bool]:
        """Whether there is such an attempt to be asked, once that is certain."""
        return self._known.setdefault((job_id, attempt), asyncio.get_running_loop().create_future())

    def _is_none(self, job_id: str, attempt: int) -> None:
        """Who waits to ask it something need not."""
        self._is_known(job_id, attempt).set_result(False)
        del self._known[job_id, attempt]


def _denies_start(cause: Cause | None) -> bool:
    return cause is not None and cause.kind == "LaunchFailed"


def _is_seen(last_word: job.LastWord | None) -> bool:
    match last_word:
        case wire.TrainerStopped(checkpoint=str() as checkpoint):
            return is_whole(Path(checkpoint))
        case wire.TrainerFinished(model=wire.SavedModel(path=path, size_bytes=size)):
            with contextlib.suppress(FileNotFoundError):
                return sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file()) >= size
            return False
        case _:
            return True
