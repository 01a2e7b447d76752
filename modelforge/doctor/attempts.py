"""Attempts: whether the one that is active in the log is alive, and whether processes of others are left behind."""

from collections.abc import Iterator

from modelforge.doctor.directory import Server
from modelforge.doctor.finding import Finding, ok, problem, warning
from modelforge.domain import job
from modelforge.domain.state import State
from modelforge.layout import Layout
from modelforge.supervisor.local_attempts import MARK, Attempt, Bearer, remains_of


def attempt_findings(layout: Layout, state: State, server: Server | None, bearers: list[Bearer]) -> Iterator[Finding]:
    """Whether every process has its attempt, and every active attempt its processes."""
    active = [Attempt(job_id, state.jobs[job_id].attempt) for job_id in state.running]
    for attempt in active:
        yield _active_finding(layout, state.jobs[attempt.job_id], server, attempt)
    if not active:
        yield ok("job", f"none of {len(state.jobs)} is active")
    for bearer in bearers:
        if bearer.attempt not in active and bearer.is_there():
            yield _left_behind(bearer)


def _active_finding(layout: Layout, known: job.Job, server: Server | None, active: Attempt) -> Finding:
    waits = "" if server is not None else ": no server follows it, and the next one misses nothing"
    if isinstance(known.reference, job.SlurmJob):
        slurm = known.reference
        named = f"{slurm.slurm_id} ({slurm.name})" if slurm.slurm_id else slurm.name
        return ok("job", f"{active} is {known.status}, job {named} of {slurm.cluster}{waits}")
    there = remains_of(active, known.reference, layout)
    if there.pid is not None:
        return ok("job", f"{active} is {known.status}, process {there.pid}{waits}")
    if server is not None:
        return ok("job", f"{active} is {known.status} without a process: the server starts or concludes it")
    remedy = f"`modelforge serve --data-dir {layout.root}`: "
    if there.left:
        pids = ", ".join(str(pid) for pid in there.left)
        found = f"{active} is {known.status} in the log and its shim is gone, but not process {pids}"
        return warning("job", found, f"{remedy}it is ended and concluded by the next server.")
    if not there.was_spawned:
        found = f"{active} is {known.status} in the log and was never spawned"
        return warning("job", found, f"{remedy}it is launched by the next server.")
    found = f"{active} is {known.status} in the log, but no process of it is left, and no server runs"
    return warning("job", found, f"{remedy}it is concluded at the next start, from what its trainer wrote.")


def _left_behind(bearer: Bearer) -> Finding:
    pid = bearer.pid
    return problem(
        "process",
        f"{pid} ({bearer.name}) has the {MARK} of {bearer.attempt}, which is not active in the log: left behind",
        f"See what it is with `ps -fp {pid}`, and end it: `kill {pid}`, or `kill -9 {pid}` if it stays.",
    )
