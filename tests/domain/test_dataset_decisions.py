"""What is decided about datasets: revisions, deletions, and which files are still needed."""

from typing import Any

import msgspec
import pytest
from support.scenario import (
    JOB,
    OTHER_JOB,
    SAVED,
    SHA256,
    Given,
    given,
    launching,
    register_dataset,
    registered,
    requested,
    spec,
    uploaded,
)

from modelforge.domain import dataset, job, policy
from modelforge.domain.messages import Event
from modelforge.errors import Conflict, NotFound
from trainer_entry import wire

NAME = "three_lines.jsonl"
OTHER, RECORDS = "00" * 32, "77" * 32
FILE, OTHER_FILE = f"{SHA256}.jsonl", f"{OTHER}.jsonl"
DELETE = dataset.DeleteDataset(filename=NAME)
DELETED = dataset.DatasetDeleted(filename=NAME, files=(FILE,))
REMOVED = dataset.DatasetFilesRemoved(filename=NAME, files=(FILE,))
REPORT_REMOVED = dataset.ReportDatasetFilesRemoved(filename=NAME, files=(FILE,))
KEPT = dataset.DatasetFilesKept(filename=NAME, reason="not permitted")
REPORT_KEPT = dataset.ReportDatasetFilesKept(filename=NAME, reason="not permitted")


def converted(sha256: str = SHA256, records_sha256: str = RECORDS, **fields: Any) -> dataset.DatasetUploaded:
    """An upload that records were made from."""
    return msgspec.structs.replace(
        uploaded(sha256=sha256), container="csv", records_sha256=records_sha256, records_bytes=9, **fields
    )


def trained_on(sha256: str = SHA256, **fields: Any) -> wire.DatasetFile:
    """The records of a job, in the folder of datasets."""
    content = fields.get("records_sha256") or sha256
    return wire.DatasetFile(
        filename=fields.pop("filename", NAME),
        path=f"/data/datasets/{content}.jsonl",
        sha256=sha256,
        format="input_output",
        num_examples=150,
        **fields,
    )


UPLOADED_FILE = trained_on(revision=1)
BY_PATH = trained_on(filename="mine.csv", records_sha256=RECORDS)
"""What was made of a file that was named by its path."""


def asked(file: wire.DatasetFile, job_id: str = JOB, work: wire.Merge | None = None) -> wire.JobSpec:
    return msgspec.structs.replace(spec(job_id), dataset=file, work=work)


def asked_for(file: wire.DatasetFile, job_id: str = JOB, *, queued: bool = False) -> job.TrainingRequested:
    return job.TrainingRequested(job_id=job_id, spec=asked(file, job_id), queued=queued)


def ended(file: wire.DatasetFile, job_id: str = JOB) -> tuple[Event, ...]:
    """A job that trained on a file and is over."""
    return (asked_for(file, job_id), job.TrainingFailed(job_id=job_id, kind="Crashed", message="…"))


def needed(past: Given) -> set[str]:
    return past.state.known_files()


# ---- revisions ----


def test_the_same_bytes_with_other_columns_are_the_next_revision() -> None:
    past = given(converted(columns={"input": "q"}))
    command = msgspec.structs.replace(
        register_dataset(), container="csv", records_sha256=RECORDS, records_bytes=9, columns={"input": "q"}
    )
    past.when(command).then()
    [event] = past.when(msgspec.structs.replace(command, columns={"input": "question"})).events
    assert isinstance(event, dataset.DatasetUploaded)
    assert (event.revision, event.columns) == (2, {"input": "question"})
    [event] = past.when(msgspec.structs.replace(command, records_sha256=OTHER)).events
    assert isinstance(event, dataset.DatasetUploaded)
    assert event.revision == 2


def test_everything_that_was_registered_is_in_the_event() -> None:
    command = dataset.RegisterDataset(
        **{name: getattr(converted(), name) for name in dataset.CheckedFile.__struct_fields__}
    )
    given().when(command).then(converted())


# ---- deletions ----


def test_a_dataset_is_deleted_once() -> None:
    given(uploaded()).when(DELETE).then(DELETED)
    given(uploaded(), DELETED).when(DELETE).then_refused(NotFound, NAME)
    given(uploaded(), DELETED, REMOVED).when(DELETE).then_refused(NotFound, NAME)
    given().when(DELETE).then_refused(NotFound, NAME)


def test_a_deletion_takes_every_file_of_every_revision() -> None:
    deleted = dataset.DatasetDeleted(filename=NAME, files=(FILE, f"{RECORDS}.jsonl", f"{OTHER}.upload"))
    past = given(uploaded(), converted(OTHER, revision=2), uploaded(3))
    assert needed(past) == set(deleted.files)
    past.when(DELETE).then(deleted)
    removed = dataset.DatasetFilesRemoved(filename=NAME, files=deleted.files)
    assert needed(given(uploaded(), converted(OTHER, revision=2), uploaded(3), deleted, removed)) == set()


def test_what_other_datasets_have_too_stays() -> None:
    other = msgspec.structs.replace(uploaded(), filename="other.jsonl")
    past = (uploaded(), uploaded(2, OTHER), other)
    deleted = dataset.DatasetDeleted(filename=NAME, files=(OTHER_FILE,))
    given(*past).when(DELETE).then(deleted)
    assert FILE in needed(given(*past, deleted))
    last = dataset.DatasetDeleted(filename="other.jsonl", files=(FILE,))
    given(*past, deleted).when(dataset.DeleteDataset(filename="other.jsonl")).then(last)


def test_two_uploads_may_share_the_records_that_were_made_of_them() -> None:
    other = msgspec.structs.replace(converted(OTHER), filename="other.csv")
    deleted = dataset.DatasetDeleted(filename=NAME, files=(f"{SHA256}.upload",))
    given(converted(), other).when(DELETE).then(deleted)


def test_a_name_that_was_deleted_begins_anew_and_its_revisions_count_on() -> None:
    past = (uploaded(), uploaded(2, OTHER), dataset.DatasetDeleted(filename=NAME, files=(FILE, OTHER_FILE)))
    given(*past).when(register_dataset(OTHER)).then(uploaded(3, OTHER))
    again = given(*past, uploaded(3, OTHER))
    again.when(DELETE).then(dataset.DatasetDeleted(filename=NAME, files=(OTHER_FILE,)))


def test_a_dataset_that_was_never_uploaded_has_no_history() -> None:
    with pytest.raises(ValueError, match="never uploaded"):
        given(DELETED)


# ---- whoever uses it ----


@pytest.mark.parametrize("waits", [False, True], ids=["running", "waiting"])
@pytest.mark.parametrize("file", [UPLOADED_FILE, trained_on(), trained_on(filename="another name")])
def test_a_dataset_that_an_active_job_trains_on_stays(file: wire.DatasetFile, *, waits: bool) -> None:
    first = (requested("train_000050"), launching("train_000050")) if waits else ()
    last = () if waits else (launching(OTHER_JOB),)
    past = (uploaded(), uploaded(2, OTHER), *first, asked_for(file, OTHER_JOB, queued=waits), *last)
    given(*past).when(DELETE).then_refused(Conflict, OTHER_JOB)


@pytest.mark.parametrize(
    "file",
    [
        msgspec.structs.replace(UPLOADED_FILE, path=f"/home/me/{NAME}", revision=None),
        trained_on("99" * 32, filename="other.jsonl", revision=1),
    ],
    ids=["a file of the same bytes elsewhere", "another dataset"],
)
def test_a_job_on_something_else_does_not_hold_a_dataset(file: wire.DatasetFile) -> None:
    given(uploaded(), asked_for(file), launching()).when(DELETE).then(DELETED)


def test_neither_a_job_that_has_ended_nor_work_on_its_model_holds_a_dataset() -> None:
    merge = wire.Merge(model_id=1, name="mine", path=SAVED.path)
    merging = job.TrainingRequested(job_id=OTHER_JOB, spec=asked(UPLOADED_FILE, OTHER_JOB, merge), queued=False)
    past = (uploaded(), *ended(UPLOADED_FILE), registered(), merging, launching(OTHER_JOB))
    given(*past).when(DELETE).then(DELETED)


def test_a_deleted_dataset_is_trained_on_no_more() -> None:
    start = job.StartTraining(spec=asked(UPLOADED_FILE, OTHER_JOB))
    resume = job.ResumeTraining(job_id=JOB)
    past = (uploaded(), *ended(UPLOADED_FILE), DELETED)
    given(*past).when(start).then_refused(NotFound, "was deleted")
    given(*past).when(resume).then_refused(NotFound, "was deleted")
    assert given(*past, uploaded(2)).when(start).events
    assert given(*past, uploaded(2)).when(resume).events


def test_work_on_a_model_needs_no_dataset() -> None:
    merge = wire.Merge(model_id=1, name="mine", path="/somewhere")
    start = job.StartTraining(spec=asked(UPLOADED_FILE, OTHER_JOB, merge))
    assert given(uploaded(), DELETED).when(start).events


# ---- records of files that were named by their path ----


def test_what_was_made_for_a_job_is_needed_as_long_as_its_record_lasts() -> None:
    made = f"{RECORDS}.jsonl"
    given().when(job.StartTraining(spec=asked(BY_PATH))).then(
        job.TrainingRequested(job_id=JOB, spec=asked(BY_PATH), queued=False), launching()
    )
    past = ended(BY_PATH)
    assert needed(given(*past)) == {made}
    # whatever is uploaded and deleted beside it
    past = (*past, converted())
    deleted = dataset.DatasetDeleted(filename=NAME, files=(f"{SHA256}.upload",))
    given(*past).when(DELETE).then(deleted)
    assert made in needed(given(*past, deleted))
    assert given(*past, deleted).when(job.ResumeTraining(job_id=JOB)).events


def test_a_job_on_a_dataset_needs_nothing_of_its_own() -> None:
    by_name = trained_on(records_sha256=RECORDS, revision=1)
    past = (converted(), *ended(by_name))
    deleted = dataset.DatasetDeleted(filename=NAME, files=(f"{RECORDS}.jsonl", f"{SHA256}.upload"))
    given(*past).when(DELETE).then(deleted)


def test_a_file_that_a_job_reads_where_it_lies_is_none_of_ours() -> None:
    assert dataset.file_of(spec().dataset) is None
    assert needed(given(requested())) == set()


# ---- the files of a deleted dataset ----


def test_the_files_are_removed_once() -> None:
    given(uploaded(), DELETED).when(REPORT_REMOVED).then(REMOVED)
    given(uploaded(), DELETED, REMOVED).when(REPORT_REMOVED).then()


def test_files_that_are_kept_are_told_once_and_removed_later() -> None:
    given(uploaded(), DELETED).when(REPORT_KEPT).then(KEPT)
    given(uploaded(), DELETED, KEPT).when(REPORT_KEPT).then()
    given(uploaded(), DELETED, KEPT).when(REPORT_REMOVED).then(REMOVED)
    assert needed(given(uploaded(), DELETED, KEPT)) == {FILE}
    assert needed(given(uploaded(), DELETED, KEPT, REMOVED)) == set()


def test_no_files_of_a_dataset_that_is_there_are_removed() -> None:
    for past in (given(uploaded()), given(), given(uploaded(), DELETED, uploaded(2))):
        past.when(REPORT_REMOVED).then()
        past.when(REPORT_KEPT).then()


def test_a_deletion_during_another_waits_for_its_own_files() -> None:
    past = (uploaded(), DELETED, uploaded(2, OTHER), dataset.DatasetDeleted(filename=NAME, files=(OTHER_FILE,)))
    known = given(*past, REMOVED).state.datasets[NAME]
    assert (known.is_settled((FILE,)), known.is_settled((OTHER_FILE,))) == (True, False)
    assert given(*past, REMOVED, KEPT).state.datasets[NAME].is_settled((OTHER_FILE,))


def test_a_start_removes_the_files_that_a_crash_left() -> None:
    effect = policy.RemoveDatasetFiles(filename=NAME, files=(FILE,))
    assert policy.resume(given(uploaded(), DELETED).state) == [effect]
    assert policy.resume(given(uploaded(), DELETED, KEPT).state) == [effect]
    assert policy.resume(given(uploaded(), DELETED, REMOVED).state) == []
    assert policy.resume(given(uploaded(), DELETED, uploaded(2)).state) == []
