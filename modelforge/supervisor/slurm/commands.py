"""Slurm's commands as functions: argument lists, fixed formats, no shell; what fails says how.

Slurm's daemons may be away for a while. What could not be asked is unknown, and is asked again: it is never taken for
an answer.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from modelforge.machine.child_environment import child_environment
from modelforge.machine.cluster import Partition
from modelforge.supervisor.slurm.complaints import is_a_no, is_not_now, is_of_nobody, sleeps
from modelforge.supervisor.slurm.partition_rows import PARTITION_FORMAT, partitions_in
from modelforge.supervisor.slurm.states import JobState, job_state

Program = Literal["sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun"]
PROGRAMS: tuple[Program, ...] = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun")
_LONGEST_SECONDS = 60.0
_LOOK_SECONDS = 0.5
"""Between two looks at what a command complains of while it runs."""
_JOB_FORMAT = "%i|%j|%T|%N|%r"  # the reason last: it is the one that may have a bar in it
OF_THE_NODE = (
    *("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"),
    *("TMPDIR", "XDG_RUNTIME_DIR"),
)
"""Variables that mean something else on each machine: a job has those of its node, and not the server's."""
_GONE = ("Invalid job id specified", "Job/step already completing or completed")
_JOB_ID = re.compile(r"[1-9][0-9]*")


class SlurmError(Exception):
    """A command of Slurm did not do what it was asked."""


class SlurmUnreachable(SlurmError):
    """Nobody answered: what was asked for may have happened or not, and is asked again."""


class SlurmUnclear(SlurmUnreachable):
    """Something else went wrong, in words that no release here knows: it is asked again for a while."""


class SlurmRefused(SlurmError):
    """Slurm said no; its words say why."""


class SlurmTakesNone(SlurmError):
    """Slurm does not take such a job for now, and may later; its words say why."""


class SlurmMissing(SlurmError):
    """The command is not installed here."""


class JobRow(Struct, frozen=True, kw_only=True, gc=False):
    """A job as the queue has it. `nodes`: as Slurm writes lists of hosts; empty while it waits."""

    job_id: str
    name: str
    state: JobState
    nodes: str
    reason: str


class Slurm:
    """The cluster that the server's environment names (SLURM_CONF, or the machine's own configuration)."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        """`environment`: of the commands, and of what they submit; by default `command_environment`."""
        self._environment = command_environment() if environment is None else environment

    async def submit(self, script: str) -> str:
        """Submit a batch script; the job's id.

        Raises:
            SlurmUnreachable: it may have been taken or not; look for the job's name.
            SlurmTakesNone: it was not taken, and is to be submitted again later.
            SlurmRefused: it was not taken.
            SlurmMissing: there is no sbatch.
        """
        try:
            said = await self._ask("sbatch", ["--parsable"], script.encode())
        except (SlurmRefused, SlurmUnreachable) as error:
            words = str(error)
            if is_not_now(words):
                raise SlurmTakesNone(words) from error
            if isinstance(error, SlurmUnreachable) or is_a_no(words):
                raise
            raise SlurmUnclear(words) from error
        job_id = said.strip().partition(";")[0]  # `id;cluster` where there are several
        if not _JOB_ID.fullmatch(job_id):
            raise SlurmUnclear(f"sbatch gave no job id, but {said.strip()[:200]!r}")
        return job_id

    async def jobs(self) -> tuple[JobRow, ...]:
        """Every job of this user that the controller knows, those that ended lately too.

        Raises:
            SlurmError: it could not be asked.
        """
        # --all: of partitions, too, that are hidden, or would be for groups that this user is not in.
        said = await self._ask("squeue", ["--noheader", "--me", "--all", "--states=all", f"--format={_JOB_FORMAT}"])
        return tuple(_job_row(line) for line in said.splitlines() if line)

    async def cancel(self, name: str, *, only_waiting: bool = False) -> None:
        """End this user's jobs of a name, or those of them that wait; where there is none, nothing is done.

        By the name: an id may belong to another job by now.

        Raises:
            SlurmError: it could not be asked to.
        """
        await self._unless_gone("scancel", [*_ours(name), *(["--state=PENDING"] if only_waiting else [])])

    async def signal(self, name: str) -> None:
        """SIGUSR2 to every process of the steps of this user's jobs of a name; where there is none, nothing is done.

        Raises:
            SlurmError: it could not be asked to.
        """
        await self._unless_gone("scancel", [*_ours(name), "--state=RUNNING", "--signal=USR2"])

    async def was_preempted(self, job_id: str, name: str) -> bool:
        """Whether a job that the controller still knows was told to leave for another one.

        Raises:
            SlurmError: it could not be asked.
        """
        said = await self._unless_gone("scontrol", ["--oneliner", "show", "job", job_id])
        if f"JobName={name} " not in said:
            return False
        told = re.search(r"\bPreemptTime=(\S+)", said)
        return told is not None and told[1] not in {"None", "N/A"}

    async def partitions(self) -> tuple[Partition, ...]:
        """The parts of the cluster that this user sees.

        Raises:
            SlurmError: it could not be asked.
        """
        said = await self._ask("sinfo", ["--noheader", "--all", "--exact", f"--format={PARTITION_FORMAT}"])
        return partitions_in(said)

    async def cluster_name(self) -> str:
        """What the cluster is called.

        Raises:
            SlurmError: it could not be asked.
        """
        said = await self._ask("scontrol", ["show", "config"])
        found = re.search(r"^ClusterName\s*=\s*(\S+)", said, re.MULTILINE)
        return "" if found is None else found[1]

    async def try_on_node(self, flags: Sequence[str], command: Sequence[str], seconds: float) -> str:
        """What a command says on some node that is free now.

        Raises:
            SlurmError: it failed there, or no node was free.
        """
        own = ["--ntasks=1", "--immediate=5", "--job-name=mf-check", "--time=1", "--chdir=/"]
        return await self._ask("srun", [*own, *flags, *command], seconds=seconds)

    async def _unless_gone(self, program: Program, arguments: list[str]) -> str:
        try:
            return await self._ask(program, arguments)
        except SlurmRefused as error:
            if not any(words in str(error) for words in _GONE):
                raise
            return ""

    async def _ask(
        self, program: Program, arguments: list[str], given: bytes = b"", seconds: float = _LONGEST_SECONDS
    ) -> str:
        try:
            code, said, complaint = await self._run(program, arguments, given, seconds)
        except FileNotFoundError as error:
            raise SlurmMissing(f"{program} is not installed on this machine, or not on its PATH") from error
        except OSError as error:  # no process, or no descriptor, is to be had now
            raise SlurmUnreachable(f"{program} could not be started: {error}") from error
        words = " ".join(complaint.split())
        if code == 0:
            return said
        if code is None:
            what = "does not end" if sleeps(words) else f"did not end in {seconds:.0f} s"
            raise SlurmUnreachable(f"{program} {what}: {words[-500:] or 'it said nothing'}")
        if is_of_nobody(words):
            raise SlurmUnreachable(f"{program}: {words[-500:]}")
        if code < 0 or not words:  # killed, or ended without a word: that is no answer
            raise SlurmUnclear(f"{program} ended with {code}: {words[-500:] or 'without a word'}")
        raise SlurmRefused(f"{program}: {words[-500:]}")

    async def _run(
        self, program: Program, arguments: list[str], given: bytes, seconds: float
    ) -> tuple[int | None, str, str]:
        """How a command ended, and what it wrote to its two outputs; None where it did not in time, and was killed."""
        with _file(given) as stdin, _file() as stdout, _file() as stderr:
            process = await asyncio.create_subprocess_exec(
                program, *arguments, stdin=stdin, stdout=stdout, stderr=stderr, env=self._environment, cwd="/"
            )
            try:
                code = await _code(process, stderr, seconds)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            return code, _content(stdout).decode(errors="replace"), _content(stderr).decode(errors="replace")


async def _code(process: asyncio.subprocess.Process, stderr: int, seconds: float) -> int | None:
    """How a command ends, if it does in time; an sbatch that says that it sleeps now will not."""
    ending = asyncio.get_running_loop().create_task(process.wait())
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        while (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait({ending}, timeout=min(_LOOK_SECONDS, left))
            if ending.done():
                return ending.result()
            if sleeps(_content(stderr).decode(errors="replace")):
                return None
        return None
    finally:
        ending.cancel()


@contextlib.contextmanager
def _file(content: bytes = b"") -> Iterator[int]:
    """An open file without a name. Not a pipe: asyncio would wait for its end after a command that is cut short."""
    descriptor = os.memfd_create("slurm")
    try:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def command_environment() -> dict[str, str]:
    """What Slurm's commands may know of the server's environment: sbatch and srun hand all of it on to a job.

    That is what a child of the server has, which no secret is among, without what the node says by itself; and which
    cluster it is about.
    """
    environment = {name: value for name, value in child_environment().items() if name not in OF_THE_NODE}
    return environment | {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}


def missing_programs(search: str | None = None) -> list[Program]:
    """The commands that are not on the PATH."""
    folders = [Path(one) for one in (search or os.environ.get("PATH", "")).split(os.pathsep) if one]
    return [name for name in PROGRAMS if not any(os.access(folder / name, os.X_OK) for folder in folders)]


def _ours(name: str) -> list[str]:
    return [f"--user={os.getuid()}", f"--name={name}"]


def _job_row(line: str) -> JobRow:
    job_id, name, state, nodes, reason = [*line.split("|", 4), "", "", "", ""][:5]
    return JobRow(job_id=job_id, name=name, state=job_state(state), nodes=nodes, reason=reason)
