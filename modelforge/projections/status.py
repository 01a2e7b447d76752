"""The status: the job that has the machine, else the last one that did, else idle."""

from modelforge.domain.job import FINAL
from modelforge.projections.jobs import JobDetails, TrainingStatus, status_of


def current_job(current: JobDetails | None, changed: JobDetails) -> JobDetails:
    """Which of two jobs the status describes, once `changed` has changed."""
    if current is None or current.job_id == changed.job_id or changed.status in {"starting", "training", "stopping"}:
        return changed
    # A job that waits, or that was taken out of the queue, never hides the one that runs or ran last.
    return changed if current.status in FINAL and changed.status == "queued" else current


def training_status(current: JobDetails | None) -> TrainingStatus:
    """What `GET /api/training_status` answers."""
    return status_of(current)
