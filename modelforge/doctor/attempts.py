"""Attempts: whether the one that is active in the log is alive, and whether processes of others are left behind."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from modelforge.doctor.directory import Server
from modelforge.doctor.finding import Finding, ok, problem, warning
from modelforge.domain.state import State
from modelforge.layout import Layout
from modelforge.supervisor.processes import TOKEN_VARIABLE, is_alive, processes_with, tokens
from trainer_entry import wire

_T = TypeVar("_T")


class Attempt(Struct, frozen=True, gc=False):
    """An attempt, as its folder is named."""

    job_id: str
    number: int

    def __str__(self) -> str:
        return f"{self.job_id} attempt {self.number}"


class Bearer(Struct, frozen=True, kw_only=True, gc=False):
    """A process that carries a token, and the attempt in this data directory that it is of."""

    pid: int
    token: str
    attempt: Attempt


def bearers_of(layout: Layout) -> list[Bearer]:
    """The processes that are of an attempt in this data directory: by their token, or by their command line.

    To be listed before the log is read: then what is found was recorded before, or should not be there.
    """
    carried = tokens()
    if not carried:
        return []
    owners: dict[str, Attempt] = {}
    for path in layout.jobs.glob("*/attempt-*/spec.json"):
        attempt, spec = _attempt(path.parent, layout), _read(path, wire.AttemptSpec)
        if attempt is not None and spec is not None:
            owners[spec.token] = attempt
    found = ((pid, token, owners.get(token) or _told(pid, layout)) for pid, token in sorted(carried.items()))
    return [Bearer(pid=pid, token=token, attempt=attempt) for pid, token, attempt in found if attempt is not None]


def _told(pid: int, layout: Layout) -> Attempt | None:
    """The attempt whose folder is among a process's arguments."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    named = (_attempt(Path(argument), layout) for argument in arguments if argument.startswith("/"))
    return next((attempt for attempt in named if attempt is not None), None)


def _attempt(folder: Path, layout: Layout) -> Attempt | None:
    number = folder.name.removeprefix("attempt-")
    if folder.parent.parent != layout.jobs or not number.isdigit():
        return None
    return Attempt(folder.parent.name, int(number))


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def attempt_findings(layout: Layout, state: State, server: Server | None, bearers: list[Bearer]) -> Iterator[Finding]:
    """Whether every process has its attempt, and every active attempt its processes."""
    active = [Attempt(job_id, state.jobs[job_id].attempt) for job_id in state.running]
    for attempt in active:
        yield _active_finding(layout, state, server, attempt)
    if not active:
        yield ok("job", f"none of {len(state.jobs)} is active")
    for bearer in bearers:
        if bearer.attempt not in active and bearer.pid in processes_with(bearer.token):
            yield _left_behind(bearer)


def _active_finding(layout: Layout, state: State, server: Server | None, active: Attempt) -> Finding:
    folder, job = layout.attempt(active.job_id, active.number), state.jobs[active.job_id]
    shim = job.shim or _read(folder / "shim.json", wire.ShimReport)
    if shim is not None and is_alive(shim):
        waits = "" if server is not None else ": no server follows it, and the next one misses nothing"
        return ok("job", f"{active} is {job.status}, process {shim.pid}{waits}")
    if server is not None:
        return ok("job", f"{active} is {job.status} without a process: the server starts or concludes it")
    remedy = f"`modelforge serve --data-dir {layout.root}`: "
    spec = _read(folder / "spec.json", wire.AttemptSpec)
    if spec is not None and (left := processes_with(spec.token)):
        pids = ", ".join(str(pid) for pid in left)
        found = f"{active} is {job.status} in the log and its shim is gone, but not process {pids}"
        return warning("job", found, f"{remedy}it is ended and concluded by the next server.")
    if shim is None:
        found = f"{active} is {job.status} in the log and was never spawned"
        return warning("job", found, f"{remedy}it is launched by the next server.")
    found = f"{active} is {job.status} in the log, but no process of it is left, and no server runs"
    return warning("job", found, f"{remedy}it is concluded at the next start, from what its trainer wrote.")


def _left_behind(bearer: Bearer) -> Finding:
    try:
        name = Path(f"/proc/{bearer.pid}/comm").read_text().strip()
    except OSError:
        name = "gone meanwhile"
    pid = bearer.pid
    return problem(
        "process",
        f"{pid} ({name}) has the {TOKEN_VARIABLE} of {bearer.attempt}, which is not active in the log: left behind",
        f"See what it is with `ps -fp {pid}`, and end it: `kill {pid}`, or `kill -9 {pid}` if it stays.",
    )
