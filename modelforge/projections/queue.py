"""Whose turn it is: the jobs that run, those that wait, and the one that the status describes."""

from msgspec import Struct

from modelforge.domain import job
from modelforge.domain.scheduling import queue_after
from modelforge.projections.jobs import Status


class QueueState(Struct, frozen=True, kw_only=True, gc=False):
    """`running`: in the order in which they began. `waiting`: the queue. `last`: who ran last, or asked first."""

    running: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    last: str | None = None

    def after(self, event: job.Event, status: Status) -> "QueueState":
        """The queue after a job's event, which left it with `status`."""
        running, waiting = queue_after(event, status, self.running, self.waiting)
        last = self.last
        if isinstance(event, job.TrainingRequested) and not running:
            last = event.job_id  # who asks of an idle machine is about to run; who waits never hides the one that runs
        elif event.job_id in self.running and event.job_id not in running:
            last = event.job_id  # one that is only taken out of the queue never hides the one that ran last
        return QueueState(running=running, waiting=waiting, last=last)

    def current(self) -> str | None:
        """The job that the status describes: the first of those that run, else the last one that did."""
        return self.running[0] if self.running else self.last
