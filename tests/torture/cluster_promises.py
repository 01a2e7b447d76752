"""What holds of attempts on a cluster besides: one runs once, nothing of it is left, and every end has its cause."""

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from support import external_probe as seen
from support.external_probe import Row
from support.running_server import RunningServer

from trainer_entry.runtime.claim import CLAIM, CLAIM_VARIABLE

SHIM, TRAINER = "trainer_entry.cluster_step", "support.scripted_trainer"
_KILLED = frozenset({"Killed", "OutOfMemory"})
"""Where the kernel ended something else on this machine for want of memory, that is taken for the cause."""
_OF_THE_CLUSTER = frozenset({"NodeFailed", "Interrupted", "LaunchFailed", "Killed"})

_MICROSECONDS = 1_000_000  # in a second: the log's times
Attempt = tuple[str, int]


class Process(NamedTuple):
    """A living process of an attempt. `module`: what it runs. `mark`: of its claim; empty of one that has none."""

    pid: int
    module: str
    attempt: Attempt
    mark: str


def processes(jobs: Path) -> list[Process]:
    """The shims and trainers of every attempt under a folder of jobs; a zombie has no words."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if words[1:2] == ["-m"] and words[2] in {SHIM, TRAINER} and words[3].startswith(f"{jobs}/"):
                    folder = Path(words[3])
                    attempt = folder.parent.name, int(folder.name.removeprefix("attempt-"))
                    found.append(Process(int(entry.name), words[2], attempt, _mark(entry)))
    return found


def _mark(entry: Path) -> str:
    for word in (entry / "environ").read_bytes().decode(errors="replace").split("\0"):
        name, _, value = word.partition("=")
        if name == CLAIM_VARIABLE:
            return value.partition(":")[0]
    return ""


@dataclass
class Witness:
    """What was seen of processes, look by look. `jobs`: the folder of all. `killed`: what was done to which attempt."""

    jobs: Path
    killed: dict[Attempt, set[str]] = field(default_factory=lambda: defaultdict(set))
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    _marks: dict[Attempt, set[str]] = field(default_factory=lambda: defaultdict(set))

    def look(self) -> list[Process]:
        """Who lives now. Two claims of one attempt, or two attempts of one job at once, are broken promises."""
        found = processes(self.jobs)
        self.see(found)
        return found

    def see(self, found: list[Process]) -> None:
        """What one look has found."""
        trainers = [one for one in found if one.module == TRAINER and one.mark]
        attempts: dict[str, set[int]] = defaultdict(set)
        for one in trainers:
            attempts[one.attempt[0]].add(one.attempt[1])
            self._marks[one.attempt].add(one.mark)
            if len(self._marks[one.attempt]) > 1:
                self._say(f"{one.attempt} was run with the claims {self._marks[one.attempt]}")
        for job, numbers in attempts.items():
            if len(numbers) > 1 and all(
                any(_lives(one) for one in trainers if one.attempt == (job, n)) for n in numbers
            ):
                self._say(f"attempts {numbers} of {job} live at once")

    def _say(self, what: str) -> None:
        if what not in self.broken:
            self.broken.append(what)


def _lives(one: Process) -> bool:
    """Still, and no process that took its number."""
    with contextlib.suppress(OSError):
        return one.mark == _mark(Path(f"/proc/{one.pid}"))
    return False


def broken_on_cluster(server: RunningServer, witness: Witness, rows: list[Row]) -> Iterator[str]:
    """What does not hold, once every job has ended.

    That Slurm has a job as running whose end its controller forgot is not among it: it finds out in a minute or two.
    """
    yield from witness.broken
    yield from (f"process {one.pid} of {one.attempt} is left: {one.module}" for one in processes(witness.jobs))
    for folder in witness.jobs.glob("*/attempt-*"):
        if seen.spool(folder) and not (folder / CLAIM).exists():
            yield f"{folder} has a spool, and nobody claimed it"
    yield from of_spools(witness.jobs, rows)
    yield from of_steps(server)
    yield from of_causes(witness, rows)


def of_spools(jobs: Path, rows: list[Row]) -> Iterator[str]:
    """Nobody wrote for an attempt once it was said to have ended; the next one is launched after that."""
    for row in rows:
        if row.type == "AttemptExited":
            spool = jobs / row.stream / f"attempt-{row.data['attempt']}" / "stdout.jsonl"
            late = spool.stat().st_mtime - row.at / _MICROSECONDS if spool.exists() else 0
            if late > 0:
                yield f"{row.stream}: attempt {row.data['attempt']} wrote {late:.3f} s after its end"


def of_steps(server: RunningServer) -> Iterator[str]:
    """Every job has ended; one that is completed has each of its steps once, in order."""
    for job in seen.jobs(server):
        steps = [metric["step"] for metric in seen.metrics(server, job["job_id"])]
        if job["status"] == "completed" and steps != list(range(1, job["total_steps"] + 1)):
            yield f"{job['job_id']} is completed, and of its {job['total_steps']} steps {steps} are there"
        if job["status"] not in seen.FINAL:
            yield f"{job['job_id']} is {job['status']}"


def of_causes(witness: Witness, rows: list[Row]) -> Iterator[str]:
    """Every attempt that failed says why, and what it says fits what was done to it."""
    witness.kinds.clear()
    attempt: Counter[str] = Counter()
    ids: dict[Attempt, int] = {}
    given = Counter(row.data["reference"]["slurm_id"] for row in rows if row.type == "AttemptSubmitted")
    del given[0]  # of those that were not taken at first
    for row in rows:
        if row.type == "AttemptLaunching":
            attempt[row.stream] = row.data["attempt"]
        elif row.type == "AttemptSubmitted":
            ids[row.stream, row.data["attempt"]] = row.data["reference"]["slurm_id"]
        elif row.type in {"AttemptFailed", "TrainingFailed"}:
            name = row.stream, attempt[row.stream]
            done, kind = set(witness.killed[name]), row.data["kind"]
            if given[ids.get(name, 0)] > 1:  # a node refuses a job whose id it knows as another's, and cancels it
                done.add("id given anew")
            witness.kinds["+".join(sorted(done)) or "nothing", kind] += 1
            direct = bool(done & {"shim", "trainer"})
            if not row.data["message"] or kind not in _expected(done):
                yield f"{name} failed by {kind} ({row.data['message']}), and what was killed is {sorted(done)}"
            elif direct and done <= {"shim", "trainer", "server"} and kind not in _KILLED:
                yield f"{name} was killed, and failed by {kind}"


def _expected(done: set[str]) -> frozenset[str]:
    """The causes that an attempt may have after what was done to it; with nothing done, it does not fail."""
    kinds: frozenset[str] = frozenset()
    if done & {"shim", "trainer"}:
        kinds |= _KILLED
    if done & {"node", "controller", "id given anew"}:
        kinds |= _OF_THE_CLUSTER
    return kinds


def kill(process: Process, number: int) -> bool:
    """Signal a process, unless it has ended; whether it was signalled."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)
        return True
    return False
