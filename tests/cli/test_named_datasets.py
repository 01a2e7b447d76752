"""Datasets as they are typed: a name alone, or several with weights; what says nothing is refused by its part."""

from pathlib import Path

import pytest

from modelforge.cli.flags import WrongUsage
from modelforge.cli.named_datasets import Named, check_names, named


def test_a_name_alone_stays_a_name_and_several_are_a_list() -> None:
    assert named(Path("a.jsonl"), None) == named(None, ["a.jsonl"]) == "a.jsonl"
    assert named(None, ["a.jsonl:2", "b.jsonl:1:500", "hf://owner/name@main?split=train:0.5", "c.jsonl::7"]) == [
        Named("a.jsonl", 2.0),
        Named("b.jsonl", 1.0, 500),
        Named("hf://owner/name@main?split=train", 0.5),
        Named("c.jsonl", 1.0, 7),
    ]
    assert named(Path("a.jsonl"), ["b.jsonl"]) == [Named("a.jsonl"), Named("b.jsonl")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.jsonl:x", "'x'"),
        ("a.jsonl:0", "'0'"),
        ("a.jsonl:nan", "'nan'"),
        ("a.jsonl:1:0", "'0'"),
        ("a.jsonl:1:2.5", "'2.5'"),
        ("a.jsonl:1:2:3", "NAME[:WEIGHT[:MAX_SAMPLES]]"),
        (":2", "NAME[:WEIGHT[:MAX_SAMPLES]]"),
    ],
)
def test_a_part_that_is_none_is_refused_by_what_it_is(text: str, said: str) -> None:
    with pytest.raises(WrongUsage) as refused:
        named(None, [text])
    assert said in refused.value.detail


def test_no_dataset_and_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match="nothing to train on"):
        named(None, None)
    files = [tmp_path / folder / "a.jsonl" for folder in ("one", "two")]
    for file in files:
        file.parent.mkdir()
        file.write_text("{}\n")
    with pytest.raises(WrongUsage, match="one name"):
        check_names([str(file) for file in files])
