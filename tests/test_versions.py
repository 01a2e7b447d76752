"""The oldest releases of libraries that are safe to use, as they are asked for and as they are installed."""

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

FLOORS = {
    "aiohttp": "3.14.4",  # uploads that take all memory
    "jinja2": "3.1.6",  # templates that leave their sandbox
    "torch": "2.6",  # code in weights that were said to be weights only
    "transformers": "5.0",  # pickles where there are no safetensors
}
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
ASKED = [Requirement(text) for text in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["trainers"])]


@pytest.mark.parametrize(("name", "floor"), FLOORS.items())
def test_no_release_is_asked_for_or_installed_that_is_known_to_be_broken_into(name: str, floor: str) -> None:
    (asked,) = [requirement for requirement in ASKED if requirement.name == name]
    lowest = [Version(one.version) for one in asked.specifier if one.operator in {">=", "=="}]
    assert lowest
    assert min(lowest) >= Version(floor), asked
    assert Version(metadata.version(name)) >= Version(floor)


def test_bandit_skips_only_what_has_a_reason() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    skips = tomllib.loads(text)["tool"]["bandit"]["skips"]
    lines = text[text.index("skips = [") :].partition("]")[0].splitlines()[1:]
    assert len(lines) == len(skips)
    assert all(f'"{skip}", # ' in line for skip, line in zip(skips, lines, strict=True))
