"""Whose turn it is: the jobs that run, those that wait, and the one that the status describes."""

from msgspec import Struct

from modelforge.domain import job
from modelforge.domain.job import FINAL
from modelforge.domain.state import without
from modelforge.projections.jobs import Status


class Turns(Struct, frozen=True, kw_only=True, gc=False):
    """`running`: in the order in which they began. `waiting`: the queue. `last`: who ran last, or asked first."""

    running: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    last: str | None = None

    def after(self, event: job.Event, status: Status) -> "Turns":
        """The turns after a job's event, which left it with `status`."""
        job_id, running, waiting, last = event.job_id, self.running, self.waiting, self.last
        if isinstance(event, job.TrainingRequested):
            waiting = (*waiting, job_id) if event.queued else waiting
            # A job that waits never hides the one that runs; one that asks of an idle machine is about to run.
            last = last if running else job_id
        elif isinstance(event, job.AttemptLaunching):
            running = running if job_id in running else (*running, job_id)
            waiting = without(waiting, job_id)
        elif status in FINAL:
            # A job that is taken out of the queue never hides the one that ran last.
            last = job_id if job_id in running else last
            running, waiting = without(running, job_id), without(waiting, job_id)
        return Turns(running=running, waiting=waiting, last=last)

    def current(self) -> str | None:
        """The job that the status describes: the first of those that run, else the last one that did."""
        return self.running[0] if self.running else self.last
