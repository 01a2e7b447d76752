"""What README.md and every page say is there: routes, options, targets, links, settings."""

import re

import pytest
from pages import ROOT, read

from modelforge.cli import main
from modelforge.http.routes import ROUTES
from modelforge.settings import Settings

PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md"))
    if path.exists()
)
COMMANDS = (
    *(
        "serve",
        "train",
        "watch",
        "stop",
        "resume",
        "rerun",
        "verify",
        "replay",
        "doctor",
        "archive",
        "backup",
        "restore",
        "chat",
    ),
    *("models export", "datasets preview", "token create"),
)
OTHERS = {"--user", "--now"}
"""Options of other programs that the pages show."""


@pytest.mark.parametrize("page", PAGES)
def test_every_path_in_a_page_is_a_route(page: str) -> None:
    known = [re.compile(re.sub(r"{\w+}", "[^/]+", route.path)) for route in ROUTES]
    named = re.findall(r"`(?:[A-Z]+ )?(/(?:api|ws)/[\w/{}.]*)[`?]", read(page))
    called = re.findall(r"127\.0\.0\.1:8000(/(?:api|ws)/[\w./]+)", read(page))
    for path in (*named, *called):
        assert any(route.fullmatch(path) for route in known), path


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("docs/reference/")])
def test_every_option_in_a_page_is_one(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert main([*command.split(), "--help"]) == 0
    assert main(["--help"]) == 0
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", read(page))) <= known | OTHERS


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_in_a_page_is_one(page: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([\w-]+)", read(page), re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", PAGES)
def test_every_link_in_a_page_leads_somewhere(page: str) -> None:
    text = read(page)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) + re.findall(r'<img src="([^"]+)"', text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_the_variables_that_a_page_names_are_settings(page: str) -> None:
    for name in re.findall(r"MODELFORGE_([A-Z_]+)=", read(page)):
        assert name.lower() in Settings.__struct_fields__


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    text = read("README.md")
    assert len(text.splitlines()) <= 130
    for page in PAGES:
        assert page == "README.md" or page in text or page.rpartition("/")[0] == "docs/decisions", page
