"""Attempts as processes of this machine: `accelerate launch` under the shim, in a session of its own."""

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from modelforge.domain.failure_causes import LOST_POWER
from modelforge.domain.job import LocalProcess, Reference, local_process
from modelforge.domain.scheduling import Machine
from modelforge.errors import NO_ROOM, LaunchFailed, SettingsInvalid
from modelforge.layout import Layout
from modelforge.machine.child_limits import UNLIMITED, limit_process
from modelforge.machine.devices import cpu_count
from modelforge.machine.hub_secrets import remove_secrets, write_secrets
from modelforge.machine.isolation import Isolation
from modelforge.owner_files import write_owner_file
from modelforge.supervisor.attempt_environment import environment_of, share_of, threads_of
from modelforge.supervisor.last_words import last_words
from modelforge.supervisor.launcher import Ending, Waits
from modelforge.supervisor.processes import boot_id, kill_all_with, processes_with, send, wait_for
from modelforge.supervisor.standby import TRAINER, Standby
from trainer_entry import wire

AFTER_TRAINING = "trainer_entry.after_training"
EVALUATE = "trainer_entry.evaluate"
_T = TypeVar("_T")
_POLL_SECONDS = 0.05


def accelerate_command(spec: wire.AttemptSpec, module: str, folder: Path) -> list[str]:
    """`accelerate launch` with everything said that it would otherwise guess, and say so on stdout."""
    return accelerate_launch(spec.job.parameters.num_processes, threads_of(spec), module, str(folder))


def accelerate_launch(processes: int, threads: int, module: str, argument: str) -> list[str]:
    """The same for a module with one argument, in so many processes with so many threads each."""
    return [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--num_processes", str(processes), "--num_machines", "1", *(["--multi_gpu"] if processes > 1 else [])),
        *("--mixed_precision", "no", "--dynamo_backend", "no"),
        *("--main_process_port", "0"),  # a free one: two jobs at once must not meet
        *("--num_cpu_threads_per_process", str(threads)),
        *("-m", module, argument),
    ]


def standby_command(threads: int) -> list[str]:
    """The same for a trainer of one process that waits for its attempt."""
    return accelerate_launch(1, threads, TRAINER, wire.STANDBY)


class LocalLauncher:
    """Runs attempts in their folders of the data directory; `module` is what the ranks run, `command` runs it.

    `isolation`: they see what their work needs, and nothing else. `standby`: what may take an attempt in the place of a
    trainer that is started for it.

    Work on a trained model is one process, which needs no launcher.
    """

    def __init__(
        self,
        layout: Layout,
        module: str = TRAINER,
        command: Callable[[wire.AttemptSpec, str, Path], list[str]] = accelerate_command,
        isolation: Isolation | None = None,
        standby: Standby | None = None,
    ) -> None:
        self._layout = layout
        self._module = module
        self._command = command
        self._isolation = isolation
        self._standby = standby
        self._cores = cpu_count()
        self._processes: dict[tuple[str, int], LocalProcess] = {}

    def place(self, server: Machine) -> Machine:
        """On this machine."""
        return server

    async def submit(self, spec: wire.AttemptSpec) -> LocalProcess:
        """Start the attempt: it waits for nothing."""
        process = local_process(await self._launch(spec))
        self._processes[spec.job.job_id, spec.attempt] = process
        return process

    async def _launch(self, spec: wire.AttemptSpec) -> wire.ShimReport:
        """Write the attempt's `spec.json`, and start the shim, which starts the rest; or give it to who stands by."""
        folder = self._layout.attempt(spec.job.job_id, spec.attempt)
        if self._isolation is None:  # else what one attempt leaves would be read by others
            spec = msgspec.structs.replace(spec, tokenized=str(self._layout.tokenized))
        share = share_of(spec, self._cores)
        if self._standby is not None:
            try:
                report = await self._standby.hand_over(spec, share, folder, partial(_write_files, folder))
            except OSError as error:
                raise _not_started(folder, error) from error
            if report is not None:
                return report
        if spec.job.work is None:
            module, command = self._module, self._command(spec, self._module, folder)
        else:
            module = EVALUATE if isinstance(spec.job.work, wire.Evaluate) else AFTER_TRAINING
            command = [sys.executable, "-m", module, str(folder)]
        if self._isolation is not None:
            command = [*self._isolation.around_job(spec.job, folder), *command]
        try:
            secrets = await asyncio.to_thread(_write_files, folder, spec)
            arguments = (str(folder), str(spec.job.grace_seconds), module, *command)
            started = asyncio.ensure_future(_run_shim(arguments, environment_of(share, spec.token, secrets)))
            try:
                code, stderr = await asyncio.shield(started)
            except asyncio.CancelledError:
                # It is a moment, and before it no event loop can be closed.
                await asyncio.gather(started, return_exceptions=True)
                raise
        except OSError as error:
            raise _not_started(folder, error) from error
        report = await asyncio.to_thread(_read, folder / "shim.json", wire.ShimReport)
        if code != 0 or report is None:
            words = stderr.decode(errors="replace").strip().splitlines()
            why = words[-1] if words else f"the shim ended with {code}"
            disk_full = code in NO_ROOM
            raise LaunchFailed("The trainer could not be started", f"{folder}: {why}", disk_full=disk_full)
        return report

    async def find(self, job_id: str, attempt: int) -> LocalProcess | None:
        """Read `shim.json`; where it is missing but a process has the attempt's token, it is about to come."""
        report = await asyncio.to_thread(self._find, job_id, attempt)
        if report is None:
            return None
        process = self._processes[job_id, attempt] = local_process(report)
        return process

    def _find(self, job_id: str, attempt: int) -> wire.ShimReport | None:
        folder = self._layout.attempt(job_id, attempt)
        spec = _read(folder / "spec.json", wire.AttemptSpec)
        if spec is None:
            return None
        while True:
            coming = bool(processes_with(spec.token))  # checked first: it may write its report in between
            report = _read(folder / "shim.json", wire.ShimReport)
            if report is not None and report.token == spec.token:
                return report
            if not coming:
                return None
            time.sleep(_POLL_SECONDS)

    def know(self, job_id: str, attempt: int, reference: Reference) -> None:
        """The process of an attempt."""
        if not isinstance(reference, LocalProcess):
            raise SettingsInvalid(
                "An attempt runs elsewhere",
                f"{job_id} attempt {attempt} is {reference.name} of the cluster {reference.cluster}, and this server "
                "runs attempts on its own machine: start it with --launcher slurm until that job has ended.",
            )
        self._processes[job_id, attempt] = reference

    async def started(self, job_id: str, attempt: int, waits: Waits) -> bool:  # noqa: ARG002 - it waits for nothing
        """A process that is there, or was, has started."""
        return True

    async def stop(self, job_id: str, attempt: int) -> None:
        """The shim asks the ranks, and kills what is left after the grace period."""
        self._send(job_id, attempt, signal.SIGTERM)

    async def save_checkpoint(self, job_id: str, attempt: int) -> None:
        """The shim passes it on to the ranks."""
        self._send(job_id, attempt, signal.SIGUSR1)

    def _send(self, job_id: str, attempt: int, number: signal.Signals) -> None:
        if (process := self._processes.get((job_id, attempt))) is not None:
            send(process, number)

    async def wait(self, job_id: str, attempt: int) -> None:
        """Wait for the shim's end. One that was killed leaves the sweeping to us: by token, until none is left."""
        process = self._processes[job_id, attempt]
        await wait_for(process)
        await asyncio.to_thread(kill_all_with, process.token)

    async def ending(self, job_id: str, attempt: int) -> Ending:
        """Read `exit.json`, and the end of the attempt's log."""
        process = self._processes[job_id, attempt]
        ending = await asyncio.to_thread(self._ending, job_id, attempt, process)
        del self._processes[job_id, attempt]
        return ending

    def _ending(self, job_id: str, attempt: int, process: LocalProcess) -> Ending:
        folder = self._layout.attempt(job_id, attempt)
        remove_secrets(folder)  # a shim that was killed had not
        report = _read(folder / "exit.json", wire.ExitReport)
        lost_power = report is None and process.boot_id != boot_id()
        cause = LOST_POWER if lost_power else None
        return Ending(exit=report, last_words=last_words(folder / "stderr.log"), cause=cause)

    def spool(self, job_id: str, attempt: int) -> Path:
        """`stdout.jsonl` in the attempt's folder."""
        return self._layout.attempt(job_id, attempt) / "stdout.jsonl"


def _write_files(folder: Path, spec: wire.AttemptSpec) -> dict[str, str]:
    """Write what an attempt is given; the variables that name its files of secrets."""
    folder.mkdir(parents=True, exist_ok=True)
    write_owner_file(folder / "spec.json", msgspec.json.format(msgspec.json.encode(spec)))
    return write_secrets(folder, spec.job)


async def _run_shim(arguments: Sequence[str], environment: dict[str, str]) -> tuple[int | None, bytes]:
    """How a shim ended, which leaves what it started behind, and what it said."""
    shim = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trainer_entry.shim", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    limit_process(shim.pid, UNLIMITED)
    _, stderr = await shim.communicate()
    return shim.returncode, stderr


def _not_started(folder: Path, error: OSError) -> LaunchFailed:
    return LaunchFailed("The trainer could not be started", f"{folder}: {error}", disk_full=error.errno in NO_ROOM)


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
