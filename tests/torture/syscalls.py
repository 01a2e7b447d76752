"""Kills the server at every system call of a command that changes anything outside it.

A kill at a call that changes nothing outside (a wait, a lock, a read, a stat) leaves the same world as a kill at
the next call that does; so those are all that there are. (A kill is no power loss: what was written stays.)

A trial without a kill shows which calls a command makes; then `strace` delivers the signal on entering the N-th
call of a name in a thread, for each thread, each name, and N = 1, 2, … until the command comes to its end without
a kill. It counts by thread and by name, and so it is attached to one thread at a time: the loop's is the process's
first, every thread call runs in the one thread of the pool, and the third writes the log. (libuv's own workers
look up names and do nothing else.) What the server starts, shim and trainer, is not killed with it.

Two kinds of calls count though nobody outside sees them, since a call is chosen by its name alone: opening a file
for reading, and waking another thread by a `write`. They make some kills the same; none is missed by it.

The server's start is cut from where its modules are loaded: it stops itself there. The log's thread does not exist
yet then, so `strace -f` follows all: that reaches the log thread's N-th call of a name unless another thread comes
to N of that name before, and is killed there in its place.
"""

import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from support import external_probe as seen
from support.server_calls import THREADS, Point, Strace, thread_ids

from torture.commands import COMMANDS, SERVER_START, SERVER_STOP, Command, Prepared, Trial
from torture.promises import Asked, broken_promises

_PATIENCE_SECONDS = 20.0
_TAIL_SECONDS = 0.05


class Call(NamedTuple):
    """A call that was seen. `is_seen_outside`: it does more than open a file for reading, or wake a thread."""

    thread: str
    name: str
    is_seen_outside: bool


@dataclass(frozen=True)
class Result:
    """What a trial came to. `where`: the call that was not made, as strace shows it; None without a kill.

    `calls`: those that each thread made, in its order, where all were followed.
    """

    where: str | None
    broken: list[str]
    calls: list[Call] = field(default_factory=list)


def run_trial(prepared: Prepared, command: Command, point: Point | None, chance: random.Random) -> Result:
    """One command, killed at a point or not, and everything checked afterwards. A trial that fails is broken too."""
    trial = Trial(prepared)
    try:
        command.prepare(trial)
        where, calls, asked = _under_strace(trial, command, point)
        broken: list[str] = []
        if trial.server.process.poll() is not None:
            broken += _said(trial)
            trial.server.start()
        sent = [] if asked is None else [asked]
        broken += broken_promises(trial.server, trial.data_dir, chance, sent, still=True)
        if command.ask is not None and asked is not None:
            sent.append(command.ask(trial))
            broken += _of_repetition(*sent)
        trial.end_jobs()
        broken += broken_promises(trial.server, trial.data_dir, chance, sent, still=True)
        broken += _said(trial)
        return Result(where, list(dict.fromkeys(broken)), calls)
    except (AssertionError, LookupError, OSError) as error:
        return Result("?", [f"the trial could not go on: {error!r}"])
    finally:
        trial.close()


def _said(trial: Trial) -> Iterator[str]:
    """What a server says of its own faults, once it has ended."""
    stderr = trial.server.end(signal.SIGTERM)
    if "Traceback" in stderr:
        yield f"the server said {stderr!r}"


def _of_repetition(asked: Asked, again: Asked) -> Iterator[str]:
    """The same request with the same key gives the first answer, or it is done now."""
    name = f"{again.method} {again.path}"
    if not again.succeeded and not (again.method == "DELETE" and again.status == 404):
        yield f"{name} again, with the same key, was answered {again.status}: {again.answer}"
    elif asked.succeeded and again.status == asked.status == 200 and again.answer != asked.answer:
        yield f"{name} was answered {asked.answer}, and again, with the same key, {again.answer}"
    elif asked.succeeded and again.answer.get("job_id") != asked.answer.get("job_id"):
        yield f"{name} was of {asked.answer['job_id']}, and again, with the same key, of {again.answer['job_id']}"


def _under_strace(trial: Trial, command: Command, point: Point | None) -> tuple[str | None, list[Call], Asked | None]:
    """Carry a command out: where it was cut off, if it was; the calls that were seen; and what was answered."""
    head = seen.rows_of(trial.data_dir)[-1].position
    if command is SERVER_START:
        trial.server.spawn("--stopped")
        _until_stopped(trial.server.process.pid)
    process = trial.server.process
    strace = Strace(process.pid, trial.prepared.folder / "strace.log", point)
    threads = thread_ids(process.pid)
    asked: Future[Asked] | None = None
    with ThreadPoolExecutor(1) as client:
        if command is SERVER_START:
            process.send_signal(signal.SIGCONT)
            client.submit(trial.server.listen)
        elif command.happen is not None:
            command.happen(trial)
        elif command.ask is not None:
            asked = client.submit(command.ask, trial)
        try:
            _until_done(trial, command, asked, after=head)
            if process.poll() is None:
                threads = thread_ids(process.pid)
        finally:
            made = strace.end()
    calls = [Call(threads[call.task], call.name, call.is_seen_outside) for call in made if call.task in threads]
    where = made[-1].line if process.poll() == -signal.SIGKILL else None
    return where, calls, None if asked is None else asked.result()


def _until_stopped(pid: int) -> None:
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.01)


def _until_done(trial: Trial, command: Command, asked: "Future[Asked] | None", after: int) -> None:
    """Return when the server is dead, or the command is at its end."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while trial.server.process.poll() is None:
        assert time.monotonic() < deadline, f"{command.name} came to no end"
        if (asked is None or asked.done()) and command is not SERVER_STOP:
            rows = seen.rows_of(trial.data_dir) if command.last else []
            if command.last is None or any(row.position > after and row.type == command.last for row in rows):
                time.sleep(_TAIL_SECONDS)
                return
        time.sleep(0.01)


def _series(command: Command, calls: list[Call]) -> Iterator[list[tuple[Point, bool]]]:
    """The points that a trial without a kill passed, by thread and name, and whether the call is seen outside."""
    for thread, name in sorted({(call.thread, call.name) for call in calls}):
        attached = command is not SERVER_START or thread != "log"
        found = [call for call in calls if (call.thread, call.name) == (thread, name)]
        yield [(Point(thread, name, n, attached), call.is_seen_outside) for n, call in enumerate(found, start=1)]


def _every(command: Command, calls: list[Call], results: dict[Point, Result]) -> Iterator[Point]:
    """Each point of each thread and name, and on, as there may be more the next time, until one comes to no kill."""
    for series in _series(command, calls):
        yield from (point for point, _ in series)
        last, _ = series[-1]
        while last.attached and results[last].where is not None:
            last = replace(last, number=last.number + 1)
            yield last


def torture_command(prepared: Prepared, command: Command, count: int, chance: random.Random) -> list[str]:
    """Kill a command at `count` points by chance, or with 0 at every one; what broke."""
    whole = run_trial(prepared, command, None, chance)
    broken = [f"{command.name} without a kill: {what}" for what in whole.broken]
    results: dict[Point, Result] = {}
    points = _every(command, whole.calls, results)
    if count:
        known = [
            point for series in _series(command, whole.calls) for point, is_seen_outside in series if is_seen_outside
        ]
        points = iter(chance.sample(known, min(count, len(known))))
    for point in points:
        result = results[point] = run_trial(prepared, command, point, chance)
        broken += [f"{command.name} at {point}, {result.where}: {what}" for what in result.broken]
    kills = Counter(point.thread for point, result in results.items() if result.where is not None)
    by_thread = ", ".join(f"{thread} {kills[thread]}" for thread in THREADS)
    say(f"{command.name}: {kills.total()} kills ({by_thread}), {len(broken)} promises broken")
    if not kills.total():
        broken.append(f"{command.name} was never killed: nothing was tested")
    for what in broken:
        say(f"  {what}")
    return broken


def torture(folder: Path, seed: int, count: int, names: Sequence[str] = ()) -> list[str]:
    """The promises that did not hold; `names`: of some commands only."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    prepared = Prepared.make(folder)
    broken: list[str] = []
    for command in COMMANDS:
        if not names or command.name in names:
            broken += torture_command(prepared, command, count, chance)
    return broken


def say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()
