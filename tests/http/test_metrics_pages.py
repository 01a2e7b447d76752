"""The figures of a job by pages: what all its records say, however its attempts went and however it is cut."""

import math
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.running_log import write
from support.scenario import JOB, launching, logged, records_of, requested, start, started, step

from modelforge.domain import job
from modelforge.domain.messages import Message, Record
from modelforge.event_log.sqlite import LogReader
from modelforge.http import events, metrics
from modelforge.http.events import read_events
from modelforge.http.metrics import read_metrics
from trainer_entry import wire

Figures = list[tuple[int, int, int]]
"""The position, the attempt and the step of each."""


@st.composite
def histories(draw: st.DrawFn) -> list[Message]:
    """A job of some attempts, each of which goes on from a step that one before it reached."""
    messages: list[Message] = [start(), requested()]
    reached = 0
    for attempt in range(1, draw(st.integers(1, 4)) + 1):
        messages.append(launching(attempt=attempt))
        if draw(st.integers(0, 5)) == 0:
            continue  # it ends before it trains
        at = draw(st.integers(0, reached))
        messages.append(_told(attempt, started(attempt=attempt, resumed_step=at)))
        for kind in draw(st.lists(st.sampled_from("ssseec"), max_size=8)):
            if kind == "s":
                at += 1
                messages.append(_told(attempt, step(at, at, attempt=attempt)))
            elif kind == "e":
                messages.append(_told(attempt, _evaluated(at, attempt)))
            else:
                messages.append(job.CheckpointRequested(job_id=JOB, attempt=attempt))
        reached = max(reached, at)
    return messages


def _evaluated(at: int, attempt: int) -> wire.Evaluated:
    return wire.Evaluated(attempt=attempt, seq=1, step=at, epoch=0.5, metrics={"eval_loss": 1.0})


def _told(attempt: int, message: wire.TrainerStarted | wire.StepLogged | wire.Evaluated) -> job.Event:
    match message:
        case wire.TrainerStarted():
            return job.TrainingStarted(job_id=JOB, attempt=attempt, seq=1, offset=1, report=message)
        case wire.StepLogged():
            return job.MetricsLogged(job_id=JOB, attempt=attempt, seq=1, offset=1, steps=(message,))
        case wire.Evaluated():
            return job.EvaluationLogged(job_id=JOB, attempt=attempt, seq=1, offset=1, report=message)


def _of_all(records: list[Record]) -> tuple[Figures, Figures]:
    """What is to be shown, by a look at every record."""
    began: dict[int, int] = {}
    evaluated_by: dict[int, int] = {}
    for record in records:
        match record.message:
            case job.TrainingStarted(attempt=attempt, report=report):
                began.setdefault(attempt, report.resumed_step)
            case job.EvaluationLogged(attempt=attempt, report=report):
                evaluated_by[report.step] = attempt
            case _:
                pass
    kept = {one: min((at for later, at in began.items() if later > one), default=math.inf) for one in range(1, 5)}
    steps: Figures = []
    evaluations: Figures = []
    for record in records:
        match record.message:
            case job.MetricsLogged(attempt=attempt, steps=logged):
                steps += [(record.position, attempt, one.step) for one in logged if one.step <= kept[attempt]]
            case job.EvaluationLogged(attempt=attempt, report=report):
                if report.step <= kept[attempt] and evaluated_by[report.step] == attempt:
                    evaluations.append((record.position, attempt, report.step))
            case _:
                pass
    return steps, evaluations


def test_a_page_ends_after_so_many_bytes_and_says_whether_there_is_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in (events, metrics):
        monkeypatch.setattr(room, "_PAGE_BYTES", 1)
    write(tmp_path / "events.sqlite", records_of(start(), requested(), launching(), logged(step(2)), logged(step(3))))
    with closing(LogReader(tmp_path / "events.sqlite")) as reader:
        listed = [read_events(reader, after, 100, (), ()) for after in range(5)]
        figures = [read_metrics(reader, JOB, after, 100) for after in (0, 4)]
    assert [(one.last_position, one.has_more) for one in listed] == [(n, n < 5) for n in range(1, 6)]
    assert [len(one.events) for one in listed] == [1] * 5
    assert [(one.last_position, one.has_more, len(one.metrics)) for one in figures] == [(4, True, 1), (5, False, 1)]


@settings(max_examples=settings().max_examples // 2)
@given(messages=histories(), limit=st.integers(1, 7))
def test_the_pages_of_a_job_together_are_what_all_its_records_say(messages: list[Message], limit: int) -> None:
    records = records_of(*messages)
    figures = sum(record.type in {"MetricsLogged", "EvaluationLogged"} for record in records)
    steps: Figures = []
    evaluations: Figures = []
    with TemporaryDirectory() as folder:
        write(Path(folder) / "events.sqlite", records)
        with closing(LogReader(Path(folder) / "events.sqlite")) as reader:
            after, pages, has_more = 0, 0, True
            while has_more:
                page = read_metrics(reader, JOB, after, limit)
                steps += [(one.position, one.attempt, one.step) for one in page.metrics]
                evaluations += [(one.position, one.attempt, one.step) for one in page.evaluations]
                after, pages, has_more = page.last_position, pages + 1, page.has_more
    assert (steps, evaluations) == _of_all(records)
    assert pages == max(1, math.ceil(figures / limit))
