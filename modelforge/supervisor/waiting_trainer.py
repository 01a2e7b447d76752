"""A trainer that stands by, as a process: its shim, its folder, and the socket by which it is given an attempt."""

import asyncio
import contextlib
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from modelforge.errors import NO_ROOM, LaunchFailed
from modelforge.machine.child_limits import UNLIMITED, limit_process
from modelforge.supervisor.last_words import last_words
from modelforge.supervisor.processes import kill_all_with
from trainer_entry import wire

_log = structlog.get_logger()
_ANSWER_SECONDS = 10.0
_WARM, _READY = b"warm\n", b"ready\n"
_SPOOL, _LOG = "stdout.jsonl", "stderr.log"


class WaitingTrainer:
    """A trainer that stands by. `replies`: what its shim says, b"" at its end. `software`: what it was started from."""

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

    @classmethod
    async def start(
        cls, token: str, folder: Path, environment: dict[str, str], software: str, command: list[str]
    ) -> "WaitingTrainer":
        """Start its shim with a command: the module that its ranks run, and what starts that.

        Raises:
            OSError: it cannot be started. Nothing of it is left, as where the call is cancelled.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                _make(folder)
                await _start_shim(folder, environment, command, theirs)
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            await asyncio.shield(asyncio.ensure_future(_clear_up(token, folder)))
            raise
        return cls(token, folder, environment, software, reader, writer)

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

    async def give(self, spec: wire.AttemptSpec, folder: Path, environment: dict[str, str]) -> wire.ShimReport | None:
        """Hand it an attempt whose files lie in a folder; None where it cannot have it, and is gone.

        Raises:
            LaunchFailed: there is no room on the disk.
        """
        before = self.environment
        order = wire.StandbyOrder(
            folder=str(folder),
            grace_seconds=spec.job.grace_seconds,
            set={name: value for name, value in environment.items() if before.get(name) != value},
            unset=tuple(before.keys() - environment.keys()),
        )
        reply, words = b"", ""
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.writer.write(msgspec.json.encode(order) + b"\n")
            reply = await asyncio.wait_for(self.replies.get(), _ANSWER_SECONDS)
        if reply != _READY:
            # Whatever became of it: nothing of it lives now, and only its spool says whether it was the attempt.
            words = await asyncio.to_thread(self.last_words) or await asyncio.to_thread(last_words, folder / _LOG)
            await self.end()
            await asyncio.to_thread(_take_back, folder)
        self.writer.close()
        report = await asyncio.to_thread(_read_report, folder / "shim.json")
        if report is not None and report.token == self.token:
            _log.info("trainer_stood_ready", warm=self.is_warm)
            return report
        code = int(reply) if reply.strip().isdigit() else None
        if code in NO_ROOM:
            raise LaunchFailed("The trainer could not be started", f"{folder}: there is no room", disk_full=True)
        _log.warning("standby_failed", error=code, last_words=words)
        return None

    def last_words(self) -> str:
        """The end of its log, as long as it was given no attempt."""
        return last_words(self.folder / _LOG)

    async def end(self) -> None:
        """Let it end, with all its processes, and take its folder away."""
        self.writer.close()
        await _clear_up(self.token, self.folder)


def _make(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True)


async def _start_shim(folder: Path, environment: dict[str, str], command: list[str], orders: socket.socket) -> None:
    """Start the shim, which detaches itself; where the call is cancelled, it has done so or ended all the same."""
    shim = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trainer_entry.shim", wire.STANDBY, str(folder), *command),
        stdin=orders.fileno(),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    limit_process(shim.pid, UNLIMITED)
    started = asyncio.ensure_future(shim.communicate())
    try:
        _, words = await asyncio.shield(started)
    except asyncio.CancelledError:
        await started  # it is a moment, and afterwards all that it has started is found by the token
        raise
    if shim.returncode != 0:
        raise OSError(shim.returncode, words.decode(errors="replace").strip())


async def _clear_up(token: str, folder: Path) -> None:
    await asyncio.to_thread(kill_all_with, token)
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


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
