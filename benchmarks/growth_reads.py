"""What reads cost as the log grows: `python benchmarks/growth_reads.py [--quick] [--records 1000000]`.

Two servers, one on a short log and one on a long log, of one long job, some events of a rare type, and many jobs with a
model each. The same is asked of both in turn; what counts is the processor time of the server that answers.
"""

import argparse
import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import aiohttp
import requests
from figures import Figure, Program, Rounds
from msgspec import Raw, Struct
from server_process import NO_LIMITS, Server, processor_seconds, served

from modelforge.domain import job, model
from modelforge.domain.messages import GENESIS, Event, Message, Record, encode, stream_of, tag_of
from modelforge.event_log.sqlite import EventLog
from trainer_entry import wire

SHORT, LONG, LONG_QUICKLY = 100, 1_000_000, 100_000
RETURNING, MISSED, APART = 100, 20, 40
ASKED = 40
PAGE = 100
AT = 1_750_000_000_000_000
_PARAMETERS = wire.TrainingParameters()
_MOST = 1.5
_NOTE = f"Processor time of the server on a long log, divided by that of one on a log of {SHORT} records: "


def _read(name: str, asked: str) -> Figure:
    """What a read costs; `asked`: what it is, as the page of results tells it."""
    return Figure(name=name, unit="ms", yardstick="short log", at_most=_MOST, note=f"{_NOTE}{asked}")


RETURN = _read(
    "Return of 100 subscribers, long log / short",
    f"{RETURNING} WebSockets with `?after=` and `?job_id=`, from {APART} positions near its end.",
)
RETURN_TO_ALL = _read("The same without a job named", "the same of all jobs.")
FIRST = _read("First page of `metrics`, long log / short", f"`/api/jobs/ID/metrics?limit={PAGE}`.")
LAST = _read("Last page of `metrics`, long log / short", f"the same `?after=` the last {MISSED} steps.")
RARE = _read("`events?type=` of a rare type, long log / short", "a type of which both logs have ten records.")
STREAM = _read(
    "`events?stream=` of a long job, long log / short", f"the last {MISSED} records of the job with the steps."
)
MODELS = _read(
    "A page of `models`, long log / short",
    "the first 50 of a thousandth as many models as there are records, and at least 50.",
)
TOLD = _read(
    "Events of a long fine-tuning job, long log / short",
    "`/v1/fine_tuning/jobs/ID/events`, the newest 20 of the job with the steps.",
)


class Built(Struct, frozen=True):
    """A log: the job with the steps, and the position of its last step."""

    folder: Path
    job_id: str
    last_step: int


def spec(job_id: str) -> wire.JobSpec:
    """A job as it stands in the log."""
    records = wire.DatasetFile(
        filename="a.jsonl", path="/data/a.jsonl", sha256="3f" * 32, format="input_output", num_examples=150
    )
    return wire.JobSpec(
        job_id=job_id,
        task="text-generation",
        strategy="sft",
        provider="huggingface",
        model_name="base",
        model_path="/models/base",
        dataset=records,
        parameters=_PARAMETERS,
        max_restarts=0,
        output_name="tuned",
        output_dir=f"/data/models/{job_id}",
        checkpoint_dir=f"/data/jobs/{job_id}/checkpoints",
    )


def of_jobs(steps: int, jobs: int) -> Iterator[Message]:
    """Jobs that ended, the first of them long."""
    position = 1
    for number in range(1, jobs + 1):
        for message in of_job(f"train_{position:06}", number, steps if number == 1 else 1):
            yield message
            position += 1


def of_job(job_id: str, number: int, steps: int) -> Iterator[Message]:
    """A job that trained, and its model."""
    asked = spec(job_id)
    environment = wire.Environment(python="3", platform="Linux", device="cpu", versions={"torch": "2"})
    yield job.StartTraining(spec=asked, queue=False)
    yield job.TrainingRequested(job_id=job_id, spec=asked, queued=False)
    yield job.AttemptLaunching(job_id=job_id, attempt=1)
    started = wire.TrainerStarted(
        attempt=1,
        seq=1,
        parameters=_PARAMETERS,
        trainer_arguments={},
        environment=environment,
        total_steps=steps,
        total_epochs=3,
        train_examples=150,
        eval_examples=0,
        trainable_parameters=1000,
        all_parameters=135_000_000,
        dataset_sha256="3f" * 32,
        base_revision=None,
        chat_template=True,
        resumed_step=0,
    )
    yield job.TrainingStarted(job_id=job_id, attempt=1, seq=1, offset=1, report=started)
    for step in range(1, steps + 1):
        logged = wire.StepLogged(
            attempt=1,
            seq=step + 1,
            step=step,
            total_steps=steps,
            epoch=3 * step / steps,
            elapsed_seconds=step * 0.9,
            eta_seconds=60.0,
            loss=2.5,
            learning_rate=1e-4,
        )
        yield job.MetricsLogged(job_id=job_id, attempt=1, seq=step + 1, offset=step, steps=(logged,))
        if number == 1 and step % max(steps // 10, 1) == 0:
            yield job.CheckpointSaved(
                job_id=job_id, attempt=1, seq=step + 1, offset=step, step=step, path=f"/data/checkpoint-{step}"
            )
    kept = wire.SavedModel(path=asked.output_dir, kind="adapter", size_bytes=1, metrics={"final_loss": 0.5})
    yield job.AttemptExited(job_id=job_id, attempt=1, exit=None)
    yield job.TrainingCompleted(job_id=job_id, model=kept, step=steps)
    yield model.ModelRegistered(model_id=number, name=f"tuned {number}", spec=asked, parameters=_PARAMETERS, model=kept)


async def write(path: Path, messages: Iterator[Message]) -> int:
    """Write a log, and give the position of the last step of its first job; no digest is right."""
    log = await EventLog.open(path)
    versions = Counter[str]()
    first_job, last_step, position = "", 0, 0
    try:
        while batch := list(itertools.islice(messages, 20_000)):
            records = []
            for message in batch:
                position += 1
                stream = stream_of(message)
                first_job = first_job or stream
                versions[stream] += 1
                if isinstance(message, job.MetricsLogged) and stream == first_job:
                    last_step = position
                records.append(
                    Record(
                        position=position,
                        stream=stream,
                        version=versions[stream],
                        kind="event" if isinstance(message, Event) else "command",
                        type=tag_of(message),
                        at=AT + position,
                        cause=None,
                        actor="api",
                        data=Raw(encode(message)),
                        digest=GENESIS,
                        message=message,
                    )
                )
            await log.append(records)
    finally:
        await log.close()
    return last_step


def build(folder: Path, steps: int, jobs: int) -> Built:
    """A data directory with such a log."""
    folder.mkdir(mode=0o700, exist_ok=True)
    last_step = asyncio.run(write(folder / "events.sqlite", of_jobs(steps, jobs)))
    return Built(folder, "train_000001", last_step)


async def return_to(server: Server, query: str, last_step: int, frames: int) -> None:
    """Subscribers come back all at once, and are told what they missed."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def come_back(after: int) -> None:
            url = f"{server.url}/ws/training?after={after}{query}"
            async with session.ws_connect(url, headers=server.headers) as socket:
                for _ in range(frames):
                    await socket.receive_str()

        await asyncio.gather(*(come_back(last_step - MISSED - number % APART) for number in range(RETURNING)))


async def get(server: Server, path: str, times: int) -> bytes:
    """Ask for a page so often."""
    body = b""
    async with aiohttp.ClientSession(headers=server.headers) as session:
        for _ in range(times):
            async with session.get(server.url + path) as answer:
                answer.raise_for_status()
                body = await answer.read()
    return body


def ready(server: Server) -> None:
    """Wait until it has read its log."""
    while requests.get(f"{server.url}/api/info", timeout=20).status_code != HTTPStatus.OK:
        time.sleep(0.2)


def costs(server: Server, built: Built) -> dict[str, float]:
    """Processor milliseconds of the server, a figure each: of all subscribers together, or of one page."""
    job_id, last = built.job_id, built.last_step
    pages = {
        FIRST.name: f"/api/jobs/{job_id}/metrics?limit={PAGE}",
        LAST.name: f"/api/jobs/{job_id}/metrics?after={last - MISSED}",
        RARE.name: "/api/events?type=CheckpointSaved",
        STREAM.name: f"/api/events?stream={job_id}&after={last - MISSED}",
        MODELS.name: "/api/models?limit=50",
        TOLD.name: f"/v1/fine_tuning/jobs/{job_id.replace('train_', 'ftjob-')}/events",
    }
    found = {}
    for name, query in ((RETURN.name, f"&job_id={job_id}"), (RETURN_TO_ALL.name, "")):
        began = processor_seconds(server.pid)
        asyncio.run(return_to(server, query, last, MISSED))
        found[name] = 1000 * (processor_seconds(server.pid) - began)
    for name, path in pages.items():
        asyncio.run(get(server, path, 2))
        began = processor_seconds(server.pid)
        asyncio.run(get(server, path, ASKED))
        found[name] = 1000 * (processor_seconds(server.pid) - began) / ASKED
    return found


def measure(rounds: Rounds) -> None:
    """The same of both logs, in turn."""
    records: int = rounds.options.records or (LONG_QUICKLY if rounds.quick else LONG)
    short = build(rounds.folder(), SHORT, 50)
    long = build(rounds.folder(), records, max(50, records // 1000))
    with served(short.folder, settings=NO_LIMITS) as beside, served(long.folder, settings=NO_LIMITS) as ours:
        for server in (beside, ours):
            ready(server)

        def long_log(_folder: Path) -> dict[str, float]:
            return costs(ours, long)

        def short_log(_folder: Path) -> dict[str, float]:
            return costs(beside, short)

        of_long, of_short = rounds.interleave(long_log, short_log, rounds=max(3, rounds.count), warm=True)
    for figure in FIGURES:
        rounds.tell(figure, [one[figure.name] for one in of_long], [one[figure.name] for one in of_short])


def add_options(parser: argparse.ArgumentParser) -> None:
    """How long the long log is."""
    parser.add_argument("--records", type=int, help=f"of the long job: {LONG:,}, or with --quick {LONG_QUICKLY:,}")


FIGURES = (RETURN, RETURN_TO_ALL, FIRST, LAST, RARE, STREAM, MODELS, TOLD)
PROGRAM = Program(__doc__, measure, *FIGURES, options=add_options)

if __name__ == "__main__":
    PROGRAM.main()
