"""A log is folded in fewer steps than it has records, and to the same: at any position, whatever comes between."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from support.scenario import (
    SAVED,
    attempt_spawned,
    checkpoint,
    launching,
    records_of,
    requested,
    started,
    step,
    uploaded,
)

from modelforge.domain import job
from modelforge.domain.messages import Message, Record
from modelforge.domain.state import evolve
from modelforge.event_log.sqlite import FoldRow
from modelforge.projections.folding import Rebuilt, joined, nothing, pack
from modelforge.projections.snapshots import pieces_of
from trainer_entry import wire

JOBS = ("train_000001", "train_000002", "train_000003")
begun = [
    message
    for job_id in JOBS
    for message in (
        requested(job_id),
        launching(job_id),
        attempt_spawned(job_id),
        job.TrainingStarted(job_id=job_id, attempt=1, seq=1, offset=1, report=started()),
    )
]
losses = st.floats(allow_nan=False, allow_infinity=False) | st.none()


@st.composite
def figures(draw: st.DrawFn) -> Message:
    job_id, seq = draw(st.sampled_from(JOBS)), draw(st.integers(2, 99))
    rewards = st.dictionaries(st.sampled_from("ab"), losses, max_size=2)
    steps = tuple(
        msgspec.structs.replace(
            step(seq, epoch=draw(st.floats(0, 5)), loss=draw(losses), total_steps=draw(st.integers(1, 300))),
            rewards=draw(rewards),
            phase_step=draw(st.none() | st.just(3)),
        )
        for _ in range(draw(st.integers(1, 3)))
    )
    return job.MetricsLogged(job_id=job_id, attempt=1, seq=seq, offset=seq * 10, steps=steps)


def others(job_id: str) -> list[Message]:
    return [
        job.StopRequested(job_id=job_id, attempt=1),
        job.AttemptStalled(job_id=job_id, attempt=1),
        job.CheckpointSaved(job_id=job_id, attempt=1, seq=7, offset=70, step=7, path=checkpoint(7).path),
        job.PhaseEntered(job_id=job_id, attempt=1, seq=8, offset=80, phase="saving"),
        job.TrainingFailed(job_id=job_id, kind="OutOfMemory", message="8 GiB"),
        job.TrainingCompleted(job_id=job_id, model=SAVED, step=9),
        launching(job_id, attempt=2),
        uploaded(),
        job.AttemptExited(job_id=job_id, attempt=1, exit=None),
    ]


histories = st.lists(
    figures() | figures() | figures() | st.sampled_from([one for job_id in JOBS for one in others(job_id)]), max_size=60
)


def row_of(record: Record) -> FoldRow:
    return record.position, record.stream, record.version, record.type, record.at, bytes(record.data).decode()


def folded_one_by_one(records: list[Record]) -> Rebuilt:
    rebuilt = nothing()
    for record in records:
        evolve(rebuilt.state, record)
        rebuilt.read_models.apply(record)
    return rebuilt


def folded_in_parts(records: list[Record], size: int) -> Rebuilt:
    rebuilt = nothing()
    for begin in range(0, len(records), size):
        for placed in joined(map(row_of, records[begin : begin + size])):
            evolve(rebuilt.state, placed)
            rebuilt.read_models.apply(placed)
        pack(rebuilt)
    return rebuilt


@given(history=histories, size=st.integers(1, 80), cut=st.integers(0, 80))
def test_figures_folded_together_lead_to_what_they_lead_to_one_by_one(
    history: list[Message], size: int, cut: int
) -> None:
    records = [
        msgspec.structs.replace(record, at=record.at + record.position * 1_000_000)
        for record in records_of(*begun, *history)[: len(begun) + cut]
    ]
    assert [*pieces_of(folded_in_parts(records, size))] == [*pieces_of(folded_one_by_one(records))]


def test_a_run_of_figures_is_one_message_of_as_many_steps() -> None:
    steps = [
        job.MetricsLogged(job_id=JOBS[0], attempt=1, seq=seq, offset=seq, steps=(step(seq), step(seq)))
        for seq in range(2, 12)
    ]
    (placed,) = joined(map(row_of, records_of(*begun, *steps)[len(begun) :]))
    assert isinstance(placed.message, job.MetricsLogged)
    assert len(placed.message.steps) == 20
    assert placed.position == len(begun) + 10
    assert placed.message.steps[-1] == steps[-1].steps[-1]
    assert isinstance(placed.message.steps[0], wire.StepLogged)
