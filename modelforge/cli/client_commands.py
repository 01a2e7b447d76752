"""The commands that talk to a running server."""

import argparse
import contextlib
import os
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from modelforge.cli.screen import Screen
from modelforge.cli.terminal import jobs_table, show_training
from modelforge.client import Client, RequestRefused
from modelforge.errors import DatasetReport
from modelforge.http.jobs import JobList
from modelforge.http.training import Started, Stopped
from modelforge.http.uploads import Uploaded
from modelforge.projections.jobs import JobDetails, TrainingStatus
from modelforge.projections.models import ModelDetails
from modelforge.projections.status_messages import StatusMessage
from trainer_entry import wire

_SHOWN_WARNINGS = 5


async def run(options: argparse.Namespace) -> int:
    """Run a client command; the exit code is 1 where a watched training did not complete."""
    console = Screen()
    async with Client(options.url, token=_token(options.token_file)) as client:
        match options.command:
            case "train":
                return await _train(client, options, console)
            case "watch":
                job_id = options.job_id or await _current(client)
                return await _watch(client, job_id, 0, console)
            case "jobs":
                console.print(jobs_table((await client.get("/api/jobs", JobList)).jobs))
                return 0
            case "checkpoint":
                job_id = options.job_id or await _current(client)
                await client.post(f"/api/jobs/{job_id}/checkpoint", {}, JobDetails)
                console.show(f"{job_id} saves a checkpoint at its next step")
                return 0
            case "resume":
                return await _resume(client, options, console)
            case "rerun":
                return await _rerun(client, options, console)
            case _ if options.all:
                return await _stop_all(client, console)
            case _:
                return await _stop(client, options.job_id, console)


def _token(file: Path | None) -> str | None:
    """The token to show, if there is one."""
    if file is None:
        return os.environ.get("MODELFORGE_API_TOKEN", "").strip() or None
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestRefused("The file of the token cannot be read", f"{file}: {error}") from error


def _show_warnings(report: DatasetReport, console: Screen) -> None:
    """The first warnings of a dataset, for a person to check while the training starts."""
    for warning in report.warnings[:_SHOWN_WARNINGS]:
        field = f", {warning.field}" if warning.field else ""
        console.show(f"  line {warning.line}{field}: {warning.message}")
    more = report.warning_count - _SHOWN_WARNINGS
    if more > 0:
        console.show(f"  and {more} more: GET /api/datasets/{{filename}} lists them")


async def _train(client: Client, options: argparse.Namespace, console: Screen) -> int:
    if not options.dataset.is_file():
        raise RequestRefused("No such dataset", f"There is no file {options.dataset}.")
    uploaded = await client.upload(options.dataset, Uploaded)
    console.show(f"Uploaded {uploaded.filename}: {uploaded.num_examples} examples, {uploaded.format}")
    _show_warnings(uploaded.validation, console)
    body: dict[str, object] = {
        "task": options.task,
        "strategy": options.strategy,
        "provider": options.provider,
        "model_name": options.model,
        "dataset": uploaded.filename,
        "queue": options.queue,
        **dict(options.parameters),
    }
    if options.output_name is not None:
        body["output_name"] = options.output_name
    started = await client.post("/api/start_training", body, Started)
    console.show(f"{started.message}: {started.job_id}")
    if not options.watch:
        return 0
    return await _watch(client, started.job_id, _position_of(started.job_id), console)


def _position_of(job_id: str) -> int:
    """A job's id has the position at which it begins."""
    return int(job_id.removeprefix("train_"))


async def _current(client: Client) -> str:
    status = await client.get("/api/training_status", TrainingStatus)
    if status.job_id is None:
        raise RequestRefused("No job yet", "There is nothing to watch; `modelforge train` starts a job.")
    return status.job_id


async def _watch(client: Client, job_id: str, after: int, console: Screen) -> int:
    after = after or _position_of((await client.get(f"/api/jobs/{job_id}", JobDetails)).job_id or "train_0")
    last = await show_training(client.follow(after, StatusMessage), job_id, console)
    if last.status == "completed":
        details = await client.get(f"/api/jobs/{job_id}", JobDetails)
        match details.delivery:
            case wire.Exported(path=path, sha256=sha256, warnings=warnings):
                console.show(f"Exported: {path}, SHA-256 {sha256}", soft_wrap=True)
                for warning in warnings:
                    console.show(warning, soft_wrap=True)
                return 0
            case wire.Pushed(url=url):
                console.show(f"Pushed: {url}", soft_wrap=True)
                return 0
            case None:
                pass
        model = await client.get(f"/api/models/{details.model_id}", ModelDetails)
        console.show(f"Model {model.id}, {model.name}: {model.path}", soft_wrap=True)
        return 0
    if last.error is not None:
        console.print(f"{last.error.kind}: {last.error.message}")
    console.show(f"The training is {last.status}. Its log: {client.url}/api/jobs/{job_id}/logs")
    return 1


async def _resume(client: Client, options: argparse.Namespace, console: Screen) -> int:
    job = await client.post(f"/api/jobs/{options.job_id}/resume", {}, JobDetails)
    console.show(f"{job.job_id} goes on: attempt {job.attempt}")
    return await _watch(client, options.job_id, job.position, console) if options.watch else 0


async def _rerun(client: Client, options: argparse.Namespace, console: Screen) -> int:
    job = await client.post(f"/api/jobs/{options.job_id}/rerun", {"queue": options.queue}, JobDetails)
    job_id = job.job_id or ""
    console.show(f"{job_id} does what {options.job_id} did: it is {job.status}")
    return await _watch(client, job_id, _position_of(job_id), console) if options.watch else 0


async def _stop_all(client: Client, console: Screen) -> int:
    """Again and again, first those that wait, until none is left: a job may start, or end, in between."""
    while True:
        waiting = (await client.get("/api/jobs?status=queued&limit=1000", JobList)).jobs
        for job in waiting:
            with _unless_it_is_too_late():
                await client.post(f"/api/jobs/{job.job_id}/cancel", {}, JobDetails)
                console.show(f"{job.job_id} waits no longer")
        status = await client.get("/api/training_status", TrainingStatus)
        if status.status in {"starting", "training", "stopping"}:
            with _unless_it_is_too_late():
                await _stop(client, None, console)
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


async def _stop(client: Client, job_id: str | None, console: Screen) -> int:
    if job_id is None:
        stopped = await client.post("/api/stop_training", {}, Stopped)
        console.show(f"{stopped.message}: {stopped.job_id}")
    else:
        job = await client.post(f"/api/jobs/{job_id}/stop", {}, JobDetails)
        console.show(f"{job.job_id} is {job.status}")
    return 0
