"""docs/operations.md against the settings, the command line, the layout of a data directory and the failures."""

import re
from pathlib import Path

import pytest
from pages import code, read, rows, section

from modelforge.cli import main
from modelforge.domain import failure_causes
from modelforge.layout import Layout
from modelforge.settings import Settings, data_home, default_roots
from trainer_entry.runtime import failures

PAGE = read("docs/operations.md")
KINDS = rows(section(PAGE, "When things go wrong"))
CONCLUDED = re.findall(r"`(.*?)`", failure_causes.Cause.__doc__ or "")[0].split()
"""What an attempt's end comes to where no exception was told."""


def test_the_settings_that_are_named_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    said = section(PAGE, "Settings").partition("###")[0]
    known = {*Settings.__struct_fields__, "report_to"}
    assert {word for word in code(said) if re.fullmatch(r"[a-z_]+", word)} <= known
    assert data_home() == Path("~/.local/share/modelforge").expanduser()
    assert default_roots() == (Path.home(), Path.cwd())


def test_the_reference_has_every_setting_with_the_flag_of_serve(capsys: pytest.CaptureFixture[str]) -> None:
    told = rows(read("docs/reference/settings.md"))
    assert [code(row[0])[0] for row in told] == list(Settings.__struct_fields__)
    assert main(["serve", "--help"]) == 0
    assert {flag for row in told for flag in code(row[2])} == set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {
        "--help"
    }


def test_the_commands_are_those_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    known = re.findall(r"^  (\w+)(?:,| )", capsys.readouterr().out, re.MULTILINE)
    assert [code(row[0])[0] for row in rows(section(PAGE, "Commands"))] == known


def test_the_directory_has_what_the_layout_says() -> None:
    told = {name.split("/")[0] for row in rows(section(PAGE, "The data directory")) for name in code(row[0])}
    layout = Layout(Path("/forge"))
    known = {
        getattr(layout, name).name
        for name, value in vars(Layout).items()
        if isinstance(value, property) and isinstance(getattr(layout, name), Path)
    }
    assert told == known | {"playground.log"}


def test_every_kind_of_failure_is_one_and_is_retried_as_it_is_told() -> None:
    told = {code(row[0])[0]: row[2] for row in KINDS}
    assert set(CONCLUDED) <= set(told)
    assert {kind for kind, retried in told.items() if retried == "yes"} == failure_causes.RETRIED
    for kind in set(told) - set(CONCLUDED) - failure_causes.RETRIED:
        assert issubclass(getattr(failures, kind), Exception)


def test_the_unit_has_what_is_said_of_it() -> None:
    unit = read("docs/modelforge.service")
    assert "\nKillMode=process\n" in unit
    assert "\nOOMPolicy=continue\n" in unit
