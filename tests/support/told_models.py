"""A log that has trained models of every kind, as their jobs would have written it; no trainer ran."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec.structs import replace

from modelforge.layout import Layout
from support.running_log import RunningLog, running_log
from support.running_server import RunningServer, scripted_server
from support.scenario import DATASET, PARAMETERS, SAVED, gone, lines, spawned, spec, start, started, step
from trainer_entry import wire

HOSTILE = "<img src=x onerror=alert(1)>\u202e" + "n" * 60
CONTEXT = "Yeast \U0001f35e fills the dough with tiny bubbles of gas."
COOK, MERGED, READER, WRITER, HOSTILE_MODEL = 1, 2, 3, 4, 5
"""The models' ids: an adapter, what it was merged into, one that reads, one that sums up, and one of a hostile name."""
_METRICS: dict[str, float | None] = {"final_loss": 0.5, "eval_loss": 1.0, "base_eval_loss": 2.0}
_WORK = wire.WorkPlanned(
    attempt=1,
    seq=1,
    total_steps=10,
    unit="bytes",
    environment=wire.Environment(python="3.11.7", platform="Linux", device="cpu", versions={}),
)


async def _train(
    log: RunningLog, asked: wire.JobSpec, model: wire.SavedModel, rate: float = 2e-4, losses: int = 6
) -> str:
    job_id = (await log.submit(replace(start(""), spec=asked))).stream
    await log.submit(spawned(job_id))
    begun = replace(started(1), parameters=replace(asked.parameters, learning_rate=rate))
    figures = [
        replace(step(1 + n, n, loss=3.0 / n, total_steps=losses), reward=n / 10, kl=n / 100, elapsed_seconds=2.0 * n)
        for n in range(1, losses + 1)
    ]
    judged = wire.Evaluated(attempt=1, seq=losses + 2, step=losses, epoch=1.0, metrics={"eval_loss": 1.0})
    last = losses + 3
    word = wire.TrainerFinished(attempt=1, seq=last, step=losses, messages=last, model=model)
    await log.submit(lines(100, begun, *figures, judged, word, job_id=job_id))
    await log.submit(gone(job_id))
    return job_id


async def _work(
    log: RunningLog,
    asked: wire.JobSpec,
    *,
    model: wire.SavedModel | None = None,
    delivery: wire.Exported | wire.Judged | None = None,
) -> None:
    job_id = (await log.submit(replace(start(""), spec=asked))).stream
    await log.submit(spawned(job_id))
    word = wire.TrainerFinished(attempt=1, seq=2, step=10, messages=2, model=model, delivery=delivery)
    await log.submit(lines(100, _WORK, word, job_id=job_id))
    await log.submit(gone(job_id))


def _saved(name: str, kind: wire.ModelKind = "adapter") -> wire.SavedModel:
    return replace(SAVED, path=f"/data/models/{name}", kind=kind, metrics=_METRICS)


async def _tell(data_dir: Path) -> None:
    async with running_log(Layout(data_dir).log) as log:
        asked = spec("")
        first = await _train(log, replace(asked, output_name="cook"), _saved("cook"))
        cook = wire.Ancestor(model_id=COOK, name="cook", job_id=first, base_model="base")
        path = "/data/models/cook"
        merge = wire.Merge(model_id=COOK, name="cook", path=path)
        merging = replace(asked, work=merge, output_name="cook-merged", lineage=(cook,))
        await _work(log, merging, model=_saved("cook-merged", "full"))
        reads = replace(asked, task="extractive-question-answering", output_name="reader")
        await _train(log, reads, _saved("reader"))
        await _train(log, replace(asked, task="summarization", output_name="writer"), _saved("writer"))
        other = replace(
            asked,
            output_name=HOSTILE,
            model_name=HOSTILE,
            dataset=replace(DATASET, filename=f"{HOSTILE}.jsonl", sha256="4f" * 32),
            parameters=replace(PARAMETERS, lora_r=64),
        )
        await _train(log, other, _saved("other"), rate=5e-5, losses=9)
        export = wire.Export(model_id=MERGED, name="cook-merged", path="/data/models/cook-merged", format="tar")
        exported = wire.Exported(
            path="/data/exports/cook.tar", format="tar", files=3, size_bytes=1000, sha256="5f" * 32
        )
        await _work(log, replace(asked, work=export), delivery=exported)
        parameters = wire.TrainingParameters()
        judge = wire.Evaluate(
            model_id=COOK, name="cook", path=path, dataset=DATASET, parameters=parameters, adapts=True
        )
        await _work(log, replace(asked, work=judge), delivery=wire.Judged(records=12, metrics={"eval_loss": 0.75}))


def tell_models(data_dir: Path) -> None:
    """Write the log of a data directory; the models' files are not there."""
    data_dir.mkdir(parents=True)
    with ThreadPoolExecutor(1) as beside:  # a browser's loop may run in this thread
        beside.submit(lambda: asyncio.run(_tell(data_dir))).result()


def told_server(folder: Path) -> Iterator[RunningServer]:
    """A server that has these models, and a playground that answers as it is told."""
    tell_models(folder / "data")
    server = scripted_server(folder / "data", "--scripted-answers")
    yield server
    server.end()


def trainings(server: RunningServer) -> list[str]:
    """The ids of the jobs that made the models, the oldest first."""
    jobs = server.get("/api/jobs").json()["jobs"]
    return [job["job_id"] for job in reversed(jobs) if job["kind"] == "training"]
