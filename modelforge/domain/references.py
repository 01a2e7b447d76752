"""How often each file in the folder of datasets is referred to: files are stored by their content, and may be shared.

Each revision of a dataset refers to its files, and a job to the records that were made from a file named by its path:
no dataset has those. All other jobs train on what a dataset has, for as long as it is not deleted.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping

from modelforge.domain import dataset, job
from modelforge.errors import NotFound
from trainer_entry import wire


def references_of(event: dataset.DatasetUploaded | job.TrainingRequested) -> tuple[str, ...]:
    """The names of the files that an event refers to."""
    if isinstance(event, dataset.DatasetUploaded):
        return dataset.files_of(event.sha256, event.records_sha256)
    files = (_own_file(file) for file in event.spec.files)
    return tuple(dict.fromkeys(file for file in files if file is not None))


def _own_file(trained_on: wire.DatasetFile) -> str | None:
    """The name of the file of records that were made for a job."""
    made = trained_on.revision is None and trained_on.records_sha256 is not None
    return dataset.file_of(trained_on) if made else None


def add(counts: MutableMapping[str, int], event: dataset.DatasetUploaded | job.TrainingRequested) -> None:
    """Count the files that an event refers to; `counts`: how often each is referred to, by its name."""
    for file in references_of(event):
        counts[file] = counts.get(file, 0) + 1


def remove(counts: MutableMapping[str, int], deleted: dataset.Dataset) -> None:
    """Take off what a deleted dataset referred to."""
    for file in deleted.files:
        counts[file] -= 1


def unshared_files(known: dataset.Dataset, counts: Mapping[str, int]) -> tuple[str, ...]:
    """The files of a dataset that nothing else refers to."""
    return tuple(file for file, times in Counter(known.files).items() if counts[file] == times)


def check_dataset(spec: wire.JobSpec, counts: Mapping[str, int]) -> None:
    """Refuse to train on a dataset that was deleted after it was looked up, or after the job was first asked for.

    Raises:
        NotFound: it says which.
    """
    for trained_on in _read_by(spec):
        file = dataset.file_of(trained_on)
        if file is not None and file != _own_file(trained_on) and not counts.get(file):
            raise NotFound(
                "The dataset was deleted",
                f"dataset: {trained_on.filename} with the SHA-256 {trained_on.sha256} was deleted; upload it again.",
            )


def first_job_on(known: dataset.Dataset, specs: Iterator[wire.JobSpec]) -> str | None:
    """The first job of several that trains on a dataset."""
    files = {*known.files}
    return next((spec.job_id for spec in specs if any(dataset.file_of(file) in files for file in _read_by(spec))), None)


def _read_by(spec: wire.JobSpec) -> tuple[wire.DatasetFile, ...]:
    """The files of records that a job reads; of work on a trained model, an evaluation alone."""
    if isinstance(spec.work, wire.Evaluate):
        return spec.work.dataset.files
    return () if spec.work is not None else spec.files
