"""The figures of a job's steps and evaluations, each once, whatever attempts made them."""

import math

from aiohttp import web
from msgspec import Struct

from modelforge.domain import job
from modelforge.event_log.queries import STEPS
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
_PAGE_BYTES = 16 << 20
"""After so many bytes of data a page ends: what is asked for by count must not take all memory."""
_EVALUATION = "EvaluationLogged"


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
    """The figures in a job's records after a position, from `limit` records at most, or fewer large ones."""
    metrics: list[Metric] = []
    evaluations: list[Evaluation] = []
    position, read, size, has_more = after, 0, 0, False
    attempts = _Attempts(reader, stream)
    for record in reader.records(after=after, streams=(stream,), types=(STEPS, _EVALUATION), limit=limit + 1):
        if read == limit or size >= _PAGE_BYTES:
            has_more = True
            break
        position, read, size = record.position, read + 1, size + len(bytes(record.data))
        match record.message:
            case job.MetricsLogged(steps=steps, attempt=attempt):
                last = attempts.last_kept(attempt)
                metrics.extend(
                    project_struct(step, Metric, position=position, attempt=attempt)
                    for step in steps
                    if step.step <= last
                )
            case job.EvaluationLogged(report=report, attempt=attempt) if report.step <= attempts.last_kept(
                attempt
            ) and not attempts.evaluated_again(attempt, report.step):
                evaluations.append(project_struct(report, Evaluation, position=position, attempt=attempt))
            case _:
                pass
    return Metrics(metrics=metrics, evaluations=evaluations, last_position=position, has_more=has_more)


class _Attempts:
    """Where the attempts of a job began, and so what of an earlier one a later one made again."""

    def __init__(self, reader: LogReader, stream: str) -> None:
        self._reader = reader
        self._stream = stream
        self._launched: dict[int, int] = {}
        self._began: dict[int, int] = {}
        self._evaluated: dict[int, frozenset[int]] = {}
        for record in reader.records(streams=(stream,), types=("AttemptLaunching", "TrainingStarted")):
            match record.message:
                case job.AttemptLaunching(attempt=attempt):
                    self._launched[attempt] = record.position
                case job.TrainingStarted(attempt=attempt, report=report):
                    self._began.setdefault(attempt, report.resumed_step)  # one for each phase that trains
                case _:
                    pass

    def last_kept(self, attempt: int) -> float:
        """The last step of an attempt that no later one made again, having gone on from an earlier checkpoint."""
        return min((step for later, step in self._began.items() if later > attempt), default=math.inf)

    def evaluated_again(self, attempt: int, step: int) -> bool:
        """Whether a later attempt evaluated after a step too, which is one that it began at or after."""
        return any(step in self._evaluated_first(later) for later in self._launched if later > attempt)

    def _evaluated_first(self, attempt: int) -> frozenset[int]:
        """After which steps an attempt evaluated that are not beyond that at which it began."""
        if attempt not in self._evaluated:
            began, steps = self._began.get(attempt, math.inf), set[int]()
            after = self._launched[attempt]
            for record in self._reader.records(after=after, streams=(self._stream,), types=(_EVALUATION,)):
                event = record.message
                if not isinstance(event, job.EvaluationLogged) or event.attempt != attempt or event.report.step > began:
                    break
                steps.add(event.report.step)
            self._evaluated[attempt] = frozenset(steps)
        return self._evaluated[attempt]


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
