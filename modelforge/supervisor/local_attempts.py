"""What of attempts runs on this machine, for who looks on from beside the server that has them."""

from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from modelforge.domain.job import LocalProcess, local_process
from modelforge.layout import Layout
from modelforge.supervisor.processes import TOKEN_VARIABLE, command_line, is_alive, name_of, processes_with, tokens
from trainer_entry import wire

_T = TypeVar("_T")
MARK = TOKEN_VARIABLE
"""By which variable in its environment a process is known as one of an attempt's."""


class Attempt(Struct, frozen=True, gc=False):
    """An attempt, as its folder is named."""

    job_id: str
    number: int

    def __str__(self) -> str:
        return f"{self.job_id} attempt {self.number}"


class Bearer(Struct, frozen=True, kw_only=True, gc=False):
    """A process that carries a token, and the attempt in this data directory that it is of."""

    pid: int
    token: str
    attempt: Attempt

    def is_there(self) -> bool:
        """Whether it still is."""
        return self.pid in processes_with(self.token)

    @property
    def name(self) -> str:
        """What the kernel calls it."""
        return name_of(self.pid)


def bearers_of(layout: Layout) -> list[Bearer]:
    """The processes that are of an attempt in this data directory: by their token, or by their command line.

    To be listed before the log is read: then what is found was recorded before, or should not be there.
    """
    carried = tokens()
    if not carried:
        return []
    owners: dict[str, Attempt] = {}
    for path in layout.jobs.glob("*/attempt-*/spec.json"):
        attempt, spec = _attempt(path.parent, layout), _read(path, wire.AttemptSpec)
        if attempt is not None and spec is not None:
            owners[spec.token] = attempt
    found = ((pid, token, owners.get(token) or _told(pid, layout)) for pid, token in sorted(carried.items()))
    return [Bearer(pid=pid, token=token, attempt=attempt) for pid, token, attempt in found if attempt is not None]


def _told(pid: int, layout: Layout) -> Attempt | None:
    """The attempt whose folder is among a process's arguments."""
    named = (_attempt(Path(argument), layout) for argument in command_line(pid) if argument.startswith("/"))
    return next((attempt for attempt in named if attempt is not None), None)


def _attempt(folder: Path, layout: Layout) -> Attempt | None:
    number = folder.name.removeprefix("attempt-")
    if folder.parent.parent != layout.jobs or not number.isdigit():
        return None
    return Attempt(folder.parent.name, int(number))


class Remains(Struct, frozen=True, kw_only=True, gc=False):
    """What there is of an attempt. `pid`: of its shim, while that lives. `left`: its processes where that is gone.

    `was_spawned`: whether it ever had a process.
    """

    pid: int | None = None
    left: tuple[int, ...] = ()
    was_spawned: bool = True


def remains_of(attempt: Attempt, process: LocalProcess | None, layout: Layout) -> Remains:
    """What there is of an attempt; `process` is who runs it by the log, if the log has that."""
    folder = layout.attempt(attempt.job_id, attempt.number)
    if process is None and (report := _read(folder / "shim.json", wire.ShimReport)) is not None:
        process = local_process(report)
    if process is not None and is_alive(process):
        return Remains(pid=process.pid)
    return Remains(left=processes_of(attempt, layout), was_spawned=process is not None)


def processes_of(attempt: Attempt, layout: Layout) -> tuple[int, ...]:
    """The processes that carry the token of an attempt."""
    spec = _read(layout.attempt(attempt.job_id, attempt.number) / "spec.json", wire.AttemptSpec)
    return () if spec is None else tuple(sorted(processes_with(spec.token)))


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None
