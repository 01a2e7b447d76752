"""What `/metrics` says: the server as Prometheus, or a reader of OpenMetrics, asks for it.

What the log has is counted anew for each answer, so that it outlasts a restart; what is counted as it happens begins at
0 with the server, as Prometheus expects it.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from modelforge.domain import job
from modelforge.domain.messages import Record
from modelforge.domain.state import State
from modelforge.layout import Layout
from modelforge.projections.indexes import Indexes
from modelforge.projections.jobs import JobDetails, Status
from modelforge.projections.projector import Projector
from modelforge.version import VERSION
from trainer_entry import wire

_DURATIONS = (10, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 72 * 3600)
_ENDS = ("completed", "failed", "stopped")
_NO_VERSION = re.compile(r";\s*version=(?![0-9]{1,3}(\.[0-9]{1,3}){0,2}\s*(?:[;,]|$))[^;,]*")
"""A version in the header Accept that is none, on which Prometheus' client fails."""


class Exposition:
    """What the server counts, and how it is read."""

    def __init__(self, state: State, projector: Projector, layout: Layout, gpus: int) -> None:
        """`gpus`: how many trainings may use; their driver is not asked for each answer, which may take seconds."""
        self._state = state
        self._registry = CollectorRegistry(auto_describe=False)
        self._ends = Counter(
            "modelforge_job_ends", "Jobs that ended since the server's start.", ["status"], registry=self._registry
        )
        self._attempts = Counter(
            "modelforge_job_attempts", "Attempts at jobs since the server's start.", registry=self._registry
        )
        self._durations = Histogram(
            "modelforge_job_duration_seconds",
            "From the beginning of an attempt to the end of its job, of those that ended since the server's start.",
            ["kind"],
            buckets=_DURATIONS,
            registry=self._registry,
        )
        for status in _ENDS:
            self._ends.labels(status)
        for kind in get_args(wire.JobKind):
            self._durations.labels(kind)
        self._began: dict[str, int] = {}
        self._registry.register(_ReadModelCollector(projector, layout, gpus))
        ProcessCollector(registry=self._registry)

    def take(self, records: Sequence[Record]) -> None:
        """Count what new records tell."""
        for record in records:
            match record.message:
                case job.AttemptLaunching(job_id=job_id):
                    self._attempts.inc()
                    self._began[job_id] = record.at
                case job.TrainingCompleted(job_id=job_id):
                    self._end(job_id, "completed", record.at)
                case job.TrainingFailed(job_id=job_id):
                    self._end(job_id, "failed", record.at)
                case job.TrainingStopped(job_id=job_id):
                    self._end(job_id, "stopped", record.at)
                case _:
                    pass

    def _end(self, job_id: str, status: str, at: int) -> None:
        self._ends.labels(status).inc()
        began = self._began.pop(job_id, None)  # none of one that never left the queue, or began before this server
        if began is not None:
            self._durations.labels(self._state.jobs[job_id].spec.kind).observe((at - began) / 1_000_000)

    def answer(self, accept: str) -> tuple[bytes, str]:
        """All of it, and its content type: OpenMetrics, or Prometheus' own text, as the header Accept asks."""
        encoder, content_type = choose_encoder(_NO_VERSION.sub("", accept))
        return encoder(self._registry), content_type


class _ReadModelCollector(Collector):
    """What the read models and the disk say now."""

    def __init__(self, projector: Projector, layout: Layout, gpus: int) -> None:
        self._projector = projector
        self._layout = layout
        self._gpus = gpus

    def collect(self) -> Iterable[Metric]:
        """Every figure that is not counted as it happens."""
        models = self._projector.read_models
        yield InfoMetricFamily("modelforge_build", "The release.", {"version": VERSION})
        yield CounterMetricFamily("modelforge_log_records", "Records in the event log.", models.position)
        yield from _jobs(self._projector.indexes)
        running = [models.jobs[job_id] for job_id in models.queue.running]
        yield from _running(running)
        leased = sum(len(details.gpus) for details in running)
        yield GaugeMetricFamily("modelforge_gpus", "GPUs that trainings may use.", self._gpus)
        yield GaugeMetricFamily("modelforge_gpus_leased", "GPUs that jobs have.", leased)
        yield GaugeMetricFamily("modelforge_models", "Trained models.", len(models.models))
        yield GaugeMetricFamily("modelforge_datasets", "Uploaded datasets.", len(models.datasets))
        yield GaugeMetricFamily("modelforge_webhook_endpoints", "Addresses told of jobs.", len(models.webhooks))
        yield from _disk(self._layout)


def _jobs(indexes: Indexes) -> Iterator[Metric]:
    total = CounterMetricFamily("modelforge_jobs", "Jobs that were asked for.", labels=["kind"])
    for kind in get_args(wire.JobKind):
        total.add_metric([kind], indexes.count_kind(kind))
    yield total
    states = GaugeMetricFamily("modelforge_job_states", "Jobs by what they are now.", labels=["status"])
    for status in get_args(Status):
        if status != "idle":
            states.add_metric([status], indexes.count_jobs(status))
    yield states


def _running(running: list[JobDetails]) -> Iterator[Metric]:
    """Each figure of the jobs that run, where it is known."""
    families = (
        ("modelforge_job_progress_ratio", "How much of a running job is done, from 0 to 1.", _progress),
        ("modelforge_job_step", "Steps that a running job has done.", lambda details: details.current_step),
        ("modelforge_job_planned_steps", "Steps that it has in all.", lambda details: details.total_steps),
        ("modelforge_job_loss", "The last loss of a running job.", lambda details: details.loss),
        ("modelforge_job_learning_rate", "Its last learning rate.", lambda details: details.learning_rate),
        ("modelforge_job_left_seconds", "The time left of a running job.", lambda details: details.eta_seconds),
        ("modelforge_job_stalled", "1 where its trainer is silent.", lambda details: int(details.stalled)),
    )
    for name, told, figure in families:
        family = GaugeMetricFamily(name, told, labels=["job_id"])
        for details in running:
            value = figure(details)
            if value is not None:
                family.add_metric([details.job_id or ""], value)
        yield family


def _progress(details: JobDetails) -> float | None:
    return None if details.progress is None else details.progress / 100


def _disk(layout: Layout) -> Iterator[Metric]:
    disk = os.statvfs(layout.root)
    free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    yield GaugeMetricFamily("modelforge_disk_free_bytes", "Free where the data directory is.", free)
    yield GaugeMetricFamily("modelforge_disk_size_bytes", "That disk's size.", size)
    yield GaugeMetricFamily("modelforge_log_size_bytes", "The event log, without its WAL.", layout.log.stat().st_size)
