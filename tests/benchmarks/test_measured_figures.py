"""The programs of figures: what they are asked, what they tell, and the page of their results."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import every_figure
import msgspec
import pytest
from figures import Figure, Measured, Program, Result, Rounds
from results import page

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAMS = every_figure.programs()
RATE = Figure(name="Ours / theirs", unit="1/s", yardstick="theirs", at_least=0.9, note="A comparison.")
SIZE = Figure(name="Size", unit="KB", at_most=10, note="A size.")


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_can_be_asked_for_small_sizes(name: str) -> None:
    assert PROGRAMS[name].parse(["--quick"]).quick
    assert PROGRAMS[name].documentation


def test_the_page_of_results_names_every_figure() -> None:
    text = (every_figure.FOLDER / "RESULTS.md").read_text()
    for name, program in PROGRAMS.items():
        assert f"`benchmarks/{name}.py`" in text
        for figure in program.figures:
            assert f"\n| {figure.name} |" in text
            assert f"- **{figure.name}**: {figure.note}\n" in text


def test_no_two_figures_have_one_name() -> None:
    names = [figure.name for program in PROGRAMS.values() for figure in program.figures]
    assert len(names) == len(set(names))


def test_sides_are_measured_in_turn_and_back_each_in_an_empty_folder(tmp_path: Path) -> None:
    seen: list[str] = []

    def side(name: str) -> Callable[[Path], float]:
        def run(folder: Path) -> float:
            assert not list(folder.iterdir())
            (folder / "left").touch()
            seen.append(name)
            return float(len(seen))

        return run

    def measure(rounds: Rounds) -> None:
        rounds.compare(RATE, side("ours"), side("theirs"), warm=True)

    rounds = Rounds(Program("", measure, RATE).parse(["--rounds", "2"]), tmp_path)
    measure(rounds)
    assert seen == ["theirs", "ours", "ours", "theirs", "theirs", "ours"]
    assert [(one.ours, one.yardstick) for one in rounds.measured] == [((3.0, 6.0), (4.0, 5.0))]


@pytest.mark.parametrize(
    ("measured", "median", "held"),
    [
        (Measured(figure=RATE, ours=(8.0, 10.0, 30.0), yardstick=(10.0, 10.0, 10.0)), 1.0, True),
        (Measured(figure=RATE, ours=(8.0, 8.0, 30.0), yardstick=(10.0, 10.0, 10.0)), 0.8, False),
        (Measured(figure=SIZE, ours=(12.0, 9.0, 10.0)), 10.0, True),
        (Measured(figure=SIZE, ours=(12.0,)), 12.0, False),
    ],
)
def test_an_aim_is_one_for_the_median_of_the_ratios(measured: Measured, median: float, held: object) -> None:
    assert measured.median == median
    assert measured.held is held


def test_the_page_says_which_aim_is_not_held_and_what_failed() -> None:
    programs = {
        "both": Program("Both.", print, RATE, SIZE),
        "broken": Program("No.", print, Figure(name="Lost", unit="s", note=".")),
    }  # type: ignore[arg-type]
    results = {
        "both": Result(
            program="both",
            began=0.0,
            seconds=60.0,
            quick=False,
            load=(0.5, 1.5),
            commit="abc123+",
            measured=(
                Measured(figure=RATE, ours=(950.0, 1000.0), yardstick=(1000.0, 1000.0)),
                Measured(figure=SIZE, ours=(11.25,)),
            ),
        ),
        "broken": Result(
            program="broken", began=0.0, seconds=0.0, quick=False, load=(0.0, 0.0), failure="ValueError('x')"
        ),
    }
    text = page(programs, results)
    assert "| Ours / theirs | 975 1/s | 1,000 1/s, theirs | 0.975 | 0.95 to 1 | >= 0.9 | yes |" in text
    assert "| Size | 11.2 KB |  |  | one round | <= 10 KB | **no** |" in text
    assert "| Lost | failed: ValueError('x') |" in text
    assert "1970-01-01 00:00 UTC at abc123+, 60 s, load average 0.5 to 1.5." in text
    assert "- 1970-01-01, 1 minutes in all, load average 0.0 to 1.5" in text


def test_a_program_that_fails_is_named_the_others_go_on_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """
from figures import Figure, Program, Rounds
ONE = Figure(name="%s", unit="s", at_most=1, note="Nothing.")
def measure(rounds: Rounds) -> None:
    rounds.tell(ONE, [%s])
PROGRAM = Program("A program.", measure, ONE)
if __name__ == "__main__":
    PROGRAM.main()
"""
    (tmp_path / "fails_here.py").write_text(text % ("A", "1 / 0"))
    left = "subprocess.Popen(['sleep', '3600'], start_new_session=True).pid"
    noted = f"0.5 + 0 * pathlib.Path({str(tmp_path / 'left')!r}).write_text(str({left}))"
    (tmp_path / "holds_here.py").write_text("import pathlib, subprocess\n" + text % ("B", noted))
    (tmp_path / "misses_here.py").write_text(text % ("C", "2.0"))
    monkeypatch.setattr(every_figure, "FOLDER", tmp_path)
    monkeypatch.setattr(every_figure, "BUILD", tmp_path / "build")
    monkeypatch.setattr(sys, "argv", ["every_figure.py", "--quick"])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(every_figure.__file__).parent))
    assert every_figure.main() == 1
    command = Path("/proc") / (tmp_path / "left").read_text() / "cmdline"
    while command.exists() and command.read_bytes():  # it was killed, and goes in its own time
        time.sleep(0.01)
    said = capsys.readouterr().out
    assert "fails_here FAILED: ZeroDivisionError" in said
    assert said.endswith("failed: fails_here\n")
    table = (tmp_path / "build" / "quick" / "RESULTS.md").read_text()
    assert "| A | failed: ZeroDivisionError" in table
    assert "| B | 0.5 s |  |  | one round | <= 1 s | yes |" in table
    assert "| C | 2 s |  |  | one round | <= 1 s | **no** |" in table
    kept = msgspec.json.decode((tmp_path / "build" / "quick" / "holds_here.json").read_bytes(), type=Result)
    assert kept.measured == (Measured(figure=Figure(name="B", unit="s", at_most=1, note="Nothing."), ours=(0.5,)),)


def test_a_program_that_is_ended_keeps_what_it_had_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ends_here.py").write_text("""
import os, signal
from figures import Figure, Program, Rounds
def measure(rounds: Rounds) -> None:
    rounds.tell(Figure(name="First", unit="s", note="Nothing."), [2.0])
    os.kill(os.getpid(), signal.SIGTERM)
Program("A program.", measure).main()
""")
    monkeypatch.setattr(every_figure, "FOLDER", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(every_figure.__file__).parent))
    result = every_figure.run("ends_here", [], tmp_path / "kept.json")
    assert result is not None
    assert [one.ours for one in result.measured] == [(2.0,)]
    assert result.failure
