"""Trainings and all other jobs: started, watched, ended, gone on with."""

import contextlib
from collections.abc import AsyncGenerator

from msgspec import Struct

from modelforge.admission.training import Preflight, StartTrainingBody
from modelforge.client.calls import Calls, takes, takes_of
from modelforge.domain.job import FINAL, first_position
from modelforge.http.jobs import Checkpoints, JobList
from modelforge.http.metrics import Metrics
from modelforge.http.reruns import RerunBody
from modelforge.http.training import Started, Stopped
from modelforge.projections.jobs import JobDetails, Status, TrainingStatus
from modelforge.projections.status_messages import StatusMessage


class LogPart(Struct, frozen=True):
    """A part of what a trainer wrote on stderr, at most a mebibyte, and the offset at which the next part begins."""

    data: bytes
    next_offset: int


class JobCalls(Calls):
    """What is asked of jobs."""

    @takes(StartTrainingBody)
    async def start_training(self, body: StartTrainingBody) -> Started:
        """Start a training: `task`, `model_name`, `dataset`, and every parameter by its name.

        Raises:
            RequestRefused: it cannot be trained so, or not now; `field` names what to change.
        """
        return await self._post(Started, "start_training", body=body)

    @takes(StartTrainingBody)
    async def preflight(self, body: StartTrainingBody) -> Preflight:
        """All that speaks against a training, and the memory and disk that it takes; nothing is started."""
        return await self._post(Preflight, "preflight", body=body)

    async def get_training_status(self) -> TrainingStatus:
        """How far the active job is, else the last one."""
        return await self._get(TrainingStatus, "training_status")

    async def stop_training(self) -> Stopped:
        """Stop the job that runs; returns once all its processes are gone."""
        return await self._post(Stopped, "stop_training")

    async def list_jobs(
        self, *, status: Status | None = None, limit: int | None = None, after: str | None = None
    ) -> JobList:
        """Jobs, newest first. `after`: the id of the last job of the page before."""
        return await self._get(JobList, "jobs", status=status, limit=limit, after=after)

    async def get_job(self, job_id: str) -> JobDetails:
        """One job, with everything that is known of it."""
        return await self._get(JobDetails, "jobs", job_id)

    async def stop_job(self, job_id: str) -> JobDetails:
        """Ask a job to save a checkpoint and end, or take it out of the queue."""
        return await self._post(JobDetails, "jobs", job_id, "stop")

    async def cancel_job(self, job_id: str) -> JobDetails:
        """Take a job out of the queue."""
        return await self._post(JobDetails, "jobs", job_id, "cancel")

    async def save_checkpoint(self, job_id: str) -> JobDetails:
        """Ask a job for a checkpoint at its next step; it goes on after it."""
        return await self._post(JobDetails, "jobs", job_id, "checkpoint")

    async def resume_job(self, job_id: str) -> JobDetails:
        """Go on with a job that was stopped or failed, from its newest whole checkpoint."""
        return await self._post(JobDetails, "jobs", job_id, "resume")

    @takes_of(RerunBody)
    async def rerun_job(self, job_id: str, body: RerunBody) -> JobDetails:
        """Start a job again as a new one, which is the answer: the same records, model and parameters."""
        return await self._post(JobDetails, "jobs", job_id, "rerun", body=body)

    async def get_checkpoints(self, job_id: str) -> Checkpoints:
        """The checkpoints of a job, oldest first."""
        return await self._get(Checkpoints, "jobs", job_id, "checkpoints")

    async def get_metrics(self, job_id: str, *, after: int | None = None, limit: int | None = None) -> Metrics:
        """The figures of a job's steps and evaluations. `after`: the `last_position` of the page before."""
        return await self._get(Metrics, "jobs", job_id, "metrics", after=after, limit=limit)

    async def get_logs(self, job_id: str, *, offset: int = 0, attempt: int | None = None) -> LogPart:
        """What a trainer wrote on stderr, from a byte on; of the last attempt by default."""
        return LogPart(*await self._connection.read_log(job_id, offset=offset, attempt=attempt))

    async def follow_job(
        self, job_id: str, *, after: int | None = None, records: bool = False
    ) -> AsyncGenerator[StatusMessage, None]:
        """The status of a job after each of its events, until the job is at its end.

        It begins with the job, or after a `position` that was seen before. A connection that is lost, and a server that
        starts again, are waited for: no message is left out and none comes twice. `records`: each message has its
        record of the log.

        Raises:
            RequestRefused: there is no such job or position, or the server did not come back within a minute.
        """
        job = await self.get_job(job_id)
        position = first_position(job_id) - 1 if after is None else after
        asked = {"job_id": job_id, **({"records": "true"} if records else {})}
        async with contextlib.aclosing(self._connection.follow(position, StatusMessage, **asked)) as messages:
            while job.status not in FINAL or position < job.position:
                message = await anext(messages)
                position = message.position
                yield message
                if message.status in FINAL and job.position <= position:  # unless it goes on: then it was no end
                    job = await self.get_job(job_id)
