"""Carries out what `domain.policy` says follows from the log, and reports back what happened."""

import asyncio
import math
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import assert_never

import structlog

from modelforge.checkpoints import newest_valid
from modelforge.command_handler import CommandHandler
from modelforge.domain import dataset, job, model, policy
from modelforge.domain.causes import Cause
from modelforge.domain.machine import Machine
from modelforge.domain.messages import Actor, Command, Record, Report
from modelforge.errors import LaunchFailed, StorageFull
from modelforge.layout import Layout
from modelforge.supervisor.launcher import Launcher
from modelforge.supervisor.removal import remove_dataset_files, remove_model, remove_unfinished
from modelforge.supervisor.spool import Spool
from trainer_entry import wire

_log = structlog.get_logger()
_READ_SECONDS = 0.1
_FULL_SECONDS = 1.0
_LAST_WORD_SECONDS = 60.0
"""A trainer that has said its last word has this long to leave before it is asked to."""


class Reactor:
    """One task an effect. What it waits for, it waits for in the log or in a process: a restart loses nothing.

    `keeping`: held by whoever puts a file into the folder of datasets, until it is on record who needs it.
    """

    def __init__(
        self,
        handler: CommandHandler,
        launcher: Launcher,
        layout: Layout,
        machine: Machine,
        stalled_seconds: float,
        keeping: asyncio.Lock,
    ) -> None:
        self._handler = handler
        self._machine = machine
        self._launcher = launcher
        self._layout = layout
        self._stalled_seconds = stalled_seconds
        self._keeping = keeping
        self._tasks: set[asyncio.Task[None]] = set()
        self._shims: dict[tuple[str, int], asyncio.Future[wire.ShimReport | None]] = {}
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        """Take up what the state says was under way."""
        for effect in policy.resume(self._handler.state):
            self._begin(effect, cause=None)

    def take(self, records: Sequence[Record]) -> None:
        """Begin what follows from new records."""
        for record in records:
            for effect in policy.react(record):
                self._begin(effect, cause=record.position)

    async def close(self) -> None:
        """Leave everything as it is: trainers go on, and the next server takes them up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, effect: policy.Effect, cause: int | None) -> None:
        task = asyncio.get_running_loop().create_task(self._carry_out(effect, cause))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.tell_failure(task)

    def tell_failure(self, task: asyncio.Task[None]) -> None:
        """Let a task that failed, of the reactor or beside it, be what `failed` is waited on for."""
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)

    def _carry_out(self, effect: policy.Effect, cause: int | None) -> Coroutine[None, None, None]:
        match effect:
            case policy.Launch(job_id=job_id, attempt=attempt, resume_from=resume_from):
                return self._launch(job_id, attempt, resume_from, cause)
            case policy.Recover(job_id=job_id, attempt=attempt):
                return self._recover(job_id, attempt)
            case policy.Follow(job_id=job_id, attempt=attempt):
                return self._follow(job_id, attempt)
            case policy.Signal(job_id=job_id, attempt=attempt):
                return self._ask(job_id, attempt, self._launcher.stop)
            case policy.AskForCheckpoint(job_id=job_id, attempt=attempt):
                return self._ask(job_id, attempt, self._launcher.save_checkpoint)
            case policy.LaunchWaiting(cause=freed_by):
                return self._launch_waiting(freed_by)
            case policy.RemoveFiles(model_id=model_id, path=path):
                return self._remove_files(model_id, path)
            case policy.RemoveDatasetFiles(filename=filename, files=files):
                return self._remove_dataset_files(filename, files)
            case _:
                assert_never(effect)

    async def _launch(self, job_id: str, attempt: int, resume_from: str | None, cause: int | None) -> None:
        launched = self._handler.state.jobs[job_id]
        spec = wire.AttemptSpec(
            job=launched.spec,
            attempt=attempt,
            token=secrets.token_hex(16),
            cpu_threads=self._machine.cpu_threads,
            resume_from=resume_from,
            gpus=launched.gpus if self._machine.gpus else None,
        )
        try:
            shim = await self._launcher.launch(spec)
        except LaunchFailed as error:
            self._shim(job_id, attempt).set_result(None)
            del self._shims[job_id, attempt]
            why = Cause(kind="DiskFull" if error.disk_full else "LaunchFailed", message=str(error))
            gone = job.ReportGone(job_id=job_id, attempt=attempt, exit=None, not_launched=why)
            await self._submit(gone, "supervisor", cause)
            return
        await self._spawned(job_id, attempt, shim, cause)

    async def _recover(self, job_id: str, attempt: int) -> None:
        shim = await self._launcher.adopt(job_id, attempt)
        if shim is None:
            self._shim(job_id, attempt).set_result(None)
            del self._shims[job_id, attempt]
            await self._submit(job.Relaunch(job_id=job_id, attempt=attempt), "supervisor", None)
        else:
            await self._spawned(job_id, attempt, shim, None)

    async def _spawned(self, job_id: str, attempt: int, shim: wire.ShimReport, cause: int | None) -> None:
        report = job.ReportSpawned(job_id=job_id, attempt=attempt, shim=shim)
        await self._submit(report, "supervisor", cause)
        await self._follow(job_id, attempt)

    async def _follow(self, job_id: str, attempt: int) -> None:
        """Take in what the trainer writes until it and all its processes are gone."""
        state = self._handler.state
        shim = state.jobs[job_id].shim
        if shim is None:
            raise RuntimeError(f"{job_id} attempt {attempt} is followed before it was spawned")
        self._shim(job_id, attempt).set_result(shim)
        spool = Spool(Path(self._launcher.spool(job_id, attempt)), state.jobs[job_id].offset)
        loop = asyncio.get_running_loop()
        gone = loop.create_task(self._launcher.wait(shim))
        leave_by: float | None = None
        heard = loop.time()
        try:
            while True:
                ended = gone.done()  # before the read: what was written before the end is read after it
                batch = await asyncio.to_thread(spool.read, ended=ended)
                if batch is not None:
                    lines = job.ReportLines(
                        job_id=job_id,
                        attempt=attempt,
                        offset=batch.offset,
                        messages=batch.messages,
                        quarantined=batch.quarantined,
                    )
                    await self._submit(lines, "trainer", None)
                    heard = loop.time()
                elif ended:
                    break
                else:
                    await asyncio.wait({gone}, timeout=_READ_SECONDS)
                    if spool.was_touched():
                        heard = loop.time()
                    elif loop.time() - heard > self._stalled_seconds:
                        await self._submit(job.ReportSilence(job_id=job_id, attempt=attempt), "supervisor", None)
                        heard = loop.time()
                if leave_by is None and state.jobs[job_id].last_word is not None:
                    leave_by = loop.time() + _LAST_WORD_SECONDS
                elif leave_by is not None and loop.time() > leave_by:
                    leave_by = math.inf
                    await self._launcher.stop(shim)
            gone.result()
        finally:
            gone.cancel()
        if not isinstance(state.jobs[job_id].last_word, wire.TrainerFinished):
            await self._remove_unfinished(state.jobs[job_id].spec)
        ending = await self._launcher.ending(job_id, attempt, shim)
        checkpoint = await asyncio.to_thread(newest_valid, self._layout.checkpoints(job_id))
        report = job.ReportGone(
            job_id=job_id,
            attempt=attempt,
            exit=ending.exit,
            last_words=ending.last_words,
            rebooted=ending.rebooted,
            checkpoint=None if checkpoint is None else checkpoint.path,
        )
        await self._submit(report, "supervisor", None)
        del self._shims[job_id, attempt]

    async def _remove_unfinished(self, spec: wire.JobSpec) -> None:
        try:
            await asyncio.to_thread(remove_unfinished, spec, self._layout)
        except OSError as error:  # what is left takes room, and harms nothing
            _log.warning("unfinished_model_kept", job_id=spec.job_id, error=str(error))

    async def _ask(self, job_id: str, attempt: int, ask: Callable[[wire.ShimReport], Awaitable[None]]) -> None:
        shim = await self._shim(job_id, attempt)
        if shim is not None:
            await ask(shim)

    async def _launch_waiting(self, cause: int | None) -> None:
        await self._submit(job.LaunchNext(), "supervisor", cause)

    async def _remove_files(self, model_id: int, path: str) -> None:
        try:
            # By its name: a data directory may have been moved since.
            await asyncio.to_thread(remove_model, Path(path).name, self._layout)
        except OSError as error:
            kept = model.ReportFilesKept(model_id=model_id, reason=str(error))
            await self._submit(kept, "supervisor", None)
        else:
            await self._submit(model.ReportFilesRemoved(model_id=model_id), "supervisor", None)

    async def _remove_dataset_files(self, filename: str, files: tuple[str, ...]) -> None:
        try:
            async with self._keeping:  # or one that was put there again, and is not on record yet, would be taken
                unneeded = [file for file in files if not self._handler.state.needed.get(file)]
                await asyncio.to_thread(remove_dataset_files, unneeded, self._layout)
        except OSError as error:
            kept = dataset.ReportDatasetFilesKept(filename=filename, reason=str(error))
            await self._submit(kept, "supervisor", None)
        else:
            removed = dataset.ReportDatasetFilesRemoved(filename=filename, files=files)
            await self._submit(removed, "supervisor", None)

    async def _submit(self, message: Command | Report, actor: Actor, cause: int | None) -> None:
        """Until there is space for it: what a trainer wrote stays in its spool meanwhile."""
        while True:
            try:
                await self._handler.submit(message, actor=actor, cause=cause)
            except StorageFull:
                _log.warning("log_full", waiting=type(message).__name__)
                await asyncio.sleep(_FULL_SECONDS)
            else:
                return

    def _shim(self, job_id: str, attempt: int) -> asyncio.Future[wire.ShimReport | None]:
        """Who runs an attempt, once it is known."""
        return self._shims.setdefault((job_id, attempt), asyncio.get_running_loop().create_future())
