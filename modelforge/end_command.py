"""The command of the server's owner that is run when a job ends, as for a notification on the desktop."""

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import BinaryIO

import structlog
from msgspec import Struct

from modelforge.domain import job
from modelforge.domain.messages import Record
from modelforge.domain.state import State
from modelforge.machine.child_environment import child_environment

_log = structlog.get_logger()
SECONDS = 30.0
"""How long it may take before it is ended."""
_AT_ONCE = 4
_LAST_WORDS = 500
_LONGEST_ERROR = 1000
_DESKTOP = ("DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY")


class _Ended(Struct, frozen=True):
    job_id: str
    position: int
    variables: dict[str, str]


class EndCommand:
    """Runs a command, split as a shell splits words and without one, once for each job that ends."""

    def __init__(self, command: str | None, state: State, seconds: float = SECONDS) -> None:
        """Without a command nothing is run."""
        self._words = shlex.split(command or "")
        self._state = state
        self._seconds = seconds
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, records: Sequence[Record]) -> None:
        """Begin it for each job that these records end."""
        for record in records if self._words else ():
            ended = _ended(record, self._state)
            if ended is not None:
                task = asyncio.get_running_loop().create_task(self._run(ended))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for none: what runs goes on, or is ended by itself."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, ended: _Ended) -> None:
        async with self._places:
            reason = await run_end_command(self._words, ended.variables, self._seconds)
        if reason is not None:
            _log.warning("on_end_failed", job_id=ended.job_id, position=ended.position, reason=reason)


async def run_end_command(
    words: Sequence[str],
    variables: Mapping[str, str],
    seconds: float = SECONDS,
    stdout: int = subprocess.DEVNULL,
    *,
    outlives: bool = True,
) -> str | None:
    """Run a command without a shell, with a job's variables and no secret; why it failed, if it did.

    `seconds`: how long it may take before it is ended with all that it started. `stdout`: where it writes to.
    `outlives`: whether it goes on where this is cancelled.
    """
    desktop = {name: os.environ[name] for name in _DESKTOP if name in os.environ}
    with tempfile.TemporaryFile() as stderr:
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=child_environment(**desktop, **variables),
                start_new_session=True,
            )
        except OSError as error:
            return str(error)
        try:
            async with asyncio.timeout(seconds):
                code = await process.wait()
        except TimeoutError:
            await _kill(process)
            return f"not done within {seconds:g} s"
        except asyncio.CancelledError:
            if not outlives:
                await _kill(process)
            raise
        words_left = _last_words(stderr)
        return None if code == 0 else f"exit code {code}{f': {words_left}' if words_left else ''}"


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def end_variables(job_id: str, status: str, *, kind: str, name: str, model: str, error: str = "") -> dict[str, str]:
    """What a command finds of a job in its environment."""
    variables = {
        "MODELFORGE_JOB_ID": job_id,
        "MODELFORGE_JOB_STATUS": status,
        "MODELFORGE_JOB_KIND": kind,
        "MODELFORGE_JOB_NAME": name,
        "MODELFORGE_JOB_MODEL": model,
        "MODELFORGE_JOB_ERROR": error[:_LONGEST_ERROR],
    }
    return {name: value.replace("\0", "") for name, value in variables.items()}


def _last_words(file: BinaryIO) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_WORDS))
    return file.read().decode(errors="replace").strip()


def _ended(record: Record, state: State) -> _Ended | None:
    """The job that a record ends, as the command finds it in its environment."""
    error = ""
    match record.message:
        case job.TrainingCompleted():
            status = "completed"
        case job.TrainingStopped():
            status = "stopped"
        case job.TrainingFailed(kind=kind, message=message):
            status, error = "failed", f"{kind}: {message}"
        case _:
            return None
    job_id = record.message.job_id
    spec = state.jobs[job_id].spec
    variables = end_variables(job_id, status, kind=spec.kind, name=spec.output_name, model=spec.model_name, error=error)
    return _Ended(job_id, record.position, variables)
