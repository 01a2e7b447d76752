"""The lines, in the order of their worth: what a limit of time cuts off are the last ones."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import Struct

from gpu.bench import Bench, OutOfTime
from gpu.learning import learning_with_huggingface, learning_with_unsloth
from gpu.likeness import losses_of_plain_trl
from gpu.memory import memory_against_preflight, memory_that_is_not_there
from gpu.resuming import killed_and_resumed
from gpu.speed import speed_beside_trl, speed_beside_unsloth
from gpu.table import Finding, Row, failed
from gpu.turns import playground_and_training

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Line(Struct, frozen=True):
    """One line. `seconds`: the most that it may take on a GPU."""

    name: str
    measure: Callable[[Bench], Iterator[Finding]]
    seconds: float


LINES = (
    Line("learning", learning_with_huggingface, 100),
    Line("likeness", losses_of_plain_trl, 80),
    Line("memory", memory_against_preflight, 80),
    Line("too-large", memory_that_is_not_there, 60),
    Line("resume", killed_and_resumed, 80),
    Line("speed", speed_beside_trl, 150),
    Line("turns", playground_and_training, 80),
    Line("learning-unsloth", learning_with_unsloth, 120),
    Line("speed-unsloth", speed_beside_unsloth, 150),
)


def run_line(line: Line, bench: Bench, ends: float, slower: float) -> Iterator[Row]:
    """The rows of a line as they come; whatever happens in it stays in it.

    `ends`: of the whole run, by time.monotonic. `slower`: how many times its limit the line has, on a CPU.
    """
    began = last = time.monotonic()
    limit = line.seconds * slower
    bench.deadline = min(began + limit, ends)
    try:
        if began >= ends:
            raise OutOfTime  # noqa: TRY301 - told as the same thing
        for finding in line.measure(bench):
            now = time.monotonic()
            yield Row(line=line.name, finding=finding, seconds=now - last)
            last = now
    except OutOfTime:
        cut_by = f"its own limit, {limit:.0f} s" if began + limit < ends else "the end of the whole run's time"
        measured = f"cut off by {cut_by}" if began < ends else "not begun: the whole run's time was over"
        finding = Finding(what=line.name, measured=measured, bound="", outcome="no time")
        yield Row(line=line.name, finding=finding, seconds=time.monotonic() - last)
    except Exception as error:  # noqa: BLE001 - a line that breaks is a row, and the others go on
        yield Row(line=line.name, finding=failed(line.name, error), seconds=time.monotonic() - last)
    finally:
        bench.end_all()
