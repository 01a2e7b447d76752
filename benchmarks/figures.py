"""Figures, and how they are measured: ours and its yardstick in one run, in turn, medians of the rounds.

A program of `benchmarks/` is a function that measures, and its figures:

    STEP = Figure(name="A step / bare TRL", unit="s", yardstick="bare TRL", at_most=0.7, note="…")

    def measure(rounds: Rounds) -> None:
        rounds.compare(STEP, ours=seconds_here, yardstick=seconds_in_trl)

    PROGRAM = Program(__doc__, measure, STEP)

    if __name__ == "__main__":
        PROGRAM.main()

Each side is given a folder of its own, that is empty, each time. What it returns is a value in the figure's unit; where
one run gives several, `interleave` gives them as they come and `tell` puts them to their figures.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

_T = TypeVar("_T")
Side = Callable[[Path], _T]
"""One side of a comparison: it is given an empty folder."""

RESULTS = "BENCHMARK_RESULT"
"""The variable that names the file for a program's results, where they are kept."""
_UNFINISHED = "it was ended before it had measured all"


class Figure(Struct, frozen=True, kw_only=True):
    """What is measured, and what it has to be.

    `name`: what is divided by what, as a reader of the table has it. `unit`: of both sides. `yardstick`: what ours is
    divided by; with none, the aim is one for the value itself. `note`: what exactly is compared, in a sentence or two.
    """

    name: str
    unit: str
    note: str
    yardstick: str = ""
    at_least: float | None = None
    at_most: float | None = None

    def aim(self) -> str:
        """The aim, in words of a table."""
        bounds = [
            f"{sign} {number(bound)}"
            for sign, bound in ((">=", self.at_least), ("<=", self.at_most))
            if bound is not None
        ]
        unit = "" if self.yardstick or not bounds else f" {self.unit}"
        return " and ".join(bounds) + unit


class Measured(Struct, frozen=True, kw_only=True):
    """A figure and what came out: a value a round of each side; none of a yardstick that it does not have."""

    figure: Figure
    ours: tuple[float, ...]
    yardstick: tuple[float, ...] = ()

    @property
    def compared(self) -> list[float]:
        """What has the aim, a value a round: the ratio of the two sides of the round, or ours alone."""
        if not self.figure.yardstick:
            return list(self.ours)
        return [one / other for one, other in zip(self.ours, self.yardstick, strict=True)]

    @property
    def median(self) -> float:
        """The median of what has the aim."""
        return statistics.median(self.compared)

    @property
    def held(self) -> bool | None:
        """Whether the aim is held; None where there is none."""
        least, most = self.figure.at_least, self.figure.at_most
        if least is None and most is None:
            return None
        return (least is None or self.median >= least) and (most is None or self.median <= most)

    def line(self) -> str:
        """All of it in a line, for who looks on."""
        sides = f"{number(statistics.median(self.ours))} {self.figure.unit}"
        if self.yardstick:
            sides += f", {self.figure.yardstick} {number(statistics.median(self.yardstick))}"
            sides += f": ratio {number(self.median)}"
        spread = f" ({self.spread()})" if len(self.compared) > 1 else ""
        aim = f"; aim {self.figure.aim()}" if self.figure.aim() else ""
        return f"{self.figure.name}: {sides}{spread}{aim}{'' if self.held is not False else ', NOT HELD'}"

    def spread(self) -> str:
        """The least and the most of the rounds."""
        return f"{number(min(self.compared))} to {number(max(self.compared))}"


class Result(Struct, frozen=True, kw_only=True):
    """What one run of a program gave, at which `commit`. `load`: the load average (1 minute) before and after."""

    program: str
    began: float
    seconds: float
    quick: bool
    load: tuple[float, float]
    measured: tuple[Measured, ...] = ()
    failure: str = ""
    commit: str = ""


class Rounds:
    """The rounds of one run of a program. `quick`: the sizes are small, and what comes out says little."""

    def __init__(
        self, options: argparse.Namespace, scratch: Path, told: Callable[["Rounds"], None] = lambda _: None
    ) -> None:
        """`told` is called after each figure."""
        self._told = told
        self.options = options
        self.quick: bool = options.quick
        self.count: int = options.rounds or (1 if options.quick else 3)
        self.measured: list[Measured] = []
        self._scratch = scratch
        self._folders = 0

    def folder(self) -> Path:
        """A new empty folder, that goes with the run."""
        self._folders += 1
        folder = self._scratch / str(self._folders)
        folder.mkdir()
        return folder

    def interleave(self, *sides: Side[_T], rounds: int | None = None, warm: bool = False) -> list[list[_T]]:
        """Run each side once a round, in turn and back; what each gave, a list a side.

        `rounds`: where it needs others than asked for. `warm`: a first round that does not count.
        """
        given: list[list[_T]] = [[] for _ in sides]
        count = rounds or self.count
        for turn in range(-warm, count):
            pairs = list(zip(given, sides, strict=True))
            for values, side in pairs if turn % 2 == 0 else reversed(pairs):
                value = side(self.folder())
                if turn >= 0:
                    values.append(value)
                    print(f"  round {turn + 1} of {count}, {_named(side)}: {value}", flush=True)
        return given

    def compare(
        self,
        figure: Figure,
        ours: Side[float],
        yardstick: Side[float],
        *,
        rounds: int | None = None,
        warm: bool = False,
    ) -> Measured:
        """Run both sides in turn, and tell the figure."""
        one, other = self.interleave(ours, yardstick, rounds=rounds, warm=warm)
        return self.tell(figure, one, other)

    def tell(self, figure: Figure, ours: Sequence[float], yardstick: Sequence[float] = ()) -> Measured:
        """Note and print what was measured, a value a round of each side."""
        measured = Measured(figure=figure, ours=tuple(ours), yardstick=tuple(yardstick))
        self.measured.append(measured)
        print(measured.line(), flush=True)
        self._told(self)
        return measured


class Program:
    """A program of `benchmarks/`: what it says of itself, what it measures, and its figures.

    `options`: gives its parser more than `--quick` and `--rounds`.
    """

    def __init__(
        self,
        documentation: str | None,
        measure: Callable[[Rounds], None],
        *figures: Figure,
        options: Callable[[argparse.ArgumentParser], object] | None = None,
    ) -> None:
        self.documentation = documentation or ""
        self.figures = figures
        self._measure = measure
        self._options = options

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """What it is asked for."""
        parser = argparse.ArgumentParser(
            description=self.documentation, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--quick", action="store_true", help="small sizes, one round")
        parser.add_argument("--rounds", type=int, help="how often each side is measured")
        if self._options is not None:
            self._options(parser)
        return parser.parse_args(arguments)

    def main(self) -> None:
        """Measure, print, keep each result where `RESULTS` says, and end with 1 where an aim is not held."""
        options = self.parse(sys.argv[1:])
        began, monotonic, load = time.time(), time.monotonic(), os.getloadavg()[0]
        failure = _UNFINISHED

        def keep(rounds: Rounds) -> None:
            result = Result(
                program=Path(sys.argv[0]).stem,
                began=began,
                seconds=time.monotonic() - monotonic,
                quick=rounds.quick,
                load=(load, os.getloadavg()[0]),
                measured=tuple(rounds.measured),
                failure=failure,
                commit=commit(),
            )
            if (path := os.environ.get(RESULTS)) is not None:
                partial = Path(f"{path}.partial")
                partial.write_bytes(msgspec.json.format(msgspec.json.encode(result)))
                partial.replace(path)

        with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
            rounds = Rounds(options, Path(scratch), keep)
            try:
                self._measure(rounds)
                failure = ""
            except BaseException as error:
                failure = repr(error)
                raise
            finally:
                keep(rounds)
        sys.exit(any(measured.held is False for measured in rounds.measured))


def commit() -> str:
    """The commit that is measured, with a `+` where files differ from it; empty outside of a clone."""
    asked = ["git", "describe", "--always", "--dirty=+", "--abbrev=9", "--exclude=*"]
    try:
        said = subprocess.run(asked, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.stdout.strip()


def number(value: float) -> str:
    """A number in three digits, and as many as it has before its point."""
    if abs(value) >= 100:  # noqa: PLR2004 - three digits stand before the point
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"  # noqa: PLR2004


def _named(side: Side[_T]) -> str:
    return str(getattr(side, "__name__", side)).strip("_<>").replace("_", " ")
