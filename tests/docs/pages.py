"""The pages as the tests read them: their sections, tables and examples."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def read(name: str) -> str:
    """A page, by its path in the repository."""
    return (ROOT / name).read_text()


def section(text: str, title: str) -> str:
    """What stands under a heading of any level, up to the next of the same level or a higher one."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,6}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"There is no section {title!r}"
    level = len(found[1])
    rest = re.search(rf"^#{{{level}}} {re.escape(title)}\n(.*?)(?=^#{{1,{level}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert rest
    return rest[1]


def rows(text: str) -> list[list[str]]:
    """The cells of the first table of a text, without its head; `\\|` is no border."""
    found = re.search(r"^\|[^\n]*\n\|[-| ]+\n((?:\|[^\n]*\n)*)", text, re.MULTILINE)
    assert found, "There is no table"
    lines = found[1].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def blocks(text: str, language: str) -> list[str]:
    """The code in fences of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def code(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)
