"""Attempts as processes of this machine: `accelerate launch` under the shim, in a session of its own."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from modelforge.errors import NO_ROOM, LaunchFailed
from modelforge.layout import Layout
from modelforge.machine.child_environment import child_environment
from modelforge.machine.child_limits import UNLIMITED, limit_process
from modelforge.machine.devices import cpu_count
from modelforge.machine.hub_secrets import remove_secrets, write_secrets
from modelforge.machine.isolation import Isolation
from modelforge.owner_files import write_owner_file
from modelforge.supervisor.launcher import Ending
from modelforge.supervisor.processes import TOKEN_VARIABLE, boot_id, kill_all_with, processes_with, send, wait_for
from trainer_entry import wire

TRAINER = "trainer_entry.train"
AFTER_TRAINING = "trainer_entry.after_training"
EVALUATE = "trainer_entry.evaluate"
_T = TypeVar("_T")
_POLL_SECONDS = 0.05
_LAST_WORDS_BYTES = 8000
_LAST_WORDS_LINES = 5
_RETURNED_BYTES = 1 << 20


def accelerate_command(spec: wire.AttemptSpec, module: str, folder: Path) -> list[str]:
    """`accelerate launch` with everything said that it would otherwise guess, and say so on stdout."""
    processes = spec.job.parameters.num_processes
    return [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--num_processes", str(processes), "--num_machines", "1", *(["--multi_gpu"] if processes > 1 else [])),
        *("--mixed_precision", "no", "--dynamo_backend", "no"),
        *("--main_process_port", "0"),  # a free one: two jobs at once must not meet
        *("--num_cpu_threads_per_process", str(_threads(spec))),
        *("-m", module, str(folder)),
    ]


class LocalLauncher:
    """Runs attempts in their folders of the data directory; `module` is what the ranks run, `command` runs it.

    `isolation`: they see what their work needs, and nothing else.

    Work on a trained model is one process, which needs no launcher.
    """

    def __init__(
        self,
        layout: Layout,
        module: str = TRAINER,
        command: Callable[[wire.AttemptSpec, str, Path], list[str]] = accelerate_command,
        isolation: Isolation | None = None,
    ) -> None:
        self._layout = layout
        self._module = module
        self._command = command
        self._isolation = isolation
        self._cores = cpu_count()

    async def launch(self, spec: wire.AttemptSpec) -> wire.ShimReport:
        """Write the attempt's `spec.json`, and start the shim, which starts the rest."""
        folder = self._layout.attempt(spec.job.job_id, spec.attempt)
        if spec.job.work is None:
            module, command = self._module, self._command(spec, self._module, folder)
        else:
            module = EVALUATE if isinstance(spec.job.work, wire.Evaluate) else AFTER_TRAINING
            command = [sys.executable, "-m", module, str(folder)]
        if self._isolation is not None:
            command = [*self._isolation.around_job(spec.job, folder), *command]
        try:
            await asyncio.to_thread(_write_spec, folder, spec)
            secrets = await asyncio.to_thread(write_secrets, folder, spec.job)
            shim = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "trainer_entry.shim", str(folder), str(spec.job.grace_seconds)),
                *(module, *command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=_environment(spec, self._cores, secrets),
            )
        except OSError as error:
            disk_full = error.errno in NO_ROOM
            raise LaunchFailed("The trainer could not be started", f"{folder}: {error}", disk_full=disk_full) from error
        limit_process(shim.pid, UNLIMITED)
        started = asyncio.ensure_future(shim.communicate())
        try:
            _, stderr = await asyncio.shield(started)
        except asyncio.CancelledError:
            await started  # it is a moment, and before it no event loop can be closed
            raise
        report = await asyncio.to_thread(_read, folder / "shim.json", wire.ShimReport)
        if shim.returncode != 0 or report is None:
            words = stderr.decode(errors="replace").strip().splitlines()
            why = words[-1] if words else f"the shim ended with {shim.returncode}"
            disk_full = shim.returncode in NO_ROOM
            raise LaunchFailed("The trainer could not be started", f"{folder}: {why}", disk_full=disk_full)
        return report

    async def adopt(self, job_id: str, attempt: int) -> wire.ShimReport | None:
        """Read `shim.json`; where it is missing but a process has the attempt's token, it is about to come."""
        return await asyncio.to_thread(self._adopt, job_id, attempt)

    def _adopt(self, job_id: str, attempt: int) -> wire.ShimReport | None:
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

    async def stop(self, shim: wire.ShimReport) -> None:
        """The shim asks the ranks, and kills what is left after the grace period."""
        send(shim, signal.SIGTERM)

    async def save_checkpoint(self, shim: wire.ShimReport) -> None:
        """The shim passes it on to the ranks."""
        send(shim, signal.SIGUSR1)

    async def wait(self, shim: wire.ShimReport) -> None:
        """Wait for the shim's end. One that was killed leaves the sweeping to us: by token, until none is left."""
        await wait_for(shim)
        await asyncio.to_thread(kill_all_with, shim.token)

    async def ending(self, job_id: str, attempt: int, shim: wire.ShimReport) -> Ending:
        """Read `exit.json`, and the end of the attempt's log."""
        return await asyncio.to_thread(self._ending, job_id, attempt, shim)

    def _ending(self, job_id: str, attempt: int, shim: wire.ShimReport) -> Ending:
        folder = self._layout.attempt(job_id, attempt)
        remove_secrets(folder)  # a shim that was killed had not
        report = _read(folder / "exit.json", wire.ExitReport)
        rebooted = shim.boot_id != boot_id()
        return Ending(exit=report, last_words=_last_words(folder / "stderr.log"), rebooted=rebooted)

    def spool(self, job_id: str, attempt: int) -> str:
        """`stdout.jsonl` in the attempt's folder."""
        return str(self._layout.attempt(job_id, attempt) / "stdout.jsonl")


def _threads(spec: wire.AttemptSpec) -> int:
    """Each rank's share of the threads that the job has."""
    return max(1, spec.cpu_threads // spec.job.parameters.num_processes)


def _environment(spec: wire.AttemptSpec, cores: int, secrets: dict[str, str]) -> dict[str, str]:
    """What is set for an attempt: its share of the machine, and the mark of its processes."""
    added = {"OMP_NUM_THREADS": str(_threads(spec)), TOKEN_VARIABLE: spec.token} | secrets
    if spec.cpu_threads < cores:
        # Threads that spin while they wait take the time of the job beside this one.
        added["OMP_WAIT_POLICY"] = "PASSIVE"
    if spec.gpus is not None:
        added["CUDA_VISIBLE_DEVICES"] = ",".join(spec.gpus)
        if "CUDA_VISIBLE_DEVICES" not in os.environ:  # then the driver counted them, in this order
            added["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return child_environment(**added, **memory_settings(spec))


def memory_settings(spec: wire.AttemptSpec) -> dict[str, str]:
    """For glibc, where activations are computed again on the CPU to save memory: what is freed goes back at once.

    Its heap keeps holes else, of up to half of what a training holds; without them a step took a tenth to a third more
    time.
    """
    if spec.gpus is not None or not spec.job.parameters.gradient_checkpointing:
        return {}
    return {"MALLOC_MMAP_THRESHOLD_": str(_RETURNED_BYTES)}


def _write_spec(folder: Path, spec: wire.AttemptSpec) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_owner_file(folder / "spec.json", msgspec.json.format(msgspec.json.encode(spec)))


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None


def _last_words(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LAST_WORDS_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    # The launcher's own traceback only says that the trainer failed: what counts stands before it.
    before, launchers, _ = text.rpartition("Traceback (most recent call last)")
    said = before if "accelerate/commands" in text[len(before) :] and launchers else text
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return " / ".join(lines[-_LAST_WORDS_LINES:])
