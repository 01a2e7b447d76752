"""Fuzzes the check of records: `pip install atheris`, then `python tests/dataset_check/fuzz.py -max_total_time=600`.

Whatever the bytes are, the check says what it thinks of them; and what it accepts, the trainer can read.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["modelforge.datasets.validation", "trainer_entry.data.records", "msgspec"]):
    from support.checked import checked

    from trainer_entry import wire
    from trainer_entry.data.records import Records

NAMES = ("a.jsonl", "a.json", "a.csv", "a.tsv", "a.jsonl.gz", "a.parquet")
COLUMNS = (None, {"input": "question", "output": "answer"})


def look(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    name, columns = provider.PickValueInList(list(NAMES)), provider.PickValueInList(list(COLUMNS))
    content = provider.ConsumeBytes(provider.remaining_bytes())
    found, records = checked(content, name, columns, limit=1 << 20)
    if found.report.valid != (found.report.error_count == 0) or bool(found.report.errors) == found.report.valid:
        raise AssertionError(found.report)
    if not found.report.valid:
        return
    if found.format is None:
        raise AssertionError("a valid file without a format")
    with tempfile.NamedTemporaryFile() as file:
        file.write(records)
        file.flush()
        dataset = wire.DatasetFile(
            filename=name,
            path=str(Path(file.name)),
            sha256=found.sha256,
            records_sha256=found.records_sha256,
            format=found.format,
            num_examples=found.num_examples,
        )
        if sum(1 for _ in Records(dataset)) != found.num_examples:
            raise AssertionError("the trainer reads another number of records")


if __name__ == "__main__":
    atheris.Setup(sys.argv, look)
    atheris.Fuzz()
