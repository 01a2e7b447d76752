"""Several datasets as one: how many records each gives, which are held out, and that none of those is trained on."""

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scenario import JOB, SHA256, launching, requested, spec, uploaded
from support.scenario import given as given_past

from modelforge.domain import dataset, job
from modelforge.errors import Conflict, NotFound
from trainer_entry import wire
from trainer_entry.wire.mixture import counts_of, held_out_of, in_counts, mixed, readings_of, taken_of

LEARNING = wire.TrainingParameters()


def file_of(records: int, name: str = "a.jsonl") -> wire.DatasetFile:
    """A file; two of as many records have the same ones."""
    sha256 = hashlib.sha256(str(records).encode()).hexdigest()
    return wire.DatasetFile(
        filename=name, path=f"/{name}", sha256=sha256, format="input_output", num_examples=records, revision=1
    )


def part_of(records: int, weight: float = 1.0, max_samples: int | None = None) -> wire.DatasetPart:
    taken = taken_of(records, weight, max_samples)
    return wire.DatasetPart(dataset=file_of(records), weight=weight, max_samples=max_samples, taken=taken)


@pytest.mark.parametrize(
    ("records", "weight", "most", "taken"),
    [(10, 1.0, None, 10), (10, 0.5, None, 5), (5, 0.5, None, 3), (10, 2.5, None, 25), (10, 0.01, None, 1),
     (10, 3.0, 12, 12), (10, 1.0, 50, 10)],
)  # fmt: skip
def test_a_dataset_gives_its_weight_times_its_records_and_at_most_max_samples(
    records: int, weight: float, most: int | None, taken: int
) -> None:
    assert taken_of(records, weight, most) == taken


shapes = st.lists(
    st.builds(
        part_of,
        st.integers(1, 40),
        st.floats(0.01, 4.0),
        st.none() | st.integers(1, 60),
    ),
    min_size=1,
    max_size=4,
)


@given(shapes, st.floats(0, 0.9), st.integers(0, 9))
def test_what_is_counted_before_is_what_is_read_and_none_held_out_is_trained_on(
    parts: list[wire.DatasetPart], fraction: float, seed: int
) -> None:
    whole = mixed(tuple(parts), seed)
    readings = [*readings_of(whole, fraction, seed)]
    held_out = sum(len(reading.held_out) for reading in readings)
    counts = counts_of(whole, None, fraction, seed)
    assert (sum(len(reading.places) for reading in readings) - held_out, held_out) == (counts.train, counts.evaluation)
    assert counts.train + counts.evaluation <= whole.num_examples == sum(part.taken for part in parts)
    assert readings == [*readings_of(whole, fraction, seed)]
    assert all(list(reading.places) == sorted(set(reading.places)) for reading in readings)
    if fraction == 0:
        assert counts.train == whole.num_examples
    for content in {reading.dataset.content for reading in readings}:
        of_it = [reading for reading in readings if reading.dataset.content == content]
        judged = frozenset[int]().union(*(reading.held_out for reading in of_it))
        assert sum(len(reading.held_out) for reading in of_it) == len(judged)
        assert not any({*reading.places} - reading.held_out & judged for reading in of_it)


def test_a_record_that_is_held_out_is_in_no_repetition() -> None:
    whole = mixed((part_of(10, 2.5),), 0)
    first, *again = readings_of(whole, 0.2, 0)
    assert (len(first.places), len(first.held_out), [len(reading.places) for reading in again]) == (10, 2, [8, 4])
    assert not first.held_out & {place for reading in again for place in reading.places}
    assert counts_of(whole, None, 0.2, 0).train == 8 + 8 + 4


def test_what_is_held_out_of_records_that_are_named_twice_is_trained_on_by_neither() -> None:
    whole = mixed((part_of(20, 0.5), part_of(20, 2.0)), 0)
    readings = [*readings_of(whole, 0.2, 3)]
    first, second, third = readings
    assert (len(first.held_out), len(second.held_out), len(third.held_out)) == (2, 2, 0)
    judged = first.held_out | second.held_out
    assert len(judged) == 4
    assert not any(judged.intersection(reading.places) - reading.held_out for reading in readings)
    assert (counts_of(whole, None, 0.2, 3).train, counts_of(whole, None, 0.2, 3).evaluation) == (8 + 16 + 16, 4)


def test_the_seed_decides_which_records_are_taken() -> None:
    one, other = ([*readings_of(mixed((part_of(40, 0.5),), seed), 0, 0)] for seed in (1, 2))
    assert one[0].places != other[0].places
    assert mixed((part_of(40, 0.5),), 1).sha256 != mixed((part_of(40, 0.5),), 2).sha256


def test_a_dataset_alone_is_held_out_of_as_ever() -> None:
    (reading,) = readings_of(file_of(64), 0.125, 7)
    assert reading.places == range(64)
    assert reading.held_out == held_out_of(64, 0.125, 7)
    assert len(reading.held_out) == counts_of(file_of(64), None, 0.125, 7).evaluation == 8


def test_validation_records_are_counted_beside_all_of_the_dataset() -> None:
    counts = counts_of(file_of(10), file_of(3, "judged.jsonl"), 0, 0)
    assert (counts.train, counts.evaluation) == (10, 3)


def test_datasets_of_which_nothing_can_be_held_back_are_refused() -> None:
    learning = wire.TrainingParameters(eval_split=0.1)
    refused = in_counts(mixed((part_of(1), part_of(1)), 0), None, learning, "sft")
    assert refused is not None
    assert refused.field == "eval_split"
    assert in_counts(mixed((part_of(1), part_of(2)), 0), None, learning, "sft") is None
    assert in_counts(mixed((part_of(1), part_of(1)), 0), None, LEARNING, "sft") is None


def test_a_dataset_that_an_active_job_mixes_or_is_judged_by_stays() -> None:
    held = uploaded()
    file = wire.DatasetFile(
        filename=held.filename,
        path=f"/data/datasets/{SHA256}.jsonl",
        sha256=SHA256,
        format="input_output",
        num_examples=150,
        revision=1,
    )
    whole = mixed((part_of(3), wire.DatasetPart(dataset=file, taken=150)), 0)
    for fields in ({"dataset": whole}, {"validation": file}):
        asked = requested()
        reading = msgspec.structs.replace(asked, spec=msgspec.structs.replace(asked.spec, **fields))
        past = (held, reading, launching())
        given_past(*past).when(dataset.DeleteDataset(filename=held.filename)).then_refused(Conflict, JOB)


def test_a_job_is_not_started_on_a_part_that_was_deleted() -> None:
    file = wire.DatasetFile(
        filename="gone.jsonl",
        path=f"/data/datasets/{SHA256}.jsonl",
        sha256=SHA256,
        format="input_output",
        num_examples=150,
        revision=1,
    )
    whole = mixed((part_of(3), wire.DatasetPart(dataset=file, taken=150)), 0)
    command = job.StartTraining(spec=msgspec.structs.replace(spec(), dataset=whole))
    given_past().when(command).then_refused(NotFound, "gone.jsonl")
