"""A finding: its subject, how it stands, and what to do about it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct

from modelforge.visible_text import visible

Level = Literal["ok", "warning", "problem"]
_LEVEL_WIDTH = len("problem")
_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_THOUSAND = 1000


class Finding(Struct, frozen=True, gc=False):
    """What was found. `remedy`: what to do; only what is ok has none."""

    subject: str
    level: Level
    found: str
    remedy: str = ""


def ok(subject: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(subject, "ok", found)


def warning(subject: str, found: str, remedy: str) -> Finding:
    """It works, but not for long, or not as well as it could."""
    return Finding(subject, "warning", found, remedy)


def problem(subject: str, found: str, remedy: str) -> Finding:
    """Something does not work, or is lost."""
    return Finding(subject, "problem", found, remedy)


def unreadable(subject: str, error: Exception) -> Finding:
    """A subject that could not be read, of which nothing is known."""
    return problem(subject, f"cannot be read: {error}", "Run this as the user that the server runs as.")


def lines(findings: Iterable[Finding]) -> Iterator[str]:
    """The findings as a person reads them, a line each with its remedy below it, and a summary."""
    findings = [*findings]
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        yield f"{finding.level:<{_LEVEL_WIDTH}}  {finding.subject:<{width}}  {visible(finding.found)}"
        if finding.remedy:
            yield f"{'':{_LEVEL_WIDTH + width + 4}}{visible(finding.remedy)}"
    yield summary(findings)


def summary(findings: Iterable[Finding]) -> str:
    """How many findings there are of each level."""
    levels = Counter(finding.level for finding in findings)
    return f"{levels['ok']} ok, {_counted(levels['warning'], 'warning')}, {_counted(levels['problem'], 'problem')}."


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def size(count: float) -> str:
    """Bytes in the largest unit (of 1000) that they fill."""
    unit = 0
    while count >= _THOUSAND and unit < len(_UNITS) - 1:
        count, unit = count / _THOUSAND, unit + 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"
