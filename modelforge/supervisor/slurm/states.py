"""What Slurm says of a job, in our words: is it waiting, running or over, why does it wait, why did it end."""

import re
from typing import Literal, assert_never

from msgspec import Struct

from modelforge.supervisor.slurm.complaints import plain

Phase = Literal["waiting", "running", "ending", "over"]
EndCause = Literal["Preempted", "TimeLimit", "NodeFailed", "OutOfMemory", "Cancelled"]
"""Why Slurm ended a job that did not end by itself."""


class JobState(Struct, frozen=True, gc=False):
    """A state by its name in Slurm, and what it means here. `cause`: of one that Slurm itself brought to its end."""

    name: str
    phase: Phase
    cause: EndCause | None = None


_WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
_RUNNING = frozenset({"CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"})
_CAUSES: dict[str, EndCause | None] = {
    "COMPLETED": None,
    "FAILED": None,  # the script's own end: what became of the attempt stands in its folder
    "PREEMPTED": "Preempted",
    "REVOKED": "Cancelled",
    "CANCELLED": "Cancelled",
    "TIMEOUT": "TimeLimit",
    "DEADLINE": "TimeLimit",
    "NODE_FAIL": "NodeFailed",
    "BOOT_FAIL": "NodeFailed",
    "LAUNCH_FAILED": "NodeFailed",
    "RECONFIG_FAIL": "NodeFailed",
    "OUT_OF_MEMORY": "OutOfMemory",
}

_REASONS = {
    "Resources": "it waits for free nodes",
    "Priority": "other jobs of the cluster are before it",
    "Dependency": "an earlier submission of it is not gone yet",
    "BeginTime": "its time to begin has not come",
    "JobHeldUser": "it is held by its user; `scontrol release` lets it go",
    "JobHeldAdmin": "it is held by an administrator of the cluster",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition takes no jobs now",
    "PartitionNodeLimit": "it asks for more nodes than the partition gives",
    "PartitionTimeLimit": "it asks for more time than the partition gives",
    "PartitionConfig": "the partition cannot give what it asks for: nodes, time or memory",
    "BadConstraints": "no node is what it asks for",
    "ReqNodeNotAvail": "nodes that it needs are not available",
    "NodeDown": "a node that it needs is down",
    "QOSMaxJobsPerUserLimit": "this user has as many jobs of its quality of service as are allowed",
    "QOSMaxCpuPerUserLimit": "this user has as many processors of its quality of service as are allowed",
    "QOSMaxGRESPerUser": "this user has as many GPUs of its quality of service as are allowed",
    "QOSGrpGRES": "its quality of service has no more GPUs to give",
    "QOSNotAllowed": "its quality of service is not allowed in the partition",
    "InvalidQOS": "its quality of service is not known",
    "InvalidAccount": "its account is not known",
    "AssocGrpGRES": "its account has no more GPUs to give",
    "AssocMaxJobsLimit": "its account has as many jobs as are allowed",
    "AssocGrpCPUMinutesLimit": "its account has used up its processor time",
    "Licenses": "it waits for a licence",
    "Reservation": "it waits for its reservation",
    "Cleaning": "an earlier run of it is being cleared away",
    "CONFIGURING": "its nodes are made ready",
    "RUNNING": "its node starts it",
    "SUSPENDED": "it is suspended",
    "COMPLETING": "it is ended before it began",
}
_LONGEST_REASON = 200


def job_state(name: str) -> JobState:
    """A state as squeue names it. One that no release here knows counts as running: it is asked again."""
    if name in _WAITING:
        return JobState(name, "waiting")
    if name in _RUNNING:
        return JobState(name, "running")
    if name == "COMPLETING":
        return JobState(name, "ending")
    if name in _CAUSES:
        return JobState(name, "over", _CAUSES[name])
    return JobState(name, "running")


def waiting_reason(reason: str) -> str:
    """Why a job waits, in plain words, with Slurm's own; the empty text where Slurm gives none."""
    if not reason or reason == "None":
        return ""
    plain = _REASONS.get(re.split(r"[^A-Za-z]", reason, maxsplit=1)[0])
    said = reason[:_LONGEST_REASON]
    return f"Slurm: {said}" if plain is None else f"{plain} (Slurm: {said})"


def not_taken_reason(words: str) -> str:
    """Why a job waits that Slurm does not take for now; `words`: sbatch's."""
    return f"Slurm takes no such job for now, and is asked again (Slurm: {plain(words)[:_LONGEST_REASON]})"


def end_message(cause: EndCause) -> str:
    """What is said of a job that Slurm ended."""
    match cause:
        case "Preempted":
            return "Slurm gave the nodes to a job of higher priority."
        case "TimeLimit":
            return (
                "The job came to Slurm's time limit. Resume it: it goes on from its newest checkpoint, for as long "
                "again; with max_restarts a job does so by itself. A longer cluster.time_limit is for a new job."
            )
        case "NodeFailed":
            return "Slurm gave up a node that the trainer ran on."
        case "OutOfMemory":
            return (
                "Slurm ended the trainer, as it took more memory than the job has; give a new job more by "
                "`cluster.memory`."
            )
        case "Cancelled":
            return "The job was cancelled in Slurm, by its user or an administrator."
        case _:
            assert_never(cause)
