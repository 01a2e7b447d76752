"""`modelforge help`: what its topics say is there, and the help of a command is that of the command."""

import re
from pathlib import Path

import pytest
from support.command_lines import check_taken, shown_in

from modelforge.cli import help_command, main
from trainer_entry import wire

FOLDER = Path(help_command.__file__).with_name("topics")
ROOT = Path(__file__).parents[2]


def test_every_topic_has_a_page_and_every_page_a_topic(capsys: pytest.CaptureFixture[str]) -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(help_command.TOPICS)
    assert main(["help"]) == 0
    assert set(help_command.TOPICS) <= set(re.findall(r"^  (\S+)", capsys.readouterr().out, re.MULTILINE))


@pytest.mark.parametrize("topic", help_command.TOPICS)
def test_a_topic_names_commands_flags_parameters_and_pages_that_are_there(topic: str) -> None:
    text = help_command.text_of(topic)
    assert max(map(len, text.splitlines())) <= 80
    for line in re.findall(r"^  (modelforge .*?)(?: {3,}.*)?$", text, re.MULTILINE):
        for words in shown_in(line):
            check_taken(words)
    for named in re.findall(r"`modelforge ([^`]+)`", text):
        check_taken(named.split(), whole=False)
    for name in re.findall(r"--set '?(\w+)=", text):
        assert name in wire.TrainingParameters.__struct_fields__
    for page in re.findall(r"(?:docs/)?\w+\.md", text):
        assert (ROOT / page).is_file()


def test_the_parameters_are_listed_with_what_they_take_and_their_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "parameters"]) == 0
    listed = dict(re.findall(r"^  (\w+) {2,}(.*)$", capsys.readouterr().out, re.MULTILINE))
    assert set(listed) >= set(wire.TrainingParameters.__struct_fields__)
    assert listed["max_steps"].startswith("optimizer steps; ")
    assert listed["max_steps"].endswith(" Takes a whole number from -1 to 100000000 (-1)")
    assert listed["learning_rate"].endswith(" Takes a number above 0 to 10")
    assert listed["lora_r"] == "rank of the adapter. Takes a whole number from 1 to 4096 (16)"


@pytest.mark.parametrize("command", ["train", "models merge", "datasets", "token"])
def test_the_help_of_a_command_is_its_own(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", *command.split()]) == 0
    asked = capsys.readouterr().out
    assert main([*command.split(), "--help"]) == 0
    assert capsys.readouterr().out == asked
