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
from modelforge.datasets.store import DatasetStore
from modelforge.domain import dataset, job, model, policy
from modelforge.domain.failure_causes import Cause
from modelforge.domain.messages import Actor, Command, Record, Report
from modelforge.domain.scheduling import Machine
from modelforge.errors import LaunchFailed, StorageFull
from modelforge.layout import Layout
from modelforge.supervisor.file_changes import FileChanges
from modelforge.supervisor.launcher import Launcher
from modelforge.supervisor.spool import Batch, Spool
from modelforge.supervisor.trash import remove_dataset_files, remove_model, remove_unfinished
from trainer_entry import wire

_log = structlog.get_logger()
_READ_SECONDS = 0.1
"""Between two looks at a spool where nobody tells that it was written to."""
_LOOK_SECONDS = 1.0
"""The same where somebody does: for whether the trainer lives."""
_PAUSE_SECONDS = 0.02
"""Between two reads: what is written meanwhile becomes one record."""
_FULL_SECONDS = 1.0
_LAST_WORD_SECONDS = 60.0
"""A trainer that has said its last word has this long to leave before it is asked to."""


class Reactor:
    """One task an effect. What it waits for, it waits for in the log or in a process: a restart loses nothing."""

    def __init__(
        self,
        handler: CommandHandler,
        launcher: Launcher,
        layout: Layout,
        store: DatasetStore,
        machine: Machine,
        stalled_seconds: float,
        clear_gpu: Callable[[], Awaitable[None]],
    ) -> None:
        """`clear_gpu` takes what else is on the first GPU off it."""
        self._handler = handler
        self._launcher = launcher
        self._layout = layout
        self._store = store
        self._machine = machine
        self._stalled_seconds = stalled_seconds
        self._clear_gpu = clear_gpu
        self._changes = FileChanges()
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
            for effect in policy.react(record, self._handler.state, self._machine):
                self._begin(effect, cause=record.position)

    async def close(self) -> None:
        """Leave everything as it is: trainers go on, and the next server takes them up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._changes.close()

    def _begin(self, effect: policy.Effect, cause: int | None) -> None:
        with structlog.contextvars.bound_contextvars(**_bound(effect, cause)):  # the task has them, whatever it logs
            task = asyncio.get_running_loop().create_task(self._carry_out(effect, cause))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.report_failure(task)

    def report_failure(self, task: asyncio.Task[None]) -> None:
        """Make the failure of a task, of the reactor or beside it, that of the server: it is set on `failed`."""
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)

    def _carry_out(self, effect: policy.Effect, cause: int | None) -> Coroutine[None, None, None]:
        match effect:
            case policy.Launch():
                return self._launch(effect, cause)
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

    async def _launch(self, launch: policy.Launch, cause: int | None) -> None:
        job_id, attempt = launch.spec.job_id, launch.attempt
        spec = wire.AttemptSpec(
            job=launch.spec,
            attempt=attempt,
            token=secrets.token_hex(16),
            cpu_threads=launch.cpu_threads,
            resume_from=launch.resume_from,
            gpus=launch.gpus,
        )
        if set(self._machine.gpus[:1]) & set(launch.gpus or ()):
            await self._clear_gpu()
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
        """Take in what the trainer writes until it and all its processes are gone, and report how it ended."""
        shim = self._handler.state.jobs[job_id].shim
        if shim is None:
            raise RuntimeError(f"{job_id} attempt {attempt} is followed before it was spawned")
        self._shim(job_id, attempt).set_result(shim)
        gone = asyncio.get_running_loop().create_task(self._launcher.wait(shim))
        try:
            await self._read_spool(job_id, attempt, shim, gone)
            gone.result()
        finally:
            gone.cancel()
        await self._report_gone(job_id, attempt, shim)
        del self._shims[job_id, attempt]

    async def _read_spool(self, job_id: str, attempt: int, shim: wire.ShimReport, gone: asyncio.Task[None]) -> None:
        """Report what is written to the spool, from where the log ends, until the processes are gone."""
        path = Path(self._launcher.spool(job_id, attempt))
        spool = Spool(path, self._handler.state.jobs[job_id].offset)
        clock = asyncio.get_running_loop().time
        silence = _Timer(clock, self._stalled_seconds)
        farewell: _Timer | None = None
        with self._changes.watching(path) as written:
            while True:
                written.clear()
                ended = gone.done()  # before the read: what was written before the end is read after it
                batch = await spool.next(ended=ended)
                if batch is not None:
                    await self._report_lines(job_id, attempt, batch)
                    silence.restart()
                    if not batch.more:
                        await asyncio.wait({gone}, timeout=_PAUSE_SECONDS)
                elif ended:
                    return
                else:
                    await written.wait(gone, _LOOK_SECONDS if written.tells else _READ_SECONDS)
                    await self._report_silence(job_id, attempt, spool, silence)
                if farewell is None and self._handler.state.jobs[job_id].last_word is not None:
                    farewell = _Timer(clock, _LAST_WORD_SECONDS)
                elif farewell is not None and farewell.is_over:
                    farewell.stop()
                    await self._launcher.stop(shim)

    async def _report_lines(self, job_id: str, attempt: int, batch: Batch) -> None:
        lines = job.ReportLines(
            job_id=job_id,
            attempt=attempt,
            offset=batch.offset,
            messages=batch.messages,
            quarantined=batch.quarantined,
        )
        await self._submit(lines, "trainer", None)

    async def _report_silence(self, job_id: str, attempt: int, spool: Spool, silence: "_Timer") -> None:
        if spool.was_touched():
            silence.restart()
        elif silence.is_over:
            await self._submit(job.ReportSilence(job_id=job_id, attempt=attempt), "supervisor", None)
            silence.restart()

    async def _report_gone(self, job_id: str, attempt: int, shim: wire.ShimReport) -> None:
        ended = self._handler.state.jobs[job_id]
        if not isinstance(ended.last_word, wire.TrainerFinished):
            await self._remove_unfinished(ended.spec)
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
            async with self._store.lock:  # or one that was put there again, and is not recorded yet, would be taken
                await asyncio.to_thread(remove_dataset_files, self._store.unreferenced(files), self._layout)
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


def _bound(effect: policy.Effect, cause: int | None) -> dict[str, str | int]:
    """What each line of the log about an effect has: the job, and the record that led to it."""
    job_id = effect.spec.job_id if isinstance(effect, policy.Launch) else getattr(effect, "job_id", None)
    return {name: value for name, value in (("job_id", job_id), ("position", cause)) if value is not None}


class _Timer:
    """A time that ends, by the event loop's clock."""

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._end = clock() + seconds

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return self._clock() > self._end

    def restart(self) -> None:
        """Begin anew."""
        self._end = self._clock() + self._seconds

    def stop(self) -> None:
        """Never be over any more."""
        self._end = math.inf
