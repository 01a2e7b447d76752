"""Attempts that are handed over to a cluster, and wait there for their start."""

import pytest
from support.scenario import (
    JOB,
    OTHER_JOB,
    PROCESS,
    SLURM_JOB,
    attempt_spawned,
    attempt_submitted,
    exit_report,
    failed,
    given,
    gone,
    launching,
    records_of,
    requested,
    start,
    started,
    stopped,
    submitted,
    training_started,
)

from modelforge.domain import job, policy
from modelforge.domain.failure_causes import LOST_POWER, Cause, cause_of
from modelforge.domain.messages import decode
from modelforge.domain.scheduling import Cluster, Machine
from modelforge.domain.state import State, evolve
from modelforge.projections.jobs import evolve as evolve_details
from modelforge.projections.read_models import ReadModels
from trainer_entry import wire

CLUSTER = Cluster(server=Machine(slots=1, gpus=("0",), cpu_threads=8), cpu_threads=4)
HANDED_OVER = (requested(), launching(), attempt_submitted())
RESOURCES = job.AttemptWaits(job_id=JOB, attempt=1, reason="Resources")
STARTED = job.AttemptSpawned(job_id=JOB, attempt=1, reference=SLURM_JOB)
MERGE = wire.Merge(model_id=1, path="/data/models/x")
PREEMPTED = Cause(kind="Preempted", message="Another job took its place.")


def details(*past: job.Event) -> job_details:
    models = ReadModels()
    for record in records_of(*past):
        models.apply(record)
    return models.jobs[JOB]
