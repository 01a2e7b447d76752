"""Runs the check in this process, as its own process does."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from modelforge.datasets.validation.pipeline import check
from modelforge.datasets.validation.protocol import CheckRequest, DatasetCheck
from trainer_entry import wire


def checked(
    content: bytes,
    filename: str = "data.jsonl",
    columns: Mapping[str, str | list[str]] | None = None,
    limit: int = 1 << 30,
    encoding: str | None = None,
) -> tuple[DatasetCheck, bytes]:
    """What the check finds, and the records as the trainer would read them."""
    with tempfile.TemporaryDirectory() as folder:
        path, records, scratch = (Path(folder) / name for name in ("file", "records", "scratch"))
        path.write_bytes(content)
        scratch.mkdir()
        question = CheckRequest(
            path=str(path),
            filename=filename,
            records=str(records),
            scratch=str(scratch),
            limit=limit,
            columns=None if columns is None else dict(columns),
            encoding=encoding,
        )
        found = check(question, lambda _progress: None)
        return found, records.read_bytes() if found.records_sha256 is not None and records.exists() else content


def dataset_of(found: DatasetCheck, records: bytes, folder: Path) -> wire.DatasetFile:
    """What a trainer is given of a file that was checked; its records are written into the folder."""
    assert found.format is not None
    path = folder / "records.jsonl"
    path.write_bytes(records)
    return wire.DatasetFile(
        filename=path.name,
        path=str(path),
        sha256=found.sha256,
        records_sha256=found.records_sha256,
        format=found.format,
        num_examples=found.num_examples,
    )
