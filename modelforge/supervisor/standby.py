"""A trainer that is started ahead of the next attempt, and waits for it with its libraries imported.

It is started by a shim, through `accelerate launch`, with a token, as any attempt is, and serves once: the attempt that
it is given takes over that token. It holds one end of a socket of this server, and ends with that. Where it does not
fit, or does not answer, the attempt is started in the ordinary way.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

import msgspec
import structlog

from modelforge.domain.scheduling import Machine
from modelforge.domain.state import State
from modelforge.errors import TrainersMissing
from modelforge.layout import Layout
from modelforge.machine.devices import cpu_count
from modelforge.machine.host_memory import AHEAD_BYTES, host_memory
from modelforge.machine.software_state import software_state
from modelforge.machine.trainer_libraries import check_trainer_libraries
from modelforge.supervisor.attempt_environment import Share, environment_of
from modelforge.supervisor.processes import private_bytes
from modelforge.supervisor.waiting_trainer import WaitingTrainer
from trainer_entry import wire

_log = structlog.get_logger()
TRAINER = "trainer_entry.train"
"""The module that every rank of a training runs."""
_QUIET_SECONDS = 1.0
"""How long nothing starts or ends before one is started: it takes a processor for some seconds."""
_IMPORT_SECONDS = 120.0

Needs = Callable[[wire.JobSpec], Awaitable[int | None]]
"""The bytes of the machine's memory that a job takes at its peak; None where that is not known."""
Command = Callable[[int], list[str]]
"""What a trainer is started by that stands by, with so many threads."""


class Standby:
    """Keeps one trainer ready while there is room for a job, and hands it to the next attempt."""

    def __init__(
        self,
        layout: Layout,
        command: Command,
        module: str = TRAINER,
        warmed: Callable[[], None] = lambda: None,
        *,
        meanwhile: Callable[[], Coroutine[None, None, None]] | None = None,
        keeps_one: bool = True,
        needs: Needs | None = None,
    ) -> None:
        """`module`: what the trainer runs. `needs`: of a job beside it.

        `meanwhile` is called when one was started, and `warmed` when it is ready.
        """
        self._warmed = warmed
        self._meanwhile = meanwhile
        self._layout = layout
        self._module = module
        self._machine = Machine()
        self._command = command
        self._keeps_one = keeps_one
        self._needs = needs
        self._beside: tuple[tuple[wire.JobSpec, int], ...] = ()
        self._cores = cpu_count()
        self._current: WaitingTrainer | None = None
        self._starting: asyncio.Task[None] | None = None
        self._is_launching = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_open = False
        self._wanted = False
        self._gpus: tuple[str, ...] | None = None

    def open(self, machine: Machine, state: State) -> None:
        """From now on, keep one."""
        self._machine = machine
        self._is_open = self._keeps_one
        self.follow(state)

    def follow(self, state: State) -> None:
        """See whether there is room for a job, and none of those that run is still starting; to be called often."""
        if not self._is_open:
            return
        running = [state.jobs[job_id] for job_id in state.running]
        free = [gpu for gpu in self._machine.gpus if not any(gpu in job.gpus for job in running)]
        has_room = len(running) < self._machine.slots and (bool(free) or not self._machine.gpus)
        quiet = not state.waiting and all(job.status == "training" for job in running)
        self._gpus = tuple(free[:1]) if self._machine.gpus else None
        self._beside = tuple((job.spec, job.attempt) for job in running)
        wanted = has_room and quiet
        if wanted and not self._wanted and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_QUIET_SECONDS, self._begin)
        elif not wanted and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wanted = wanted

    def spare_bytes(self) -> int:
        """The memory that comes free once the trainer is used, or ended. Blocks for a moment."""
        waiting = self._current
        return 0 if waiting is None else private_bytes(waiting.token)

    async def hand_over(
        self,
        spec: wire.AttemptSpec,
        share: Share,
        folder: Path,
        write: Callable[[wire.AttemptSpec], dict[str, str]],
    ) -> wire.ShimReport | None:
        """Give an attempt to the trainer that stands by; None where there is none, or it cannot have it.

        `write` writes the attempt's files, and gives the variables that name those with secrets. One that cannot have
        the attempt is ended: its memory is free for whoever has.

        Raises:
            LaunchFailed: there is no room on the disk.
            OSError: the attempt's files cannot be written.
        """
        await self._settle()
        waiting, self._current = self._current, None
        self._wanted = False
        if waiting is None:
            return None
        try:
            fits = await asyncio.to_thread(self._suits, waiting, spec)
            spec = msgspec.structs.replace(spec, token=waiting.token)
            named = await asyncio.to_thread(write, spec) if fits else {}
        except BaseException:
            await waiting.end()
            raise
        if not fits:
            await waiting.end()
            return None
        given = asyncio.ensure_future(waiting.give(spec, folder, environment_of(share, spec.token, named)))
        try:
            return await asyncio.shield(given)
        except asyncio.CancelledError:
            await given  # it is a moment, and afterwards it is clear whose the attempt is
            raise

    def _suits(self, waiting: WaitingTrainer, spec: wire.AttemptSpec) -> bool:
        return (
            spec.job.work is None
            and spec.job.parameters.num_processes == 1
            and (waiting.is_warm or time.monotonic() - waiting.began < _IMPORT_SECONDS)
            and waiting.software == software_state()
        )

    async def close(self) -> None:
        """End the trainer, if one stands by."""
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
        await self._settle()
        waiting, self._current = self._current, None
        if waiting is not None:
            await waiting.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self) -> None:
        self._timer = None
        if self._current is None and self._starting is None and self._is_open:
            self._starting = asyncio.get_running_loop().create_task(self._start())
            self._starting.add_done_callback(self._started)

    async def _settle(self) -> None:
        """Wait for one that is being launched. Where memory is still reckoned, which the hub may delay, none is."""
        if self._starting is None:
            return
        if not self._is_launching:
            self._starting.cancel()
        await asyncio.gather(self._starting, return_exceptions=True)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting, self._is_launching = None, False
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("standby_not_started", error=str(error))

    async def _start(self) -> None:
        try:
            await asyncio.to_thread(check_trainer_libraries)
        except TrainersMissing:
            return
        left_for_others = await self._bytes_to_come()
        if (await asyncio.to_thread(host_memory)).available < AHEAD_BYTES + left_for_others:
            _log.info("no_memory_to_stand_by", left_for_others=left_for_others)
            return
        token = secrets.token_hex(16)
        share = Share(
            threads=self._machine.cpu_threads,
            all_cores=self._machine.cpu_threads >= self._cores,
            gpus=self._gpus,
        )
        environment = environment_of(share, token, {})
        software = await asyncio.to_thread(software_state)
        command = [self._module, *self._command(share.threads)]
        folder = self._layout.standby / token
        self._is_launching = True
        waiting = self._current = await WaitingTrainer.start(token, folder, environment, software, command)
        self._keep(self._attend(waiting))
        if self._meanwhile is not None:
            self._keep(self._meanwhile())

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        """Do something beside, until the end."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bytes_to_come(self) -> int:
        """The memory that the jobs beside it were estimated to take, and do not hold yet."""
        to_come = 0
        for spec, attempt in self._beside:
            needed = None if self._needs is None else await self._needs(spec)
            if needed is not None:
                held = await asyncio.to_thread(_held_bytes, self._layout.attempt(spec.job_id, attempt))
                to_come += max(0, needed - held)
        return to_come

    async def _attend(self, waiting: WaitingTrainer) -> None:
        """Hear the trainer, and clear up after one that ends by itself, or whose imports hang."""
        hears = asyncio.ensure_future(waiting.listen(self._warmed))
        try:
            await asyncio.wait({hears}, timeout=_IMPORT_SECONDS)
            if waiting.is_warm or self._current is not waiting:  # then an order is under way
                await hears
        finally:
            hears.cancel()
        if self._current is waiting:
            self._current = None
            words = await asyncio.to_thread(waiting.last_words)
            await waiting.end()
            _log.warning("standby_ended", warm=waiting.is_warm, last_words=words)


def _held_bytes(attempt: Path) -> int:
    """The memory that the processes of an attempt have for themselves, by its folder."""
    try:
        spec = msgspec.json.decode((attempt / "spec.json").read_bytes(), type=wire.AttemptSpec)
    except OSError:  # it runs elsewhere
        return 0
    return private_bytes(spec.token)
