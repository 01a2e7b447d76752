"""The figures of a job's steps and evaluations, each once, whatever attempts made them."""

import math
from collections.abc import Callable

from aiohttp import web
from msgspec import Struct

from modelforge.domain import job
from modelforge.event_log.sqlite import LogReader
from modelforge.fields import project_struct
from modelforge.http.jobs import find_job
from modelforge.http.plumbing.body import json_response
from modelforge.http.plumbing.keys import EVENT_LOG
from modelforge.http.plumbing.query import int_query
from modelforge.http.plumbing.route import AFTER, Route, limit_to
from trainer_entry import wire

_PAGE = 1000
_LARGEST_PAGE = 100_000


class Metric(Struct, frozen=True, kw_only=True):
    """The figures of one optimizer step, and the position of the record that has them.

    `memory_mb`, `gpu_memory_mb`: the most that the trainer, and torch on its GPU, held until then, in 10^6 bytes.
    """

    position: int
    attempt: int
    step: int
    epoch: float
    loss: float | None
    learning_rate: float | None
    grad_norm: float | None
    tokens_per_second: float | None
    elapsed_seconds: float
    phase: wire.Phase
    phase_step: int | None
    phase_total_steps: int | None
    reward: float | None
    kl: float | None
    completion_length: float | None
    reward_accuracy: float | None
    reward_margin: float | None
    memory_mb: float | None
    gpu_memory_mb: float | None
    rewards: dict[str, float | None]
    nonfinite: tuple[str, ...]


class Evaluation(Struct, frozen=True, kw_only=True):
    """The figures of one evaluation on the held-out records."""

    position: int
    attempt: int
    step: int
    epoch: float
    metrics: dict[str, float | None]


class Metrics(Struct, frozen=True, kw_only=True):
    """Figures of a job after a position, in order; go on with `?after=` the last position."""

    metrics: list[Metric]
    evaluations: list[Evaluation]
    last_position: int
    has_more: bool


async def get_metrics(request: web.Request) -> web.Response:
    """The figures of a job's steps and evaluations."""
    stream = job.stream_of(find_job(request).job_id or "")
    after = int_query(request, "after", 0)
    limit = int_query(request, "limit", _PAGE)
    return json_response(await request.app[EVENT_LOG].read(lambda reader: read_metrics(reader, stream, after, limit)))


def read_metrics(reader: LogReader, stream: str, after: int, limit: int) -> Metrics:
    """The figures in a job's records after a position, from `limit` records at most."""
    metrics: list[Metric] = []
    evaluations: list[Evaluation] = []
    position, read = after, 0
    types = ("MetricsLogged", "EvaluationLogged")
    last_kept, evaluated_by = _last_kept(reader, stream), _evaluated_by(reader, stream)
    for record in reader.records(after=after, streams=(stream,), types=types, limit=limit + 1):
        read += 1
        if read > limit:
            break
        position = record.position
        match record.message:
            case job.MetricsLogged(steps=steps, attempt=attempt):
                metrics.extend(
                    project_struct(step, Metric, position=position, attempt=attempt)
                    for step in steps
                    if step.step <= last_kept(attempt)
                )
            case job.EvaluationLogged(report=report, attempt=attempt) if (
                report.step <= last_kept(attempt) and attempt == evaluated_by[report.step]
            ):
                evaluations.append(project_struct(report, Evaluation, position=position, attempt=attempt))
            case _:
                pass
    return Metrics(metrics=metrics, evaluations=evaluations, last_position=position, has_more=read > limit)


def _last_kept(reader: LogReader, stream: str) -> Callable[[int], float]:
    """The last step of an attempt that no later attempt made again, having gone on from an earlier checkpoint."""
    began: dict[int, int] = {}
    for record in reader.records(streams=(stream,), types=("TrainingStarted",)):
        if isinstance(record.message, job.TrainingStarted):  # one for each phase that trains: the first counts
            began.setdefault(record.message.attempt, record.message.report.resumed_step)
    return lambda attempt: min((step for later, step in began.items() if later > attempt), default=math.inf)


def _evaluated_by(reader: LogReader, stream: str) -> dict[int, int]:
    """The last attempt that evaluated after a step: one that went on from it may have done so again."""
    return {
        record.message.report.step: record.message.attempt
        for record in reader.records(streams=(stream,), types=("EvaluationLogged",))
        if isinstance(record.message, job.EvaluationLogged)
    }


ROUTES = (
    Route(
        method="GET",
        path="/api/jobs/{job_id}/metrics",
        handler=get_metrics,
        answer=Metrics,
        query=(AFTER, limit_to(_LARGEST_PAGE, _PAGE)),
        errors=(400, 404, 410),
    ),
)
