"""Why an attempt on a cluster ended: what its step reported, beside what Slurm says of its job."""

import re
import signal

from modelforge.domain.failure_causes import Cause
from modelforge.supervisor.slurm.commands import JobRow
from modelforge.supervisor.slurm.signs import StepExit
from modelforge.supervisor.slurm.states import EndCause, end_message

_UNSEEN = "Neither Slurm nor the trainer's heartbeat showed life for 90 s, and Slurm did not know the job any more."
_PART_FAILED = "The processes on node {node} of the job ended with an error; stderr-{node}.log in its folder has why."
_INTERRUPTED = "Something other than this server ended the job, as an administrator does; Slurm says no more of it."

_STEP_KILLED = re.compile(r"srun: error: \S+: task \d+: Killed")


def end_cause(
    row: JobRow | None, report: StepExit | None, words: str, *, has_begun: bool, was_asked: bool, preempted: bool
) -> Cause | None:
    """The cause, where Slurm knows it better than the trainer; None where the attempt's own words say all.

    `row`: the job as Slurm last had it. `words`: the last of its log. `was_asked`: this server had it stopped.
    """
    ended = None if row is None else row.state.cause
    if was_asked:
        return None
    if report is None:
        return _without_report(row, ended, words, has_begun=has_begun)
    if ended == "OutOfMemory":
        return _cause(ended)
    if not report.was_ended:
        node = report.failed_node
        return None if node is None else Cause(kind="NodeFailed", message=_PART_FAILED.format(node=node))
    if preempted:
        return _cause("Preempted")
    if ended is not None:
        return _cause(ended)
    if report.stop_signal is None:  # killed, and not by Slurm
        return None
    if report.stop_signal == signal.SIGUSR2:  # Slurm sends it before a time limit, and nobody else does
        return _cause("TimeLimit")
    return Cause(kind="Interrupted", message=_INTERRUPTED)


def _without_report(row: JobRow | None, ended: EndCause | None, words: str, *, has_begun: bool) -> Cause | None:
    if ended is not None:
        return _cause(ended)
    if not has_begun and not _STEP_KILLED.search(words):
        state = "is not known" if row is None else f"is {row.state.name}"
        told = f" Its log ends with: {words}" if words else ""
        return Cause(
            kind="LaunchFailed", message=f"The job ended before a trainer was started; for Slurm it {state}.{told}"
        )
    if row is None:
        return Cause(kind="NodeFailed", message=_UNSEEN)
    return None


def _cause(ended: EndCause) -> Cause:
    """A cause of Slurm's as jobs have it; what was cancelled was interrupted, as on one machine."""
    return Cause(kind="Interrupted" if ended == "Cancelled" else ended, message=end_message(ended))
