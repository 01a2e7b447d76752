"""Which files of the folder of datasets somebody needs: they are kept by content, and may be shared.

A file is needed by each revision that has it, and by each job whose records were made from a file that was named by
its path: no dataset has those. All other jobs train on what a dataset has, for as long as it is not deleted.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping

from modelforge.domain import dataset, job
from modelforge.errors import NotFound
from trainer_entry import wire


def needed_from(event: dataset.DatasetUploaded | job.TrainingRequested) -> tuple[str, ...]:
    """The names of the files that are needed once more from an event on."""
    if isinstance(event, dataset.DatasetUploaded):
        return dataset.files_of(event.sha256, event.records_sha256)
    file = _own_file(event.spec.dataset)
    return () if file is None else (file,)


def _own_file(trained_on: wire.DatasetFile) -> str | None:
    """The name of the file of records that were made for a job."""
    made = trained_on.revision is None and trained_on.records_sha256 is not None
    return dataset.file_of(trained_on) if made else None


def count(needed: MutableMapping[str, int], event: dataset.DatasetUploaded | job.TrainingRequested) -> None:
    """Take into `needed`, how many need each file, those that an event needs from now on."""
    for file in needed_from(event):
        needed[file] = needed.get(file, 0) + 1


def uncount(needed: MutableMapping[str, int], deleted: dataset.Dataset) -> None:
    """Take out of `needed` all that a dataset which is deleted needed."""
    for file in deleted.files:
        needed[file] -= 1


def only_of(known: dataset.Dataset, needed: Mapping[str, int]) -> tuple[str, ...]:
    """The files of a dataset that nobody else needs."""
    return tuple(file for file, times in Counter(known.files).items() if needed[file] == times)


def check_dataset(spec: wire.JobSpec, needed: Mapping[str, int]) -> None:
    """Refuse to train on a dataset that was deleted after it was looked up, or after the job was first asked for.

    Raises:
        NotFound: it says which.
    """
    file = _read_by(spec)
    if file is not None and file != _own_file(spec.dataset) and not needed.get(file):
        raise NotFound(
            "The dataset was deleted",
            f"dataset: {spec.dataset.filename} with the SHA-256 {spec.dataset.sha256} was deleted; upload it again.",
        )


def first_on(known: dataset.Dataset, specs: Iterator[wire.JobSpec]) -> str | None:
    """The first job of several that trains on a dataset."""
    files = {*known.files}
    return next((spec.job_id for spec in specs if _read_by(spec) in files), None)


def _read_by(spec: wire.JobSpec) -> str | None:
    """The file of the folder of datasets that a job reads; work on a model that is trained reads none."""
    return None if spec.work is not None else dataset.file_of(spec.dataset)
