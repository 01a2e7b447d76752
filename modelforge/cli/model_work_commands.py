"""`modelforge models merge`, `export`, `push` and `evaluate`: work on a trained model, each as a job."""

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from modelforge.cli.connection import connect, path_of
from modelforge.cli.flags import LOCAL, AtServer, Queue, Server
from modelforge.cli.model_commands import ModelId
from modelforge.cli.named_datasets import sent
from modelforge.cli.screen import Screen, say_json
from modelforge.cli.terminal import show_steps
from modelforge.cli.watching import steps_of_running, watch_job
from modelforge.projections.jobs import JobDetails
from modelforge.server_answers import decoded
from trainer_entry import wire

Detach = Annotated[bool, Parameter(help="start the job, and do not wait for its end")]


async def merge(
    model_id: ModelId,
    /,
    *,
    name: Annotated[str | None, Parameter(help="what the merged model is to be called")] = None,
    dtype: Annotated[wire.Dtype | None, Parameter(help="of the merged weights; by default that of the base")] = None,
    queue: Queue = False,
    detach: Detach = False,
    server: AtServer = LOCAL,
) -> int:
    """Put an adapter into its base's weights: the result is a model of its own."""
    body: dict[str, object] = {"output_name": name, "dtype": dtype, "queue": queue}
    return await _start(model_id, "merge", body, detach=detach, server=server)


async def export(
    model_id: ModelId,
    /,
    *,
    format: Annotated[wire.ExportFormat, Parameter(help="what it is to be")] = "folder",  # noqa: A002 - the flag's name
    quantization: Annotated[
        wire.Quantization | None, Parameter(help="of a gguf, the type of its numbers; by default f16")
    ] = None,
    to: Annotated[
        Path | None, Parameter(help="where, under a --model-root of the server; by default in its data directory")
    ] = None,
    queue: Queue = False,
    detach: Detach = False,
    server: AtServer = LOCAL,
) -> int:
    """Copy a model out, as a folder, an archive, or one file for llama.cpp and Ollama (gguf).

    As in: modelforge models export 1 --format gguf --quantization q8_0
    """
    path = None if to is None else str(to.expanduser().absolute())
    body: dict[str, object] = {"format": format, "quantization": quantization, "path": path, "queue": queue}
    return await _start(model_id, "export", body, detach=detach, server=server)


async def push(
    model_id: ModelId,
    /,
    *,
    repo: Annotated[str, Parameter(help="the repository of the hub, as owner/name; it is made if it is not there")],
    public: Annotated[bool, Parameter(help="let everybody read it")] = False,
    queue: Queue = False,
    detach: Detach = False,
    server: AtServer = LOCAL,
) -> int:
    """Upload a model to the Hugging Face hub, with the token that the server has (HF_TOKEN)."""
    body: dict[str, object] = {"repo_id": repo, "private": not public, "queue": queue}
    return await _start(model_id, "push", body, detach=detach, server=server)


async def evaluate(
    model_id: ModelId,
    dataset: Annotated[str, Parameter(help="what to judge it on: a file, which is sent, or the name of a dataset")],
    /,
    *,
    max_samples: Annotated[int | None, Parameter(help="at most so many of its records, drawn by the seed")] = None,
    batch_size: Annotated[int | None, Parameter(help="records at once; by default as in its training")] = None,
    base_model: Annotated[bool, Parameter(help="judge what it was trained from, to compare")] = False,
    queue: Queue = False,
    detach: Detach = False,
    server: AtServer = LOCAL,
) -> int:
    """Judge a model on records: their loss, and what else its training says of held-out records."""
    async with connect(server) as client:
        name = await sent(client, dataset, Screen(stderr=server.json))
    body: dict[str, object] = {"dataset": name, "max_samples": max_samples, "batch_size": batch_size}
    body |= {"base_model": base_model, "queue": queue}
    return await _start(model_id, "evaluate", body, detach=detach, server=server)


async def _start(model_id: int, work: str, body: dict[str, object], *, detach: bool, server: Server) -> int:
    console = Screen(stderr=server.json)
    async with connect(server) as client:
        given = {name: value for name, value in body.items() if value is not None}
        answer = await client.ask("POST", path_of("models", model_id, work), msgspec.json.encode(given))
        job = decoded(answer, JobDetails, server.url)
        job_id = job.job_id or ""
        if server.json:
            say_json(answer)
        else:
            console.show(f"The {job.kind} of model {model_id} is {job.status}: {job_id}")
            if detach:
                show_steps(console, *steps_of_running(job_id))
        return 0 if detach else await watch_job(client, job_id, console, server)
