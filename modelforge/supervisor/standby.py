"""A trainer that is started ahead of the next attempt, and waits for it with its libraries imported.

It is started by a shim, through `accelerate launch`, with a token, as any attempt is, and serves once: the attempt that
it is given takes over that token. It holds one end of a socket of this server, and ends with that. Where it does not
fit, or does not answer, the attempt is started in the ordinary way.
"""

import asyncio
import contextlib
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from modelforge.domain.scheduling import Machine
from modelforge.domain.state import State
from modelforge.errors import NO_ROOM, LaunchFailed, TrainersMissing
from modelforge.layout import Layout
from modelforge.machine.child_limits import UNLIMITED, limit_process
from modelforge.machine.devices import cpu_count
from modelforge.machine.host_memory import AHEAD_BYTES, host_memory
from modelforge.machine.software_state import software_state
from modelforge.machine.trainer_libraries import check_trainer_libraries
from modelforge.supervisor.attempt_environment import Share, environment_of
from modelforge.supervisor.last_words import last_words
from modelforge.supervisor.processes import kill_all_with, private_bytes
from trainer_entry import wire

_log = structlog.get_logger()
TRAINER = "trainer_entry.train"
"""The module that every rank of a training runs."""
_QUIET_SECONDS = 1.0
"""How long nothing starts or ends before one is started: it takes a processor for some seconds."""
_IMPORT_SECONDS = 120.0
_ANSWER_SECONDS = 10.0
_WARM, _READY = b"warm\n", b"ready\n"
_SPOOL, _LOG = "stdout.jsonl", "stderr.log"

Command = Callable[[int], list[str]]
"""What a trainer is started by that stands by, with so many threads."""


class _Waiting:
    """A trainer that stands by. `replies`: what its shim says, b"" at its end."""

    def __init__(
        self,
        token: str,
        folder: Path,
        environment: dict[str, str],
        software: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.token = token
        self.folder = folder
        self.environment = environment
        self.software = software
        self.is_warm = False
        self.began = time.monotonic()
        self.writer = writer
        self.replies: asyncio.Queue[bytes] = asyncio.Queue()
        self._reader = reader

    async def listen(self, warmed: Callable[[], None]) -> None:
        """Hear what the shim says, to its end; `warmed` is called once the trainer is ready."""
        while True:
            try:
                line = await self._reader.readline()
            except ConnectionError:
                line = b""
            if line == _WARM:
                self.is_warm = True
                _log.info("trainer_stands_ready", seconds=round(time.monotonic() - self.began, 1))
                warmed()
                continue
            self.replies.put_nowait(line)
            if not line:
                return

    async def end(self) -> None:
        """Let it end, with all its processes, and take its folder away."""
        self.writer.close()
        await asyncio.to_thread(kill_all_with, self.token)
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


class Standby:
    """Keeps one trainer ready while there is room for a job, and hands it to the next attempt."""

    def __init__(
        self,
        layout: Layout,
        command: Command,
        module: str = TRAINER,
        warmed: Callable[[], None] = lambda: None,
        *,
        keeps_one: bool = True,
    ) -> None:
        """`module`: what the trainer runs. `warmed` is called when one has become ready."""
        self._warmed = warmed
        self._layout = layout
        self._module = module
        self._machine = Machine()
        self._command = command
        self._keeps_one = keeps_one
        self._cores = cpu_count()
        self._current: _Waiting | None = None
        self._starting: asyncio.Task[None] | None = None
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
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
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
        given = asyncio.ensure_future(self._give(waiting, spec, folder, environment_of(share, spec.token, named)))
        try:
            return await asyncio.shield(given)
        except asyncio.CancelledError:
            await given  # it is a moment, and afterwards it is clear whose the attempt is
            raise

    def _suits(self, waiting: _Waiting, spec: wire.AttemptSpec) -> bool:
        return (
            spec.job.work is None
            and spec.job.parameters.num_processes == 1
            and (waiting.is_warm or time.monotonic() - waiting.began < _IMPORT_SECONDS)
            and waiting.software == software_state()
        )

    async def _give(
        self, waiting: _Waiting, spec: wire.AttemptSpec, folder: Path, environment: dict[str, str]
    ) -> wire.ShimReport | None:
        before = waiting.environment
        order = wire.StandbyOrder(
            folder=str(folder),
            grace_seconds=spec.job.grace_seconds,
            set={name: value for name, value in environment.items() if before.get(name) != value},
            unset=tuple(before.keys() - environment.keys()),
        )
        reply = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            waiting.writer.write(msgspec.json.encode(order) + b"\n")
            reply = await asyncio.wait_for(waiting.replies.get(), _ANSWER_SECONDS)
        if reply != _READY:
            # Whatever became of it: nothing of it lives now, and only its spool says whether it was the attempt.
            await waiting.end()
            await asyncio.to_thread(_take_back, folder)
        waiting.writer.close()
        report = await asyncio.to_thread(_read_report, folder / "shim.json")
        if report is not None and report.token == waiting.token:
            _log.info("trainer_stood_ready", warm=waiting.is_warm)
            return report
        code = int(reply) if reply.strip().isdigit() else None
        if code in NO_ROOM:
            raise LaunchFailed("The trainer could not be started", f"{folder}: there is no room", disk_full=True)
        _log.warning("standby_failed", error=code)
        return None

    async def close(self) -> None:
        """End the trainer, if one stands by."""
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
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

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("standby_not_started", error=str(error))

    async def _start(self) -> None:
        try:
            await asyncio.to_thread(check_trainer_libraries)
        except TrainersMissing:
            return
        if (await asyncio.to_thread(host_memory)).available < AHEAD_BYTES:
            _log.info("no_memory_to_stand_by")
            return
        token = secrets.token_hex(16)
        share = Share(
            threads=self._machine.cpu_threads,
            all_cores=self._machine.cpu_threads >= self._cores,
            gpus=self._gpus,
        )
        environment = environment_of(share, token, {})
        folder = self._layout.standby / token
        software = await asyncio.to_thread(software_state)
        folder.mkdir(mode=0o700, parents=True)
        ours, theirs = socket.socketpair()
        with theirs:
            shim = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "trainer_entry.shim", wire.STANDBY, str(folder)),
                *(self._module, *self._command(share.threads)),
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
            )
        limit_process(shim.pid, UNLIMITED)
        _, words = await shim.communicate()
        if shim.returncode != 0:
            ours.close()
            raise OSError(shim.returncode, words.decode(errors="replace").strip())
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        waiting = self._current = _Waiting(token, folder, environment, software, reader, writer)
        task = asyncio.get_running_loop().create_task(self._attend(waiting))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attend(self, waiting: _Waiting) -> None:
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
            words = await asyncio.to_thread(last_words, waiting.folder / _LOG)
            await waiting.end()
            _log.warning("standby_ended", warm=waiting.is_warm, last_words=words)


def _take_back(folder: Path) -> None:
    """Take away what a trainer that is gone has put into an attempt's folder, unless it has said something as it."""
    spool = folder / _SPOOL
    if spool.exists() and spool.stat().st_size:
        return
    for name in ("shim.json", "exit.json", _SPOOL, _LOG):  # the report first: without it there was no attempt
        (folder / name).unlink(missing_ok=True)


def _read_report(path: Path) -> wire.ShimReport | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=wire.ShimReport)
    except FileNotFoundError:
        return None
