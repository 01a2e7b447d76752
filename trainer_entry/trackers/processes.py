"""The processes that tell trackers a training's figures: one each, so that none costs the training or another one.

A training never waits for them: what is heard on the wire is put into a queue with an end, from which a thread writes
into the process's standard input. A tracker whose queue is full, whose process ends, or which is not done some seconds
after the end of the training is given up, and the job says so.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import msgspec

from trainer_entry.runtime import distributed
from trainer_entry.runtime.attempt import Stopped
from trainer_entry.runtime.failures import message_of
from trainer_entry.runtime.stdout import note
from trainer_entry.trackers.lines import (
    AnyAnswer,
    AnyTold,
    CloseRun,
    LogFigures,
    OpenRun,
    Outcome,
    RunClosed,
    RunFailed,
)
from trainer_entry.wire import (
    AnyTrainerMessage,
    AttemptSpec,
    Evaluated,
    StepLogged,
    Tracker,
    TrackerFailed,
    TrainerStarted,
)
from trainer_entry.wire.redaction import without_credentials
from trainer_entry.wire.secret_files import TOKEN_FILE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import IO

    from trainer_entry.runtime.stdout import Wire

MODULE = "trainer_entry.report"
_MOST_WAITING = 1000
"""Lines: some minutes of the fastest training."""
_END_SECONDS = 20.0
_END_SHARE = 0.5
"""The most that a tracker takes of the time that the attempt has to end in when it is stopped."""
_KILLED_SECONDS = 5.0
_FOLDER = "trackers"


class Trackers:
    """The trackers of an attempt, told what the wire is told, for as long as a `with` block lasts."""

    def __init__(self, spec: AttemptSpec, wire: Wire) -> None:
        self._spec = spec
        self._wire = wire
        self._processes: list[_TrackerProcess] = []
        self._early: list[AnyTold] | None = []
        """What there is to tell of before the run is described: the untrained model is judged first."""

    def __enter__(self) -> None:
        """Start the processes: while the model is loaded, they load their libraries."""
        if distributed.rank() > 0:
            return
        folder = Path(self._spec.job.checkpoint_dir).parent / _FOLDER
        for tracker in self._spec.job.parameters.trackers:
            try:
                self._processes.append(_TrackerProcess(tracker, folder / tracker, self._report_failed))
            except OSError as error:
                self._report_failed(tracker, f"Its process could not be started: {message_of(error)}")
        if self._processes:
            self._wire.heard_by(self._hear)

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Tell the trackers how it ended, and wait for them together, but not for long."""
        outcome: Outcome = "finished" if error is None else "stopped" if isinstance(error, Stopped) else "failed"
        seconds = min(_END_SECONDS, self._spec.job.grace_seconds * _END_SHARE)
        deadline = time.monotonic() + seconds
        self._tell(CloseRun(outcome=outcome))
        for process in self._processes:
            process.end()
        for process in self._processes:
            process.wait(deadline, f"It was not done {seconds:g} s after the training.")

    def _hear(self, message: AnyTrainerMessage) -> None:
        """What was just said on the wire; called by whoever said it, who must not wait."""
        match message:
            case TrainerStarted() if self._early is not None:  # each phase of a job begins so: the first describes it
                early, self._early = self._early, None
                self._tell(OpenRun.of(self._spec, message))
                for told in early:
                    self._tell(told)
            case StepLogged() | Evaluated():
                figures = LogFigures.of(message)
                if self._early is None:
                    self._tell(figures)
                else:
                    self._early.append(figures)
            case _:
                pass

    def _tell(self, told: AnyTold) -> None:
        line = msgspec.json.encode(told) + b"\n"
        for process in self._processes:
            process.tell(line)

    def _report_failed(self, tracker: Tracker, message: str) -> None:
        note(f"{tracker} is told nothing more: {message}")
        attempt = self._spec.attempt
        self._wire.send(lambda seq: TrackerFailed(attempt=attempt, seq=seq, tracker=tracker, message=message))


class _TrackerProcess:
    """One tracker's process, and the two threads that write to it and read from it."""

    def __init__(self, tracker: Tracker, folder: Path, failed: Callable[[Tracker, str], None]) -> None:
        """`failed` is called once, by a thread of its own, if the tracker is given up.

        Raises:
            OSError: it could not be started.
        """
        self._tracker = tracker
        self._failed = failed
        self._lines: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING)
        self._reason: str | None = None
        self._process = subprocess.Popen(  # noqa: S603 - our own module, by a name of the wire's
            [sys.executable, "-m", MODULE, tracker, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
        )
        self._reader = self._start_thread(self._read, self._process.stdout)
        self._start_thread(self._write, self._process.stdin)

    def tell(self, line: bytes) -> None:
        """Have a line written, soon; a tracker that is too slow is given up."""
        self._put(line)

    def end(self) -> None:
        """Nothing more comes."""
        self._put(None)

    def wait(self, deadline: float, too_late: str) -> None:
        """Wait for the process to end, until a moment of the monotonic clock; then end it for this reason."""
        self._reader.join(max(0.0, deadline - time.monotonic()))
        if self._reader.is_alive():
            self._give_up(too_late)
            self._reader.join(_KILLED_SECONDS)

    def _put(self, line: bytes | None) -> None:
        if self._reason is None:
            try:
                self._lines.put_nowait(line)
            except queue.Full:
                self._give_up(f"It is too slow: {_MOST_WAITING} reports wait for it.")

    def _give_up(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._process.kill()  # which the reading thread notices, and reports

    def _start_thread(self, run: Callable[[IO[bytes]], None], pipe: IO[bytes] | None) -> threading.Thread:
        if pipe is None:
            raise AssertionError("the process has pipes")
        thread = threading.Thread(target=run, args=(pipe,), name=f"{self._tracker}-{run.__name__}", daemon=True)
        thread.start()
        return thread

    def _write(self, pipe: IO[bytes]) -> None:
        # A process that is gone takes nothing more; the reading thread says why it is.
        with contextlib.suppress(OSError), pipe:
            while (line := self._lines.get()) is not None:
                pipe.write(line)
                pipe.flush()

    def _read(self, pipe: IO[bytes]) -> None:
        closed = False
        try:
            with pipe:
                for line in pipe:
                    answer: AnyAnswer = msgspec.json.decode(line, type=AnyAnswer)
                    match answer:
                        case RunClosed():
                            closed = True
                        case RunFailed(message=message):
                            self._reason = self._reason or message
                        case _:
                            assert_never(answer)
        except msgspec.MsgspecError as error:
            self._give_up(f"Its process said what is no answer: {message_of(error)}")
        code = self._process.wait()
        with contextlib.suppress(queue.Full):  # whoever writes may wait for a line
            self._lines.put_nowait(None)
        if not closed:
            self._failed(self._tracker, self._reason or f"Its process ended with {code}.")


def _environment() -> dict[str, str]:
    """That of the trainer, without the secrets that it took up for itself, and without a GPU."""
    kept = {
        name: without_credentials(value) if name.lower().endswith("_proxy") else value
        for name, value in os.environ.items()
    }
    return kept | {TOKEN_FILE_VARIABLE: os.devnull, "CUDA_VISIBLE_DEVICES": ""}
