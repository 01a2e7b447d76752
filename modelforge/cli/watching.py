"""A job that is watched until its end: what is said meanwhile, at the end, and run then."""

import asyncio
import shlex
import sys

from msgspec import Struct

from modelforge.cli.connection import path_of
from modelforge.cli.flags import Server
from modelforge.cli.screen import Screen, complain
from modelforge.cli.terminal import in_figures, show_steps, show_training, to_type
from modelforge.cli.wording import counted
from modelforge.connection import Connection
from modelforge.projections.jobs import JobDetails
from modelforge.projections.models import ModelDetails
from modelforge.visible_text import visible
from trainer_entry import wire


class _Spec(Struct, frozen=True):
    output_name: str


class _Requested(Struct, frozen=True):
    spec: _Spec


class _Request(Struct, frozen=True):
    data: _Requested


class _Requests(Struct, frozen=True):
    events: list[_Request]


def steps_of_running(job_id: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """What can be done with a job that runs."""
    return (f"watch {job_id}", "shows it"), (f"stop {job_id}", "ends it")


async def watch_job(
    client: Connection, job_id: str, console: Screen, server: Server, *, after: int | None = None
) -> int:
    """Show a job from its beginning or a position on, until its end; the exit code is 1 where it did not complete."""
    from modelforge.client.jobs import JobCalls  # with all that the client may ask, which no other command needs

    try:
        await show_training(JobCalls(client).follow_job(job_id, after=after), console, as_json=server.json)
    except asyncio.CancelledError:  # Ctrl-C
        for line in ("", f"{job_id} goes on.", *to_type(*steps_of_running(job_id))):
            sys.stderr.write(f"{visible(line)}\n")
        raise
    details = await client.get(path_of("jobs", job_id), JobDetails)
    if details.status != "completed":
        if details.error is not None:
            console.print(f"{details.error.kind}: {details.error.message}", soft_wrap=True)
        console.show(f"The {details.kind} {'failed' if details.status == 'failed' else f'is {details.status}'}.")
        show_steps(console, (f"resume {job_id}", "goes on with it"), (f"logs {job_id}", "has what it wrote"))
        return 1
    match details.delivery:
        case wire.Exported(path=path, sha256=sha256, warnings=warnings):
            console.show(f"Exported: {path}, SHA-256 {sha256}", soft_wrap=True)
            for warning in warnings:
                console.show(warning, soft_wrap=True)
        case wire.Pushed(url=url):
            console.show(f"Pushed: {url}", soft_wrap=True)
        case wire.Judged(records=records, metrics=metrics):
            console.show(f"Judged on {counted(records, 'record')}: {in_figures(metrics)}", soft_wrap=True)
        case None:
            model = await client.get(path_of("models", details.model_id), ModelDetails)
            console.show(f"Model {model.id}, {model.name}: {model.path}", soft_wrap=True)
            steps = (f"chat --model {model.id}", "asks it"), (f"models export {model.id}", "copies it out")
            show_steps(console, *steps)
    return 0


async def run_on_end(client: Connection, job_id: str, command: str) -> None:
    """Run a command at the end of a job, with what the server's own would find; why it failed is said."""
    from modelforge.end_command import end_variables, run_end_command

    details = await client.get(path_of("jobs", job_id), JobDetails)
    path = path_of("events", stream=job_id, type="TrainingRequested", limit=1)
    requests = (await client.get(path, _Requests)).events
    variables = end_variables(
        job_id,
        details.status,
        kind=details.kind,
        name=requests[0].data.spec.output_name if requests else "",
        model=details.model_name,
        error="" if details.error is None else f"{details.error.kind}: {details.error.message}",
    )
    reason = await run_end_command(shlex.split(command), variables, stdout=sys.stderr.fileno(), outlives=False)
    if reason is not None:
        complain(f"--on-end failed: {reason}")
