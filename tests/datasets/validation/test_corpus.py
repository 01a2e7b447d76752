"""Every bad file is refused with its line, its field and what would be right; every good one is taken."""

import hashlib
from pathlib import Path

import pytest
from support.checked import checked, dataset_of
from support.corpus_files import BAD, GOOD, BadFile, GoodFile, Told

from modelforge.errors import LineError
from trainer_entry import wire
from trainer_entry.data.records import Conversation, Records, Turn
from trainer_entry.wire.formats import FORMATS


def agree(told: tuple[LineError, ...], expected: list[Told]) -> None:
    assert [(one.line, one.field) for one in told] == [(one.line, one.field) for one in expected]
    for one, other in zip(told, expected, strict=True):
        assert one.message.startswith(other.says)


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.name)
def test_a_bad_file_is_refused_by_line_and_field(file: BadFile) -> None:
    found, _ = checked(file.content, file.filename, file.columns)
    assert not found.report.valid
    agree(found.report.errors, file.errors)
    assert found.report.error_count == len(file.errors)


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.name)
def test_a_good_file_is_taken(file: GoodFile) -> None:
    found, _ = checked(file.content, file.filename, file.columns)
    assert (found.report.errors, found.report.valid) == ((), True)
    assert (found.format, found.num_examples) == (file.format, file.num_examples)
    assert (found.container, found.compression) == (file.container, file.compression)
    assert found.sha256 == hashlib.sha256(file.content).hexdigest()
    agree(found.report.warnings, file.warnings)
    assert found.report.warning_count == len(file.warnings)


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.name)
def test_the_trainer_reads_as_many_records_as_were_checked(file: GoodFile, tmp_path: Path) -> None:
    found, records = checked(file.content, file.filename, file.columns)
    assert len([*Records(dataset_of(found, records, tmp_path))]) == found.num_examples


def test_a_turn_in_both_spellings_is_read_as_it_was_checked(tmp_path: Path) -> None:
    turns = '{"from": "human", "value": "a", "role": "user", "content": ""}, {"from": "gpt", "value": "b"}'
    path = tmp_path / "records.jsonl"
    path.write_text(f'{{"conversations": [{turns}]}}\n')
    found, _ = checked(path.read_bytes())
    assert found.report.valid
    dataset = wire.DatasetFile(
        filename=path.name, path=str(path), sha256=found.sha256, format="conversations", num_examples=1
    )
    assert [*Records(dataset)] == [Conversation([Turn("user", "a"), Turn("assistant", "b")])]


def test_the_corpus_has_every_format_and_is_as_large_as_it_says() -> None:
    assert {file.format for file in GOOD} == set(FORMATS)
    assert len(BAD) >= 60
    assert len(GOOD) >= 30
