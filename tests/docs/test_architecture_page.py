"""docs/architecture.md against the code: its rooms, every file and function that it names, a job's states."""

import ast
import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from pages import ROOT, blocks, read, rows, section

from modelforge.domain import job
from modelforge.domain.messages import Event

PAGE = read("docs/architecture.md")
NAMED = sorted(set(re.findall(r"`((?:modelforge|trainer_entry|tests)/[\w/.]+\.\w+)(?::([\w.]+))?`", PAGE)))
OWN_FILES = {"__init__.py", "__main__.py"}


def rooms_in(tree: str) -> dict[str, str]:
    """The paths in a drawn tree, each with its line."""
    found: dict[str, str] = {}
    folders: list[str] = []
    for line in filter(None, tree.splitlines()):
        drawn = re.fullmatch(r"((?:[│├└─ ]{4})*)([\w.]+/?) +(.+)", line)
        assert drawn, line
        depth = len(drawn[1]) // 4
        folders[depth:] = [drawn[2]]
        found["".join(folders)] = drawn[3]
    return found


def rooms_of(package: Path) -> set[str]:
    """The folders of a package with modules in them, and the modules at its root."""
    folders = {path.parent for path in package.rglob("*.py")}
    modules = [path for path in package.glob("*.py") if path.name not in OWN_FILES]
    return {f"{folder.relative_to(ROOT)}/" for folder in folders} | {str(path.relative_to(ROOT)) for path in modules}


def test_the_rooms_are_those_of_the_code() -> None:
    (tree,) = blocks(section(PAGE, "The rooms"), "")
    assert set(rooms_in(tree)) == rooms_of(ROOT / "modelforge") | rooms_of(ROOT / "trainer_entry")


@pytest.mark.parametrize("package", ["modelforge", "trainer_entry"])
def test_the_rooms_stand_in_the_order_in_which_they_may_import(package: str) -> None:
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["type"] == "layers" and package in one["layers"][0])
    level = {name: number for number, layer in enumerate(layers) for name in layer.split(" | ")}
    (tree,) = blocks(section(PAGE, "The rooms"), "")
    drawn = [room.removesuffix("/").removesuffix(".py").replace("/", ".") for room in rooms_in(tree)]
    levels = [level[room] for room in drawn if room in level]
    assert levels == sorted(levels)


@pytest.mark.parametrize(("path", "name"), NAMED, ids=":".join)
def test_what_is_named_is_there(path: str, name: str) -> None:
    assert (ROOT / path).is_file()
    if not name:
        return
    body: list[ast.stmt] = ast.parse((ROOT / path).read_text()).body
    for part in name.split("."):
        found = [
            node
            for node in body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == part
        ]
        assert found, f"{path} has no {name}"
        body = found[0].body


def test_the_states_of_a_job_and_what_changes_them_are_those_of_the_code() -> None:
    (diagram,) = blocks(PAGE, "mermaid")
    steps = re.findall(r"^ +(\S+) --> (\w+) : (\w+)$", diagram, re.MULTILINE)
    assert {status for start, end, _ in steps for status in (start, end)} - {"[*]"} == set(get_args(job.JobStatus))
    assert {event for *_, event in steps} <= {kind.__name__ for kind in get_args(Event)}
    assert {start for start, _, event in steps if event == "AttemptLaunching"} == {"queued", "stopped", "failed"}


def test_every_promise_names_tests_that_hold_it() -> None:
    promises = rows(section(PAGE, "The promises"))
    assert [row[0] for row in promises] == [str(number) for number in range(1, 8)]
    assert all("`tests/" in row[2] for row in promises)
