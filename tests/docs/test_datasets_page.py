"""docs/datasets.md against the formats, the check of records and what trains on what."""

import re
from typing import get_args

import msgspec
import pytest
from pages import code, read, rows, section
from support.checked import checked

from modelforge.domain.purposes import trainable
from modelforge.settings import Settings
from trainer_entry import wire
from trainer_entry.wire.formats import FORMATS

PAGE = read("docs/datasets.md")
EXAMPLES = dict(re.findall(r"^```json (\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
SAMPLES = {name: record for name, record in EXAMPLES.items() if name not in {"report", "refused"}}
TABLE = rows(section(PAGE, "Record formats"))


def test_every_format_has_its_line_and_its_example() -> None:
    assert [code(row[0])[0] for row in TABLE] == list(FORMATS)
    assert list(SAMPLES) == list(FORMATS)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_the_tasks_and_strategies_of_a_format_are_those_that_it_trains(row: list[str]) -> None:
    (name,) = (name for name in FORMATS if f"`{name}`" == row[0])
    assert (tuple(code(row[1])), tuple(code(row[2]))) == trainable(name)


@pytest.mark.parametrize("name", SAMPLES)
def test_an_example_is_recognised_and_has_no_fault(name: str) -> None:
    found, _ = checked(SAMPLES[name].encode())
    assert (found.format, found.num_examples) == (name, 1)
    assert (found.report.errors, found.report.warnings) == ((), ())


def test_the_refusal_is_what_the_check_says() -> None:
    found, _ = checked(EXAMPLES["refused"].encode())
    assert msgspec.json.decode(msgspec.json.encode(found.report)) == msgspec.json.decode(EXAMPLES["report"])


def test_the_kinds_of_files_are_those_that_are_read() -> None:
    kinds = rows(section(PAGE, "Kinds of files"))
    assert tuple(code(row[0])[0] for row in kinds) == get_args(wire.Container)
    assert {word for row in kinds[:-1] for word in row[2].split(", ")} == set(get_args(wire.Compression))
    assert f"`max_upload_bytes` ({Settings().max_upload_bytes // 10**9} GB)" in PAGE
