"""The table: what was measured, what it is held to, and whether it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, assert_never

import msgspec
from msgspec import Struct

from gpu.bench import OutOfTime

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Outcome = Literal["held", "short", "failed", "no time", "not shown"]
"""`short`: measured, and outside the bound. `failed`: an exception came instead of a figure. `no time`: the whole or
the line's own limit was reached. `not shown`: it cannot be shown here, and the row says why."""

HEAD = "| line | what | measured | bound | outcome | s |\n|---|---|---|---|---|---|"
_LONGEST_CELL = 400


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was measured. `figures`: the numbers behind it, for the JSON file."""

    what: str
    measured: str
    bound: str
    outcome: Outcome
    figures: dict[str, float | list[float]] = {}


class Row(Struct, frozen=True, kw_only=True):
    """A finding in its line. `seconds`: since the one before it, or since the line began."""

    line: str
    finding: Finding
    seconds: float

    @property
    def falls_short(self) -> bool:
        """Whether it keeps the whole from having been shown."""
        match self.finding.outcome:
            case "held" | "not shown":
                return False
            case "short" | "failed" | "no time":
                return True
            case _:
                assert_never(self.finding.outcome)

    def as_markdown(self) -> str:
        """One line of the table."""
        found = self.finding
        outcome = found.outcome.upper() if self.falls_short else found.outcome
        cells = (self.line, found.what, found.measured, found.bound, outcome, f"{self.seconds:.0f}")
        return "| " + " | ".join(_cell(text) for text in cells) + " |"


class Report(Struct, frozen=True, kw_only=True):
    """All of a run. `head`: the card, the libraries, the model, as lines of `name: value`."""

    head: dict[str, str]
    rows: Sequence[Row]

    @property
    def exit_code(self) -> int:
        """1 where anything fell short, failed, or had no time."""
        return int(any(row.falls_short for row in self.rows))

    def write(self, folder: Path) -> None:
        """Write `gpu.md` and `gpu.json`; called after each row, so that a run that is killed leaves what it has."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"- {name}: {value}" for name, value in self.head.items()]
        table = [HEAD, *(row.as_markdown() for row in self.rows)]
        (folder / "gpu.md").write_text("\n".join([*lines, "", *table]) + "\n")
        (folder / "gpu.json").write_bytes(msgspec.json.format(msgspec.json.encode(self)) + b"\n")


def judged(what: str, measured: str, bound: str, *, holds: bool | None, **figures: float | list[float]) -> Finding:
    """A finding from its bound; `holds` None where the device cannot show it."""
    outcome: Outcome = "not shown" if holds is None else "held" if holds else "short"
    return Finding(what=what, measured=measured, bound=bound, outcome=outcome, figures=figures)


def not_shown(what: str, why: str) -> Finding:
    """What cannot be shown here."""
    return Finding(what=what, measured=why, bound="", outcome="not shown")


def failed(what: str, error: BaseException) -> Finding:
    """An exception in place of a figure."""
    if isinstance(error, OutOfTime):
        return Finding(what=what, measured=str(error), bound="", outcome="no time")
    return Finding(what=what, measured=f"{type(error).__name__}: {error}", bound="", outcome="failed")


def _cell(text: str) -> str:
    """A text that breaks no table: on one line, without a border, and not endless."""
    line = " ".join(text.replace("|", "/").split())
    return line if len(line) <= _LONGEST_CELL else f"{line[:_LONGEST_CELL]}…"
