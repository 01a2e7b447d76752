"""Whatever happened, jobs and models are found by the indexes as by going through all of them."""

from typing import Any, get_args

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from support.scenario import NOON, SAVED, launching, records_of, registered, requested, spec, uploaded

from modelforge.domain import job, model
from modelforge.domain.job import JobStatus
from modelforge.domain.messages import Message
from modelforge.projections.datasets import Upload, details_of
from modelforge.projections.indexes import Index, Indexes
from modelforge.projections.read_models import ReadModels
from trainer_entry import wire

JOBS = [f"train_{number:06d}" for number in (3, 20, 999_999, 1_000_000, 1_000_007)]
CONTENTS = ("00" * 32, "11" * 32)
KINDS = ("training", "export")
STATUSES = get_args(JobStatus)
TASKS: tuple[wire.Task, ...] = get_args(wire.Task)
BASES = ("one", "another")


def asked(job_id: str, **fields: Any) -> job.TrainingRequested:
    """The request for a job, whose specification differs in some fields."""
    event = requested(job_id, queued=True)
    return msgspec.structs.replace(event, spec=msgspec.structs.replace(event.spec, **fields))


def made(model_id: int, job_id: str, name: str, base: str, task: wire.Task) -> model.ModelRegistered:
    """The model of a job."""
    event = registered(model_id, job_id)
    trained = msgspec.structs.replace(event.spec, model_name=base, model_path=f"/bases/{base}", task=task)
    saved = msgspec.structs.replace(event.model, path=f"/data/models/{job_id}")
    return msgspec.structs.replace(event, name=name, spec=trained, model=saved)


@st.composite
def histories(draw: st.DrawFn) -> list[Message]:
    """What happens to a few jobs, and to a model of each."""
    past: list[Message] = []
    for number, job_id in enumerate(draw(st.lists(st.sampled_from(JOBS), unique=True)), start=1):
        dataset = msgspec.structs.replace(spec(job_id).dataset, sha256=draw(st.sampled_from(CONTENTS)))
        work = draw(st.sampled_from([None, wire.Export(model_id=1, name="a", path="/a", format="tar")]))
        mine: list[Message] = [asked(job_id, dataset=dataset, work=work)]
        for _ in range(draw(st.integers(0, 2))):
            ends = (
                job.TrainingStopped(job_id=job_id, checkpoint=None),
                job.TrainingFailed(job_id=job_id, kind="Killed", message=""),
            )
            mine += [launching(job_id), draw(st.sampled_from(ends))]
        if draw(st.booleans()):
            name, base, task = (draw(st.sampled_from(some)) for some in (("a", "b"), BASES, TASKS))
            mine += [job.TrainingCompleted(job_id=job_id, model=SAVED, step=1), made(number, job_id, name, base, task)]
            if draw(st.booleans()):
                mine.append(model.ModelDeleted(model_id=number, path=f"/data/models/{job_id}"))
        place = 0  # what happens to one comes between what happens to the others
        for message in mine:
            place = draw(st.integers(place, len(past)))
            past.insert(place, message)
            place += 1
    return past


@given(histories())
def test_the_indexes_find_what_is_found_by_going_through_all(past: list[Message]) -> None:
    read_models, again = ReadModels(), ReadModels()
    live = Indexes(read_models)
    for record in records_of(*past):
        live.apply(record)
        again.apply(record)
    assert read_models == again
    for indexes in (live, Indexes(read_models)):
        assert_found(indexes, read_models)


def assert_found(indexes: Indexes, read_models: ReadModels) -> None:
    """Each answer is that of a search through everything."""
    jobs, models = read_models.listed_jobs, read_models.listed_models
    newest = sorted(jobs, key=job.first_position, reverse=True)
    assert [*indexes.newest_jobs()] == newest
    for before in newest:
        assert [*indexes.newest_jobs(before=before)] == newest[newest.index(before) + 1 :]
    for status in STATUSES:
        of_status = [job_id for job_id in newest if jobs[job_id].status == status]
        assert [*indexes.newest_jobs(status)] == of_status
        assert indexes.count_jobs(status) == len(of_status)
        for before in newest:
            older = newest[newest.index(before) + 1 :]
            assert [*indexes.newest_jobs(status, before=before)] == [one for one in of_status if one in older]
    trainings = [job_id for job_id in newest if jobs[job_id].kind == "training"]
    assert [*indexes.newest_trainings()] == trainings
    for before in newest:
        older = newest[newest.index(before) + 1 :]
        assert [*indexes.newest_trainings(before=before)] == [one for one in trainings if one in older]
    for kind in get_args(wire.JobKind):
        assert indexes.count_kind(kind) == sum(listed.kind == kind for listed in jobs.values())
    for number in range(len(JOBS) + 1):
        assert [*indexes.models_after(number)] == [later for later in sorted(models) if later > number]
    filename = spec().dataset.filename
    for contents in (CONTENTS[:1], CONTENTS, ()):
        wanted = {(filename, sha256) for sha256 in contents}
        on_it = [one for one in newest if jobs[one].kind == "training" and wanted & {*jobs[one].datasets}]
        assert [*indexes.trained_on(filename, contents)] == on_it
    for name in ("a", "b", "c", *(f"/data/models/{job_id}" for job_id in JOBS), "/elsewhere/train_000003"):
        called = [number for number in sorted(models) if name in {models[number].name, models[number].path}]
        assert [*indexes.models_called(name)] == called
    bases = [*dict.fromkeys(models[number].base_model for number in sorted(models))]
    assert [*indexes.bases()] == bases
    assert [base for base in (*BASES, "none") if indexes.is_base(base)] == [base for base in BASES if base in bases]
    for task in TASKS:
        of_task = [number for number in sorted(models) if models[number].task == task]
        assert indexes.newest_model(task) == (models[of_task[-1]] if of_task else None)
        for base in BASES:
            from_it = [number for number in of_task if models[number].base_model == base]
            assert indexes.newest_from(base, task) == (models[from_it[-1]] if from_it else None)
    assert indexes.newest_model(None) == (models[max(models)] if models else None)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.booleans())))
def test_an_index_has_the_numbers_that_were_put_in_and_not_taken_away_rising(
    changes: list[tuple[str, int, bool]],
) -> None:
    index, expected = Index[str](), dict[str, set[int]]()
    for key, number, adds in changes:
        there = expected.setdefault(key, set())
        if adds and number not in there:
            index.add(key, number)
            there.add(number)
        elif not adds and number in there:
            index.remove(key, number)
            there.remove(number)
    assert {*index} == {key for key, numbers in expected.items() if numbers}
    for key in "abc":
        assert [*index[key]] == sorted(expected.get(key, ()))
        assert (key in index) == bool(expected.get(key))


def test_a_dataset_names_the_last_jobs_that_trained_on_it() -> None:
    others = ("00" * 32, "11" * 32)
    names = [f"train_{number:06}" for number in range(1, 131)]
    dataset = spec().dataset
    elsewhere = msgspec.structs.replace(dataset, filename="another name")
    changed = [msgspec.structs.replace(dataset, sha256=sha256) for sha256 in others]
    requests = [asked(name, dataset=dataset) for name in names[:110]]
    requests += [asked(name, dataset=elsewhere) for name in names[110:115]]
    requests += [asked(name, dataset=changed[number % 2]) for number, name in enumerate(names[115:])]
    indexes = Indexes(ReadModels())
    for record in records_of(*requests):
        indexes.apply(record)
    uploads = [Upload(uploaded(1), NOON), Upload(uploaded(2, others[0]), NOON)]
    trained = indexes.trained_on(dataset.filename, {one.event.sha256 for one in uploads})
    assert details_of(uploads[0], uploads, trained).jobs == [*names[-15::2][::-1], *names[:110][::-1]][:100]
