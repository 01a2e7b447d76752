"""Carries out what `domain.policy` says follows from the log, and reports back what happened."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import assert_never

import structlog

from modelforge.command_handler import CommandHandler
from modelforge.datasets.store import DatasetStore
from modelforge.domain import dataset, job, model, policy
from modelforge.domain.messages import Record
from modelforge.domain.scheduling import Place, server_of
from modelforge.layout import Layout
from modelforge.supervisor.attempts import Attempts
from modelforge.supervisor.following import Following
from modelforge.supervisor.launcher import Launcher
from modelforge.supervisor.reporting import Reporting
from modelforge.supervisor.trash import remove_dataset_files, remove_model


class Reactor:
    """One task an effect. What it waits for, it waits for in the log or in a process: a restart loses nothing."""

    def __init__(
        self,
        handler: CommandHandler,
        launcher: Launcher,
        layout: Layout,
        store: DatasetStore,
        place: Place,
        stalled_seconds: float,
        clear_gpu: Callable[[], Awaitable[None]],
    ) -> None:
        """`clear_gpu` takes what else is on the first GPU of the server's machine off it."""
        self._reporting = Reporting(handler)
        self._following = Following(self._reporting, launcher, stalled_seconds)
        self._attempts = Attempts(self._reporting, launcher, layout, self._following)
        self._layout = layout
        self._store = store
        self._place = place
        self._clear_gpu = clear_gpu
        self._tasks: set[asyncio.Task[None]] = set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        """Take up what the state says was under way."""
        for effect in policy.resume(self._reporting.state):
            self._begin(effect, cause=None)

    def take(self, records: Sequence[Record]) -> None:
        """Begin what follows from new records."""
        for record in records:
            for effect in policy.react(record, self._reporting.state, self._place):
                self._begin(effect, cause=record.position)

    async def close(self) -> None:
        """Leave everything as it is: trainers go on, and the next server takes them up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._following.close()

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
                return self._attempts.recover(job_id, attempt)
            case policy.Follow(job_id=job_id, attempt=attempt):
                return self._attempts.take_up(job_id, attempt)
            case policy.Signal(job_id=job_id, attempt=attempt):
                return self._attempts.stop(job_id, attempt)
            case policy.AskForCheckpoint(job_id=job_id, attempt=attempt):
                return self._attempts.save_checkpoint(job_id, attempt)
            case policy.LaunchWaiting(cause=freed_by):
                return self._reporting.submit(job.LaunchNext(), cause=freed_by)
            case policy.RemoveFiles(model_id=model_id, path=path):
                return self._remove_files(model_id, path)
            case policy.RemoveDatasetFiles(filename=filename, files=files):
                return self._remove_dataset_files(filename, files)
            case _:
                assert_never(effect)

    async def _launch(self, launch: policy.Launch, cause: int | None) -> None:
        if set(server_of(self._place).gpus[:1]) & set(launch.gpus or ()):
            await self._clear_gpu()
        await self._attempts.launch(launch, cause)

    async def _remove_files(self, model_id: int, path: str) -> None:
        try:
            # By its name: a data directory may have been moved since.
            await asyncio.to_thread(remove_model, Path(path).name, self._layout)
        except OSError as error:
            await self._reporting.submit(model.ReportFilesKept(model_id=model_id, reason=str(error)))
        else:
            await self._reporting.submit(model.ReportFilesRemoved(model_id=model_id))

    async def _remove_dataset_files(self, filename: str, files: tuple[str, ...]) -> None:
        try:
            async with self._store.lock:  # or one that was put there again, and is not recorded yet, would be taken
                await asyncio.to_thread(remove_dataset_files, self._store.unreferenced(files), self._layout)
        except OSError as error:
            await self._reporting.submit(dataset.ReportDatasetFilesKept(filename=filename, reason=str(error)))
        else:
            await self._reporting.submit(dataset.ReportDatasetFilesRemoved(filename=filename, files=files))


def _bound(effect: policy.Effect, cause: int | None) -> dict[str, str | int]:
    """What each line of the log about an effect has: the job, and the record that led to it."""
    job_id = effect.spec.job_id if isinstance(effect, policy.Launch) else getattr(effect, "job_id", None)
    return {name: value for name, value in (("job_id", job_id), ("position", cause)) if value is not None}
