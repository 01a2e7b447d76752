"""`modelforge train` and `modelforge preflight`: what can be refused is refused before a dataset is sent."""

import uuid
from typing import Annotated

import msgspec
from cyclopts import Parameter

from modelforge.cli.answers import Preflight, Started
from modelforge.cli.connection import connect, read_as
from modelforge.cli.flags import LOCAL, AtServer, Queue, Watch, parameters_of
from modelforge.cli.job_commands import position_of, watch_job
from modelforge.cli.named_datasets import (
    Dataset,
    Datasets,
    Validation,
    check_names,
    file_of,
    name_of_uploaded,
    named,
    names_of,
    renamed,
    sent,
)
from modelforge.cli.screen import Screen, say_json
from modelforge.cli.terminal import size
from modelforge.cli.wording import refusal_in_words
from modelforge.connection import Connection, RequestRefused, decoded
from modelforge.fields import in_detail
from trainer_entry import wire

Model = Annotated[
    str, Parameter(help="what to train: a hub id, a folder, the id of a trained model, or smollm2-135m-instruct")
]
Task = Annotated[wire.Task, Parameter(help="what the model is to do; the records have to fit it")]
Strategy = Annotated[
    wire.Strategy, Parameter(help="how it learns: sft and qlora from answers, dpo from preferences, rlhf from rewards")
]
Provider = Annotated[wire.Provider, Parameter(help="which library loads the model")]
Name = Annotated[str | None, Parameter(name="--name", help="what the trained model is to be called")]
Parameters = Annotated[
    list[str] | None,
    Parameter(
        name="--set",
        help="NAME=VALUE, a training parameter, as in --set num_train_epochs=2; may be repeated. "
        f"The names, which docs/training.md explains: {', '.join(wire.TrainingParameters.__struct_fields__)}",
    ),
]
Restarts = Annotated[int, Parameter(help="how often a training that fails begins again by itself")]


async def train(
    dataset: Dataset = None,
    /,
    *,
    model: Model,
    datasets: Datasets = None,
    validation: Validation = None,
    task: Task = "text-generation",
    strategy: Strategy = "sft",
    provider: Provider = "huggingface",
    output_name: Name = None,
    parameters: Parameters = None,
    max_restarts: Restarts = 0,
    queue: Queue = False,
    watch: Watch = False,
    server: AtServer = LOCAL,
) -> int:
    """Upload a dataset, or several, and train a model on it.

    What the server can refuse without the file, it refuses before the file is sent.
    """
    body = _body(model, task, strategy, provider, output_name, parameters or [], max_restarts, queue=queue)
    asked = named(dataset, datasets)
    typed = [*dict.fromkeys((*names_of(asked), *([] if validation is None else [validation])))]
    check_names(typed)
    console = Screen(stderr=server.json)
    async with connect(server) as client:
        if any(map(file_of, typed)):
            await _refuse_early(client, body, evaluates=validation is not None)
        names = {name: await sent(client, name, console) for name in typed}
        body["dataset"] = renamed(asked, names)
        if validation is not None:
            body["validation_dataset"] = names[validation]
        answer = await client.ask("POST", "/api/start_training", msgspec.json.encode(body))
        started = decoded(answer, Started, server.url)
        if server.json:
            say_json(answer)
        else:
            console.show(f"{started.message}: {started.job_id}")
            if not watch:
                console.show(
                    f"`modelforge watch {started.job_id}` shows it, `modelforge stop {started.job_id}` ends it."
                )
        if not watch:
            return 0
        return await watch_job(client, started.job_id, position_of(started.job_id), console, server)


async def preflight(
    dataset: Dataset = None,
    /,
    *,
    model: Model,
    datasets: Datasets = None,
    validation: Validation = None,
    task: Task = "text-generation",
    strategy: Strategy = "sft",
    provider: Provider = "huggingface",
    output_name: Name = None,
    parameters: Parameters = None,
    max_restarts: Restarts = 0,
    queue: Queue = False,
    server: AtServer = LOCAL,
) -> int:
    """Say what speaks against a training, and what it takes; nothing is sent or started.

    A file that was not uploaded has to lie where the server may read it (serve --dataset-root).
    """
    body = _body(model, task, strategy, provider, output_name, parameters or [], max_restarts, queue=queue)
    asked = named(dataset, datasets)
    typed = [*names_of(asked), *([] if validation is None else [validation])]
    async with connect(server) as client:
        names = {name: str(file_of(name) or await name_of_uploaded(client, name)) for name in typed}
        body["dataset"] = renamed(asked, names)
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


def _body(
    model: str,
    task: wire.Task,
    strategy: wire.Strategy,
    provider: wire.Provider,
    output_name: str | None,
    parameters: list[str],
    max_restarts: int,
    *,
    queue: bool,
) -> dict[str, object]:
    """The request, but for its dataset."""
    body: dict[str, object] = {
        "task": task,
        "strategy": strategy,
        "provider": provider,
        "model_name": model,
        "queue": queue,
        **parameters_of(parameters),
    }
    if output_name is not None:
        body["output_name"] = output_name
    if max_restarts:
        body["max_restarts"] = max_restarts
    return body


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
