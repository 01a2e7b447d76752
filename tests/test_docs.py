"""What the README says is there."""

import re
from pathlib import Path

import pytest

import modelforge
from modelforge.cli import main
from modelforge.http.routes import ROUTES
from modelforge.settings import Settings

ROOT = Path(modelforge.__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_path_in_the_readme_is_a_route() -> None:
    known = [re.compile(re.sub(r"{\w+}", "[^/]+", route.path)) for route in ROUTES]
    named = re.findall(r"`[A-Z ]*(/(?:api|ws)/[\w/{}.]*)", README)
    called = re.findall(r"127\.0\.0\.1:8000(/(?:api|ws)/[\w./]+)", README)
    assert named
    assert called
    for path in (*named, *called):
        assert any(route.fullmatch(path) for route in known), path


def test_every_option_in_the_readme_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("serve", "train", "stop", "verify", "replay", "doctor"):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    named = set(re.findall(r"--[a-z][a-z-]+", README))
    assert named <= known


def test_every_make_target_in_the_readme_is_one() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make (\w+)", README, re.MULTILINE)) <= targets


def test_every_folder_in_the_readme_s_tree_is_there() -> None:
    for name in re.findall(r"^(\w+)/ {4,}", README, re.MULTILINE):
        assert (ROOT / name).is_dir(), name


def test_the_settings_that_it_names_are_settings() -> None:
    for name in re.findall(r"MODELFORGE_([A-Z_]+)=", README):
        assert name.lower() in Settings.__struct_fields__
