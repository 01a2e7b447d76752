"""CONTRIBUTING.md against the tree: the files that it names, the contracts, and how far a change reaches."""

import re
import tomllib

import pytest
from pages import ROOT, code, read, rows, section

PAGE = read("CONTRIBUTING.md")
KINDS = {
    "A training parameter": 7,
    "A reward function": 4,
    "A tracker": 6,
    "A record format": 8,
    "A route": 8,
    "A view of the page": 4,
    "A strategy": 15,
    "An aggregate": 9,
    "A figure": 2,
    "A setting": 3,
}
"""Files that a change of a kind always touches."""


def files(kind: str, when: str = "") -> set[str]:
    """The files that a table names, of the lines that begin with a word."""
    lines = [row for row in rows(section(PAGE, kind)) if row[1].startswith(when)]
    return {file for row in lines for cell in row for file in code(cell) if "/" in file}


def mentions(*words: str) -> set[str]:
    """The files of both packages and of the docs in which a word stands."""
    wanted = re.compile("|".join(rf"\b{word}\b" for word in words))
    paths = [
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "modelforge").rglob("*.py"),
        *(ROOT / "trainer_entry").rglob("*.py"),
    ]
    return {str(path.relative_to(ROOT)) for path in paths if wanted.search(path.read_text())}


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_that_is_named_is_there(kind: str) -> None:
    for file in files(kind):
        assert "<" in file or (ROOT / file).is_file(), file
        assert (ROOT / file).parent.is_dir(), file


@pytest.mark.parametrize(("kind", "count"), KINDS.items())
def test_a_change_of_a_kind_always_touches_so_many_files(kind: str, count: int) -> None:
    assert len([row for row in rows(section(PAGE, kind)) if row[1].startswith("always")]) == count


@pytest.mark.parametrize("name", ["warmup_ratio", "max_grad_norm", "logging_steps", "lora_dropout"])
def test_a_parameter_stands_in_no_other_file_than_is_said(name: str) -> None:
    assert mentions(name) <= files("A training parameter")


@pytest.mark.parametrize(
    "names", [("article_highlights", "ArticleHighlights"), ("question_answer", "QuestionAnswer")], ids="/".join
)
def test_a_format_stands_in_no_other_file_than_is_said(names: tuple[str, ...]) -> None:
    found = mentions(*names)
    assert found <= files("A record format")
    assert found >= {file for file in files("A record format", "always") if not file.startswith("tests/")}


@pytest.mark.parametrize("handler", ["get_checkpoints", "merge_model", "download_dataset", "rerun_job"])
def test_a_route_stands_in_one_module_and_in_the_client(handler: str) -> None:
    (module,) = {file for file in mentions(handler) if not re.match("modelforge/client/|docs/client.md", file)}
    assert re.fullmatch(r"modelforge/http/\w+\.py", module)


def test_every_contract_is_told() -> None:
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    assert [row[0] for row in rows(section(PAGE, "The import rules"))] == [contract["name"] for contract in contracts]


def test_every_path_in_the_prose_is_there() -> None:
    named = set(re.findall(r"`((?:modelforge|trainer_entry|tests|docs)/[\w/.]*)`", PAGE))
    for page in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        named |= set(re.findall(r"`((?:modelforge|trainer_entry|tests|docs)/[\w/.]*)`", page.read_text()))
    assert named
    for path in named:
        assert (ROOT / path).exists(), path
