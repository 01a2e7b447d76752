"""The commands about jobs: listed, watched, stopped, gone on with, repeated."""

import asyncio
import codecs
import contextlib
import sys
from collections.abc import Iterator
from http import HTTPStatus
from typing import Annotated

import msgspec
from cyclopts import Parameter

from modelforge.cli.answers import JobList, Stopped
from modelforge.cli.connection import connect, path_of, read_as
from modelforge.cli.flags import LOCAL, AtServer, Queue, Server, Watch
from modelforge.cli.screen import Screen, say_json
from modelforge.cli.terminal import facts, jobs_table, show_steps
from modelforge.cli.watching import run_on_end, steps_of_running, watch_job
from modelforge.connection import Connection
from modelforge.domain.job import FINAL
from modelforge.projections.jobs import JobDetails, Status, TrainingStatus
from modelforge.server_answers import RequestRefused, decoded
from modelforge.settings import check_command
from modelforge.visible_text import visible_lines

_ACTIVE = frozenset({"starting", "training", "stopping"})
_LOG_SECONDS = 0.5
_WIDE = 100
"""Columns that a table of jobs takes with names of a usual length."""
JobId = Annotated[str | None, Parameter(help="the job; by default the one that runs, or ran last")]
ThisJob = Annotated[str, Parameter(help="the job's id")]


async def jobs(
    job_id: Annotated[str | None, Parameter(help="show this one, with all that is known of it")] = None,
    /,
    *,
    status: Annotated[Status | None, Parameter(help="only jobs with this status")] = None,
    limit: Annotated[int, Parameter(help="how many, the newest first")] = 50,
    server: AtServer = LOCAL,
) -> int:
    """List the jobs, newest first, or show one."""
    console = Screen()
    async with connect(server) as client:
        if job_id is not None:
            details = read_as(await client.ask("GET", path_of("jobs", job_id)), JobDetails, server)
            if details is not None:
                console.print(facts(details))
            return 0
        answer = read_as(await client.ask("GET", path_of("jobs", status=status, limit=limit)), JobList, server)
    if answer is None:
        return 0
    if not answer.jobs:
        none = "There is no job yet; `modelforge train FILE --model MODEL` starts one."
        console.show(none if status is None else f"No job is {status}.")
        return 0
    console.print(jobs_table(answer.jobs, narrow=console.is_terminal and console.width < _WIDE))
    if answer.has_more:
        console.show(f"There are older ones: --limit {2 * limit} shows more.")
    return 0


async def watch(
    job_id: JobId = None,
    /,
    *,
    on_end: Annotated[
        str | None, Parameter(help="a command that is run at its end, without a shell, as that of `serve` is")
    ] = None,
    server: AtServer = LOCAL,
) -> int:
    """Show a training until its end; Ctrl-C ends the watching, and not the training."""
    check_command(on_end, "of --on-end")
    async with connect(server) as client:
        job = job_id or await _current(client)
        code = await watch_job(client, job, Screen(stderr=server.json), server)
        if on_end is not None:
            await run_on_end(client, job, on_end)
        return code


async def logs(
    job_id: JobId = None,
    /,
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], help="go on until the job ends")] = False,
    attempt: Annotated[int | None, Parameter(help="of this attempt; of the last one by default")] = None,
    server: AtServer = LOCAL,
) -> int:
    """Print what a job's trainer wrote on stderr."""
    async with connect(server) as client:
        job = job_id or await _current(client)
        offset, shown, text = 0, attempt, codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            details = await client.get(path_of("jobs", job), JobDetails)
            if attempt is None and shown != max(details.attempt, 1):
                shown, offset = max(details.attempt, 1), 0
            data, offset = await client.read_log(job, offset=offset, attempt=shown)
            _print_log(job, shown, text.decode(data), as_json=server.json)
            if not data and (not follow or details.status in FINAL):
                return 0
            if not data:
                await asyncio.sleep(_LOG_SECONDS)


def _print_log(job_id: str, attempt: int | None, text: str, *, as_json: bool) -> None:
    if as_json and text:
        say_json(msgspec.json.encode({"job_id": job_id, "attempt": attempt, "text": text}))
    elif text:
        sys.stdout.write(visible_lines(text.replace("\r\n", "\n").replace("\r", "\n")))
        sys.stdout.flush()


async def stop(
    job_id: JobId = None,
    /,
    *,
    stop_all: Annotated[bool, Parameter(name="--all", help="every job: those that wait too")] = False,
    server: AtServer = LOCAL,
) -> int:
    """Save a checkpoint and end a training."""
    async with connect(server) as client:
        if stop_all:
            return await _stop_all(client, server)
        return await _stop(client, job_id, server)


async def checkpoint(job_id: JobId = None, /, *, server: AtServer = LOCAL) -> int:
    """Save a checkpoint of a training that goes on."""
    async with connect(server) as client:
        job = job_id or await _current(client)
        answer = await client.ask("POST", path_of("jobs", job, "checkpoint"), b"{}")
    if read_as(answer, JobDetails, server) is not None:
        Screen().show(f"{job} saves a checkpoint at its next step")
    return 0


async def resume(job_id: ThisJob, /, *, watch: Watch = False, server: AtServer = LOCAL) -> int:
    """Go on with a job that was stopped or failed, from its newest checkpoint."""
    console = Screen(stderr=server.json)
    async with connect(server) as client:
        answer = await client.ask("POST", path_of("jobs", job_id, "resume"), b"{}")
        job = decoded(answer, JobDetails, server.url)
        if read_as(answer, JobDetails, server) is not None:
            console.show(f"{job.job_id} goes on: attempt {job.attempt}")
            if not watch:
                show_steps(console, *steps_of_running(job_id))
        return await watch_job(client, job_id, console, server, after=job.position) if watch else 0


async def rerun(job_id: ThisJob, /, *, queue: Queue = False, watch: Watch = False, server: AtServer = LOCAL) -> int:
    """Start a job again as a new one, from its records."""
    console = Screen(stderr=server.json)
    async with connect(server) as client:
        answer = await client.ask("POST", path_of("jobs", job_id, "rerun"), msgspec.json.encode({"queue": queue}))
        job = decoded(answer, JobDetails, server.url)
        new = job.job_id or ""
        if read_as(answer, JobDetails, server) is not None:
            console.show(f"{new} does what {job_id} did: it is {job.status}")
            if not watch:
                show_steps(console, *steps_of_running(new))
        return await watch_job(client, new, console, server) if watch else 0


async def _current(client: Connection) -> str:
    status = await client.get("/api/training_status", TrainingStatus)
    if status.job_id is None:
        raise RequestRefused("No job yet", "There is nothing to show; `modelforge train` starts a job.")
    return status.job_id


async def _stop_all(client: Connection, server: Server) -> int:
    """Again and again, first those that wait, until none is left: a job may start, or end, in between."""
    console = Screen(stderr=server.json)
    while True:
        waiting = (await client.get("/api/jobs?status=queued&limit=1000", JobList)).jobs
        for job in waiting:
            with _unless_it_is_too_late():
                await client.post(path_of("jobs", job.job_id, "cancel"), {}, JobDetails)
                console.show(f"{job.job_id} waits no longer")
        status = await client.get("/api/training_status", TrainingStatus)
        if status.status in _ACTIVE:
            with _unless_it_is_too_late():
                await _stop(client, None, server)
        elif not waiting:
            return 0


@contextlib.contextmanager
def _unless_it_is_too_late() -> Iterator[None]:
    """What waited may run by now, and what ran may have ended."""
    try:
        yield
    except RequestRefused as refusal:
        if refusal.status != HTTPStatus.CONFLICT:
            raise


async def _stop(client: Connection, job_id: str | None, server: Server) -> int:
    console = Screen()
    if job_id is None:
        answer = await client.ask("POST", "/api/stop_training", b"{}")
        stopped = read_as(answer, Stopped, server)
        if stopped is not None:
            console.show(f"{stopped.message}: {stopped.job_id}")
            show_steps(console, (f"resume {stopped.job_id}", "goes on with it"))
    else:
        job = read_as(await client.ask("POST", path_of("jobs", job_id, "stop"), b"{}"), JobDetails, server)
        if job is not None:
            console.show(f"{job.job_id} is {job.status}")
            if job.kind == "training":
                show_steps(console, (f"resume {job.job_id}", "goes on with it"))
    return 0
