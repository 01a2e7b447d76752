"""Why an attempt on a cluster ended, by what its step reported and what Slurm says."""

import signal

import pytest

from modelforge.domain.failure_causes import RETRIED, cause_of
from modelforge.supervisor.slurm.commands import JobRow
from modelforge.supervisor.slurm.ends import end_cause
from modelforge.supervisor.slurm.signs import StepExit
from modelforge.supervisor.slurm.states import job_state


def row(state: str) -> JobRow:
    return JobRow(job_id="7", name="mf-a-train_1-1", state=job_state(state), nodes="n1", reason="")


def step_exit(*, number: int | None = None, stop: int | None = None, failed_node: int | None = None) -> StepExit:
    return StepExit(
        code=None if number else 0,
        signal=number,
        stop_signalled=stop is not None,
        killed_after_grace=False,
        max_rss_kib=1,
        user_seconds=0.0,
        system_seconds=0.0,
        stop_signal=stop,
        failed_node=failed_node,
    )


@pytest.mark.parametrize(
    ("state", "report", "preempted", "kind"),
    [
        ("COMPLETED", step_exit(), False, None),
        ("FAILED", step_exit(number=11), False, None),
        ("FAILED", step_exit(number=9), False, None),
        ("OUT_OF_MEMORY", step_exit(number=9), False, "OutOfMemory"),
        ("NODE_FAIL", step_exit(number=9), False, "NodeFailed"),
        ("NODE_FAIL", None, False, "NodeFailed"),
        ("COMPLETED", step_exit(stop=signal.SIGTERM), True, "Preempted"),
        ("PREEMPTED", None, False, "Preempted"),
        ("COMPLETED", step_exit(stop=signal.SIGUSR2), False, "TimeLimit"),
        ("TIMEOUT", None, False, "TimeLimit"),
        ("CANCELLED", step_exit(stop=signal.SIGTERM), False, "Interrupted"),
        ("COMPLETED", step_exit(stop=signal.SIGTERM), False, "Interrupted"),
        ("FAILED", None, False, None),
        ("COMPLETED", step_exit(failed_node=1), False, "NodeFailed"),
        ("COMPLETED", step_exit(stop=signal.SIGTERM, failed_node=1), True, "Preempted"),
        (None, None, False, "NodeFailed"),
    ],
)
def test_an_attempt_that_began_ended_by(
    state: str | None,
    report: StepExit | None,
    preempted: bool,  # noqa: FBT001 - a column of the table
    kind: str | None,
) -> None:
    last = None if state is None else row(state)
    cause = end_cause(last, report, "", has_begun=True, was_asked=False, preempted=preempted)
    assert (None if cause is None else cause.kind) == kind


def test_a_job_that_ends_before_its_step_says_what_slurm_wrote() -> None:
    words = "execve(): /python: No such file or directory"
    cause = end_cause(row("FAILED"), None, words, has_begun=False, was_asked=False, preempted=False)
    assert cause is not None
    assert cause.kind == "LaunchFailed"
    assert words in cause.message


def test_a_step_that_is_killed_before_it_claims_its_attempt_is_killed_and_tried_again() -> None:
    words = "srun: error: n1: task 0: Killed srun: Force Terminated StepId=2.0"
    known = end_cause(row("FAILED"), None, words, has_begun=False, was_asked=False, preempted=False)
    cause = cause_of(None, None, words, known=known)
    assert cause.kind == "Killed"
    assert words in cause.message
    assert cause.kind in RETRIED


def test_a_stop_by_the_server_needs_no_cause() -> None:
    report = step_exit(stop=signal.SIGUSR2)
    assert end_cause(row("CANCELLED"), report, "", has_begun=True, was_asked=True, preempted=False) is None
