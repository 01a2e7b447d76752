"""However a spool is read, once or again, from the start or from the middle: every line is told once."""

from typing import Literal, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from support.scenario import (
    attempt_spawned,
    bad_line,
    checkpoint,
    launching,
    lines,
    logged,
    records_of,
    requested,
    started,
    step,
)

from modelforge.domain import job
from modelforge.domain.decisions import decide
from modelforge.domain.messages import Message, is_figures_alone
from modelforge.domain.scheduling import Machine
from modelforge.domain.state import State, evolve
from trainer_entry import wire

spools = st.lists(st.sampled_from("stepsc!"), max_size=30).map(
    lambda kinds: [line_of(kind, kinds[:number].count("!"), number) for number, kind in enumerate(kinds)]
)


def line_of(kind: str, bad_before: int, number: int) -> wire.AnyTrainerMessage | job.QuarantinedLine:
    """The line at `number` of a spool whose lines are ten bytes long."""
    seq = number - bad_before + 1
    if kind == "!":
        return bad_line(offset=10 * number, length=9)
    if seq == 1:
        return started(seq)
    return checkpoint(seq) if kind == "c" else step(seq)


def read(spool: list[wire.AnyTrainerMessage | job.QuarantinedLine], begin: int, end: int) -> job.ReportLines:
    """What a reader that stood at line `begin` gives."""
    part = spool[begin:end]
    return lines(
        10 * end,
        *(line for line in part if not isinstance(line, job.QuarantinedLine)),
        quarantined=tuple(line for line in part if isinstance(line, job.QuarantinedLine)),
    )


def told_by(history: list[Message]) -> tuple[list[int], list[int]]:
    """The sequence numbers and the offsets of bad lines that stand in the events, in order."""
    numbers: list[int] = []
    offsets: list[int] = []
    for event in history:
        match event:
            case job.MetricsLogged(steps=steps):
                numbers.extend(step.seq for step in steps)
            case job.LineQuarantined(line=line):
                offsets.append(line.offset)
            case job.TrainingStarted(seq=seq) | job.CheckpointSaved(seq=seq):
                numbers.append(seq)
            case _:
                pass
    return numbers, offsets


@given(spools, st.data())
def test_a_spool_read_from_any_earlier_line_tells_every_line_once(
    spool: list[wire.AnyTrainerMessage | job.QuarantinedLine], data: st.DataObject
) -> None:
    history: list[Message] = [requested(), launching(), attempt_spawned()]
    state = State()
    for record in records_of(*history):
        evolve(state, record)
    reads = data.draw(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8))
    reached = 0
    for begin, end in [*reads, (0, len(spool))]:
        stop = min(end, len(spool))
        report = read(spool, min(begin, reached), stop)
        history.extend(decide(state, report, Machine()))
        state = State()
        for record in records_of(*history):
            evolve(state, record)
        assert decide(state, report, Machine()) == []
        reached = max(reached, stop)
    expected = [line.seq for line in spool if not isinstance(line, job.QuarantinedLine)]
    assert told_by(history) == (expected, [line.offset for line in spool if isinstance(line, job.QuarantinedLine)])


# ---- whose text is in it ----


def test_a_step_has_no_text_of_anybody_but_in_names_of_figures() -> None:
    """What `is_figures_alone` says yes to is written as it is: a new field with text in it has to be named there."""
    of_a_step, of_the_event = get_type_hints(wire.StepLogged), get_type_hints(job.MetricsLogged)
    assert {name for name, kind in of_a_step.items() if can_be_text(kind)} == {"nonfinite", "rewards"}
    assert {name for name, kind in of_the_event.items() if can_be_text(kind)} == {"job_id"}


def can_be_text(kind: object) -> bool:
    """Whether a type has room for any text; the words of a `Literal` are ours."""
    if get_origin(kind) is Literal or kind is wire.StepLogged:
        return False
    return kind not in {int, float, bool, type(None), ...} and (
        not get_args(kind) or any(map(can_be_text, get_args(kind)))
    )


@given(st.lists(st.tuples(st.sampled_from([(), ("loss",)]), st.sampled_from([{}, {"length": 1.0}])), min_size=1))
def test_steps_are_figures_alone_where_no_figure_of_theirs_has_a_name(
    named: list[tuple[tuple[str, ...], dict[str, float | None]]],
) -> None:
    steps = [
        msgspec.structs.replace(step(seq), nonfinite=nonfinite, rewards=rewards)
        for seq, (nonfinite, rewards) in enumerate(named, 1)
    ]
    assert is_figures_alone(logged(*steps)) == all(not nonfinite and not rewards for nonfinite, rewards in named)
    assert not is_figures_alone(launching())
