"""The script of what only a GPU shows, as far as a machine without one can try it.

Its comparison with plain trl is the one of tests/trainer/strategies/test_like_trl.py, which runs `gpu.bare` too.
"""

from __future__ import annotations

import re
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from gpu.__main__ import main
from gpu.bench import TINY, Bench, Broken
from gpu.lines import LINES, Line, run_line
from gpu.table import HEAD, Report, Row, failed, judged
from gpu.wheels import keep_kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpu.table import Finding

KERNELS = ("cpu", "cuda124", "cuda130", "rocm70", "xpu2025")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench("cpu", TINY, tmp_path, tmp_path / "model", at_once=2)


def rows_of(bench: Bench, *lines: Line, ends: float = float("inf")) -> list[Row]:
    return [row for line in lines for row in run_line(line, bench, ends, slower=1.0)]


def holds(_: Bench) -> Iterator[Finding]:
    yield judged("a figure", "1 | 2\n3", "at least 1", holds=True, ratio=1.5)
    yield judged("another", "0.5", "at least 1", holds=None)


def breaks(_: Bench) -> Iterator[Finding]:
    yield judged("a figure", "0.5", "at least 1", holds=False)
    raise Broken("the trainer ended with 1: ValueError")


def test_without_a_gpu_it_says_so_and_ends_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main([]) == 0
    assert capsys.readouterr().out == "no GPU\n"


def test_a_line_that_breaks_is_a_row_and_the_others_go_on(bench: Bench, tmp_path: Path) -> None:
    rows = rows_of(bench, Line("first", breaks, 60), Line("second", holds, 60))
    report = Report(head={"device": "none"}, rows=rows)
    report.write(tmp_path / "out")
    # then
    assert [(row.line, row.finding.outcome) for row in rows] == [
        ("first", "short"),
        ("first", "failed"),
        ("second", "held"),
        ("second", "not shown"),
    ]
    assert "Broken: the trainer ended with 1: ValueError" in rows[1].as_markdown()
    assert report.exit_code == 1
    assert Report(head={}, rows=rows[2:]).exit_code == 0
    # and every row of the files has the cells of the head, whatever a figure says
    head, *lines = (tmp_path / "out" / "gpu.md").read_text().splitlines()
    table = lines[lines.index(HEAD.splitlines()[0]) :]
    assert head == "- device: none"
    assert {line.count("|") for line in table} == {7}
    found = msgspec.json.decode((tmp_path / "out" / "gpu.json").read_bytes())
    assert found["rows"][2]["finding"]["figures"] == {"ratio": 1.5}


def test_a_line_ends_at_its_limit_with_all_that_it_started(bench: Bench, tmp_path: Path) -> None:
    started: list[int] = []

    def sleep() -> None:
        process = bench.start([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "o", tmp_path / "e")
        started.append(process.pid)
        bench.wait(process)

    def hangs(_: Bench) -> Iterator[Finding]:
        done, cut = bench.together([lambda: "done", sleep])
        yield judged(f"{done}", "1", "1", holds=True)
        yield failed("cut", cut or AssertionError())
        sleep()

    rows = rows_of(bench, Line("hangs", hangs, 0.3), Line("next", holds, 60))
    # then what was done stands, and what was not is told
    assert [row.finding.outcome for row in rows] == ["held", "no time", "no time", "held", "not shown"]
    assert [row.finding.what for row in rows[:2]] == ["done", "cut"]
    assert "its own limit" in rows[2].finding.measured
    assert len(started) == 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)


def test_a_line_that_the_time_is_over_for_is_not_begun(bench: Bench) -> None:
    (row,) = rows_of(bench, Line("late", holds, 60), ends=time.monotonic() - 1)
    assert (row.finding.outcome, row.falls_short) == ("no time", True)
    assert "not begun" in row.finding.measured


def test_the_page_has_every_line_in_order_with_its_limit() -> None:
    page = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text()
    told = re.findall(r"^\| `([\w-]+)` \|.*\| (\d+) \|$", page, re.MULTILINE)
    assert told == [(line.name, f"{line.seconds:.0f}") for line in LINES]


def test_only_the_kernels_that_are_wanted_stay_in_a_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "bitsandbytes-1-py3-none-any.whl"
    names = ["bitsandbytes/__init__.py", *(f"bitsandbytes/libbitsandbytes_{device}.so" for device in KERNELS)]
    record = "bitsandbytes-1.dist-info/RECORD"
    with zipfile.ZipFile(wheel, "w") as whole:
        for name in names:
            whole.writestr(name, "content")
        whole.writestr(record, "".join(f"{name},sha256=0,7\n" for name in [*names, record]))
    keep_kernels(wheel, "cuda130")
    kept = [
        "bitsandbytes/__init__.py",
        "bitsandbytes/libbitsandbytes_cpu.so",
        "bitsandbytes/libbitsandbytes_cuda130.so",
    ]
    with zipfile.ZipFile(wheel) as trimmed:
        assert trimmed.namelist() == [*kept, record]
        assert [line.split(",")[0] for line in trimmed.read(record).decode().splitlines()] == [*kept, record]
    with pytest.raises(SystemExit, match="cuda999"):
        keep_kernels(wheel, "cuda999")
