"""Runs the check in this process, as its own process does."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from modelforge.datasets.validation.pipeline import check
from modelforge.datasets.validation.protocol import CheckRequest, DatasetCheck


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
