"""The Containerfile, by what can be known of it without an engine: what it copies, installs and runs is there."""

import json
import re
import tomllib
from fnmatch import fnmatch

import pytest
from pages import ROOT, read

from modelforge.cli import main

INSTRUCTIONS = re.findall(r"^([A-Z]+) (.*(?:\\\n.*)*)", read("Containerfile"), re.MULTILINE)


def of(name: str) -> list[str]:
    return [rest for instruction, rest in INSTRUCTIONS if instruction == name]


def test_what_it_copies_is_there_and_is_not_ignored() -> None:
    kept = {line.removeprefix("!") for line in read(".dockerignore").splitlines() if line.startswith("!")}
    for copied in of("COPY"):
        for source in copied.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(fnmatch(source, pattern) for pattern in kept), source


def test_what_the_build_of_the_package_reads_is_copied() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    copied = {source for line in of("COPY") for source in line.split()[:-1]}
    assert {"pyproject.toml", project["readme"], *project["license-files"], "modelforge", "trainer_entry"} <= copied


def test_what_it_installs_is_an_extra_and_a_file() -> None:
    extras = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
    (install,) = (line for line in of("RUN") if "pip install" in line)
    assert set(re.findall(r"\.\[(\w+)\]", install)) == {"trainers"} <= extras.keys()
    (constraints,) = of("ARG")
    assert (ROOT / constraints.partition("=")[2]).is_file()


def test_what_it_runs_is_a_command_with_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    (entry,), (arguments,) = map(json.loads, of("ENTRYPOINT")), map(json.loads, of("CMD"))
    assert entry[-1] == "modelforge"
    assert main([arguments[0], "--help"]) == 0
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert {word for word in arguments if word.startswith("--")} <= known
