"""`modelforge train` and `modelforge preflight`: what can be refused is refused before a dataset is sent."""

import uuid

import msgspec

from modelforge.cli.answers import Preflight, Started
from modelforge.cli.connection import connect, read_as
from modelforge.cli.flags import LOCAL, AtServer, Watch
from modelforge.cli.named_datasets import (
    Dataset,
    check_names,
    file_of,
    name_of_uploaded,
    named,
    names_of,
    renamed,
    sent,
)
from modelforge.cli.screen import Screen, say_json
from modelforge.cli.terminal import show_steps, size
from modelforge.cli.training_flags import TrainingAsked
from modelforge.cli.watching import steps_of_running, watch_job
from modelforge.cli.wording import refusal_in_words
from modelforge.connection import Connection
from modelforge.fields import in_detail
from modelforge.server_answers import RequestRefused, decoded


async def train(
    dataset: Dataset = None,
    /,
    *,
    asked: TrainingAsked,
    watch: Watch = False,
    server: AtServer = LOCAL,
) -> int:
    """Upload a dataset, or several, and train a model on it.

    What the server can refuse without the file, it refuses before the file is sent.

    As in: modelforge train mine.jsonl --model smollm2-135m-instruct --watch
    """
    body, taken, validation = asked.body(), named(dataset, asked.datasets), asked.validation
    typed = [*dict.fromkeys((*names_of(taken), *([] if validation is None else [validation])))]
    check_names(typed)
    console = Screen(stderr=server.json)
    async with connect(server) as client:
        if any(map(file_of, typed)):
            await _refuse_early(client, body, evaluates=validation is not None)
        names = {name: await sent(client, name, console) for name in typed}
        body["dataset"] = renamed(taken, names)
        if validation is not None:
            body["validation_dataset"] = names[validation]
        answer = await client.ask("POST", "/api/start_training", msgspec.json.encode(body))
        started = decoded(answer, Started, server.url)
        if server.json:
            say_json(answer)
        else:
            console.show(f"{started.message}: {started.job_id}")
            if not watch:
                show_steps(console, *steps_of_running(started.job_id))
        if not watch:
            return 0
        return await watch_job(client, started.job_id, console, server)


async def preflight(
    dataset: Dataset = None,
    /,
    *,
    asked: TrainingAsked,
    server: AtServer = LOCAL,
) -> int:
    """Say what speaks against a training, and what it takes; nothing is sent or started.

    A file that was not uploaded has to lie where the server may read it (serve --dataset-root).
    """
    body, taken, validation = asked.body(), named(dataset, asked.datasets), asked.validation
    typed = [*names_of(taken), *([] if validation is None else [validation])]
    async with connect(server) as client:
        names = {name: str(file_of(name) or await name_of_uploaded(client, name)) for name in typed}
        body["dataset"] = renamed(taken, names)
        if validation is not None:
            body["validation_dataset"] = names[validation]
        answer = await client.ask("POST", "/api/preflight", msgspec.json.encode(body))
        found = decoded(answer, Preflight, server.url)
        if read_as(answer, Preflight, server) is None:
            return 0 if found.ok else 1
    console = Screen()
    for problem in found.problems:
        console.show(refusal_in_words(problem), soft_wrap=True)
    if found.records is not None:
        judged = f", {found.records.evaluation} to evaluate on" if found.records.evaluation else ""
        console.show(f"records: {found.records.train} to train on{judged}")
        for one in found.records.datasets if len(found.records.datasets) > 1 else ():
            console.show(f"  {one.filename}: {one.taken}, of {one.records}", soft_wrap=True)
    for what, fit in (("memory", found.memory), ("disk", found.disk)):
        takes = "unknown" if fit.required_bytes is None else size(fit.required_bytes)
        there = "" if fit.available_bytes is None else f" of {size(fit.available_bytes)} that are free"
        console.show(f"{what}: {takes}{there}")
    console.show("Nothing speaks against it." if found.ok else "It would be refused.")
    return 0 if found.ok else 1


async def _refuse_early(client: Connection, body: dict[str, object], *, evaluates: bool) -> None:
    """Refuse what would be refused whatever is in the file.

    Raises:
        RequestRefused: all that speaks against it.
    """
    unknown = f"not-sent-yet-{uuid.uuid4().hex}"
    unsent = {"dataset": unknown, **({"validation_dataset": unknown} if evaluates else {})}
    found = await client.post("/api/preflight", {**body, **unsent}, Preflight)
    problems = tuple(
        problem
        for problem in found.problems
        if problem.field not in unsent or (problem.field == "validation_dataset" and "eval_split" in problem.message)
    )
    if problems:
        first = problems[0]
        raise RequestRefused(first.message, in_detail(first.field, first.remedy), field=first.field, refusals=problems)
