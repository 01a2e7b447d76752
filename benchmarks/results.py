"""The page of results: the machine that they are of, and a table of every figure."""

import os
import platform
import re
import sqlite3
import statistics
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from figures import Figure, Measured, Program, Result, number

_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "aiohttp", "uvloop", "aiosqlite", "msgspec")
_HEAD = """\
# Results

Written by `make bench`. Ours and its yardstick are measured in one run, in turn; the ratio is the median of those of
the rounds, the spread its least and most. Times and rates are this machine's; the ratios are what may be compared.

"""


def page(programs: Mapping[str, Program], results: Mapping[str, Result]) -> str:
    """Markdown of all figures, whether they were measured or not."""
    parts = [_HEAD, *(f"- {line}\n" for line in machine()), *_runs(results)]
    parts += ["\n| figure | ours | yardstick | ratio | spread | aim | held |\n|---|---|---|---|---|---|---|\n"]
    parts += [
        _row(figure, _found(figure, results.get(name)), results.get(name))
        for name, program in programs.items()
        for figure in program.figures
    ]
    parts.append("\n## What each measures\n")
    for name, program in programs.items():
        parts.append(f"\n### `benchmarks/{name}.py`\n\n{_run(results.get(name))}")
        parts += [f"- **{figure.name}**: {figure.note}\n" for figure in program.figures]
    return "".join(parts)


def machine() -> list[str]:
    """The machine and what runs on it, a line each."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = platform.system()
    return [
        f"{_processor()}, {cores} cores for these programs, {memory:.0f} GB of memory",
        f"{system}, Linux {platform.release()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)) is not None),
    ]


def _runs(results: Mapping[str, Result]) -> list[str]:
    if not results:
        return []
    first = min(result.began for result in results.values())
    minutes = sum(result.seconds for result in results.values()) / 60
    loads = [load for result in results.values() for load in result.load]
    quick = "; **small sizes, one round: these say little**" if any(one.quick for one in results.values()) else ""
    date = time.strftime("%Y-%m-%d", time.gmtime(first))
    load = f"load average {min(loads):.1f} to {max(loads):.1f}, median {statistics.median(loads):.1f}"
    return [f"- {date}, {minutes:.0f} minutes in all, {load}{quick}\n"]


def _run(result: Result | None) -> str:
    """When a program ran, and of which commit: those of one page may be of several."""
    if result is None:
        return ""
    of = f" at {result.commit}" if result.commit else ""
    began = time.strftime("%Y-%m-%d %H:%M", time.gmtime(result.began))
    return f"{began} UTC{of}, {result.seconds:.0f} s, load average {result.load[0]:.1f} to {result.load[1]:.1f}.\n\n"


def _found(figure: Figure, result: Result | None) -> Measured | None:
    measured = () if result is None else result.measured
    return next((one for one in measured if one.figure.name == figure.name), None)


def _row(figure: Figure, measured: Measured | None, result: Result | None) -> str:
    if measured is None:
        why = "not measured" if result is None or not result.failure else f"failed: {result.failure[:120]}"
        return _line([figure.name, why, figure.yardstick, "", "", figure.aim(), ""])
    held = {True: "yes", False: "**no**", None: ""}[measured.held]
    ours = f"{number(statistics.median(measured.ours))} {figure.unit}"
    spread = measured.spread() if len(measured.compared) > 1 else "one round"
    if not measured.yardstick:
        return _line([figure.name, ours, "", "", spread, figure.aim(), held])
    yardstick = f"{number(statistics.median(measured.yardstick))} {figure.unit}, {figure.yardstick}"
    return _line([figure.name, ours, yardstick, number(measured.median), spread, figure.aim(), held])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", " ").replace("\n", " ") for cell in cells) + " |\n"


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return platform.machine() if found is None else found[1]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
