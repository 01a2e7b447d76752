"""SECURITY.md against the tests: each known attack has one that is there."""

import ast
import re

import pytest
from pages import ROOT, read, rows, section

PAGE = read("SECURITY.md")
TABLE = rows(section(PAGE, "Known attacks, and what stands for each"))
CLASSES = {
    *("command injection", "remote code", "pickle", "path read or write", "delete escape", "DNS rebinding"),
    *("cross-site requests", "WebSocket hijack", "exposure", "templates", "exhaustion", "upload", "secrets"),
}
"""What systems of this kind were broken into by."""


def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_known_class_of_attack_has_its_line() -> None:
    assert {row[0] for row in TABLE} >= CLASSES


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_what_stands_for_an_attack_is_a_test_that_is_there(row: list[str]) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py):(test_\w+)`", row[2])
    assert named
    assert "".join(f"`{path}:{name}` " for path, name in named).strip() == row[2]
    for path, name in named:
        assert (ROOT / path).is_file(), path
        assert name in functions_of(path), f"{path} has no {name}"


def test_the_page_is_found_from_where_people_read() -> None:
    assert "(SECURITY.md)" in read("README.md")
    assert "(../SECURITY.md)" in section(read("docs/operations.md"), "Security")


def test_every_load_of_a_model_says_that_it_trusts_no_code() -> None:
    checked = 0
    for path in sorted((ROOT / "trainer_entry").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            trusts = next((word.value for word in node.keywords if word.arg == "trust_remote_code"), None)
            if trusts is not None or is_load(node.func):
                assert isinstance(trusts, ast.Constant), f"{path}:{node.lineno}"
                assert trusts.value is False, f"{path}:{node.lineno}"
                checked += 1
    assert checked >= 8


def is_load(called: ast.expr) -> bool:
    """Whether a call loads what may bring code; an adapter and settings of generation cannot."""
    if not isinstance(called, ast.Attribute) or called.attr != "from_pretrained":
        return False
    return not isinstance(called.value, ast.Name) or called.value.id not in {
        "PeftModel",
        "LoraConfig",
        "GenerationConfig",
    }
